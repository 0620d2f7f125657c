"""A run that starts from the weights of another run: they are copied into its workdir."""

import copy
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxvit import inference, models, pretrained
from jaxvit.build import parts
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.pretrained.files import is_run
from jaxvit.runtime import multihost
from jaxvit.runtime.paths import expand
from jaxvit.workdir import resume, run_files

ORIGIN = "origin.json"  # of which run the copy is


def kept(config: Config, workdir: Path) -> Config:
    """The config with `pretrained` naming the copy in `workdir`, where a run has begun there with that of the same run.

    The other run may have gone or been moved since, or may have gone on.
    """
    target = workdir / run_files.START
    if config.pretrained is None or not target.is_dir() or not resume.has_work(workdir):
        return config
    return _naming(config, target) if _is_of(target, expand(config.pretrained)) else config


def copied(config: Config, workdir: Path) -> Config:
    """The config with `pretrained` naming a copy in `workdir`, which is made, where it names another run's workdir.

    Raises:
      UserError: that run has no checkpoint, or is of another model.
    """
    place, target = None if config.pretrained is None else expand(config.pretrained), workdir / run_files.START
    if place is None or not is_run(place):
        return config
    multihost.by_main(lambda: _copy(place, target, config.model.name))
    return _naming(config, target)


@contextmanager
def lent(config: Config, workdir: Path) -> Iterator[Config]:
    """Yields the config as `copied` does; the copy goes again, and that of the run in `workdir` stays as it is."""
    place = workdir / f"{run_files.START}.part"
    try:
        yield copied(kept(config, workdir), place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _naming(config: Config, target: Path) -> Config:
    config = copy.deepcopy(config)
    config.pretrained = str(target.resolve())
    return config


def _origin(place: Path) -> dict[str, str | None]:
    """What a run is known by: where it lies, and its config."""
    file = place / "config.json"
    return {
        "run": str(place.resolve()),
        "config": hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None,
    }


def _is_of(target: Path, place: Path) -> bool:
    """Whether a copy is of the run in `place`, by its place or its config; without a record, of any run."""
    if not (target / ORIGIN).is_file():
        return is_run(place)
    before, now = run_files.read_json(target / ORIGIN), _origin(place)
    return any(now[word] is not None and now[word] == before.get(word) for word in now)


def _copy(place: Path, target: Path, name: str) -> None:
    found = inference.from_run(place)
    if found.name != name:
        raise UserError(f"pretrained {str(place)!r} is a run of {found.name}; model.name is {name}")
    start = (None if found.config is None else found.config.pretrained) or ""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    pretrained.save(
        found.model,
        found.variables,
        part,
        name=name,
        data_config=found.data_config,
        label_names=found.class_names,
        licence=(models.tag_info(start)["license"] or "") if start and parts.pretrained_name(start) else "",
    )
    run_files.write_json(part / ORIGIN, _origin(place))
    shutil.rmtree(target, ignore_errors=True)  # of a start that came to nothing, or of another run
    part.rename(target)
