"""A run that starts from the weights of another run: they are copied into its workdir."""

import copy
import shutil
from pathlib import Path

from jaxvit import inference, models, pretrained
from jaxvit.build import parts
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.runtime import multihost
from jaxvit.runtime.paths import expand
from jaxvit.workdir import run_files


def from_run(config: Config, workdir: Path) -> Config:
    """Returns the config with `pretrained` naming a copy in `workdir`, where it names the workdir of another run.

    Raises:
      UserError: that run has no checkpoint, or is of another model.
    """
    place = None if config.pretrained is None else expand(config.pretrained)
    if place is None or not (place / "config.json").is_file() or not (place / "checkpoints").is_dir():
        return config
    multihost.by_main(lambda: _copy(place, workdir / run_files.START, config.model.name))
    config = copy.deepcopy(config)
    config.pretrained = str((workdir / run_files.START).resolve())
    return config


def _copy(place: Path, target: Path, name: str) -> None:
    if target.exists():  # a resumed run
        return
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
    part.rename(target)
