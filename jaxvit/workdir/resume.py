"""What a run finds in its workdir: nothing, a run to resume, a finished run, a different run, or damage."""

import copy
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxvit import config as config_lib
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.runtime import files, streams
from jaxvit.runtime.console import err, warn
from jaxvit.workdir import manifest, run_files
from jaxvit.workdir.checkpoint import Checkpoints

CHECKPOINTS = ("checkpoints", f"checkpoints/{run_files.PRETRAIN}")
DIRECTORIES = (
    *(f"{home}{n}" for home in CHECKPOINTS for n in ("", "/last", "/best", "/manifests", "/damaged", "/replaced")),
    "events", "wandb", "unknown", run_files.PRETRAIN, f"{run_files.PRETRAIN}/events", f"{run_files.PRETRAIN}/wandb",
)  # fmt: skip
SEALED = ("config.json", "classes.json", run_files.THRESHOLDS, run_files.CALIBRATION, "metrics.jsonl",
          "predictions.npz", "samples.npz", "summary.json")  # fmt: skip
ARRAYS = {"predictions.npz": ("logits", "labels", "index"), "samples.npz": ("image", "label", "index")}
WAYS = {"r": (os.R_OK, "read"), "w": (os.W_OK, "written"), "x": (os.X_OK, "entered")}
FILES = (
    *SEALED,
    manifest.NAME,
    streams.NAME,
    "skipped_files.txt",
    "leaks.json",
    "leaks.csv",
    "leaks.png",
    "wandb/id.json",
    *(f"{run_files.PRETRAIN}/{name}" for name in (*run_files.PRETRAIN_FILES, manifest.NAME, "wandb/id.json")),
)


def inspect(workdir: Path) -> None:
    """Raises UserError where a name that a run uses stands for another kind of thing, or may not be used.

    Said at the start: a library that meets it hours later says it less well, or waits for ever.
    """
    run_files.check_free(workdir, "a run")
    for name in DIRECTORIES:
        _inspect(workdir, workdir / name, True)
    for home, kind in itertools.product(CHECKPOINTS, ("last", "best")):
        steps = workdir / home / kind
        for path in sorted(steps.iterdir()) if steps.is_dir() else []:
            if path.name.isdecimal():
                _inspect(workdir, path, True)
                _inspect(workdir, path / manifest.NAME, False)
    for home in CHECKPOINTS:
        for path in sorted((workdir / home / "manifests").glob("*.json")):
            _inspect(workdir, path, False)
    for name in FILES:
        _inspect(workdir, workdir / name, False)


def _inspect(workdir: Path, path: Path, directory: bool) -> None:
    expected = "directory" if directory else "file"
    if not os.path.lexists(path):
        return
    if not path.exists():
        said = (
            f"is a link to {os.readlink(path)!r}, which does not exist" if path.is_symlink() else "cannot be followed"
        )
    elif directory != path.is_dir() or not (directory or path.is_file()):
        kind = "directory" if path.is_dir() else "file" if path.is_file() else "device or pipe"
        said = f"is a {kind}; expected a {expected}"
    else:
        # files are replaced as a whole, except for the one that grows
        ways = "rwx" if directory else "rw" if path.name == "metrics.jsonl" else "r"
        missing = [WAYS[way][1] for way in ways if not os.access(path, WAYS[way][0])]
        if not missing:
            return
        said = f"may not be {' or '.join(missing)} by this user"
    raise UserError(f"{str(path)!r} {said}\nmove it away, or choose another --workdir than {str(workdir)!r}")


def kept(config: Config, workdir: Path) -> Config:
    """The config with the `ema.warmup` that a run in `workdir` was begun with, where it is left open here."""
    before = workdir / "config.json"
    if config.ema.warmup is None and has_work(workdir) and "config.json" not in run_files.damage(workdir):
        config = copy.deepcopy(config)
        config.ema.warmup = run_files.read_json(before).get("ema", {}).get("warmup")
    return config


def imports(workdir: Path) -> list[str]:
    """The modules that a run in `workdir` has recorded, none where none has begun there."""
    if not has_work(workdir) or run_files.damage(workdir, ["config.json"]):
        return []
    names = run_files.read_json(workdir / "config.json").get("imports", [])
    return names if isinstance(names, list) else []


def class_names(workdir: Path) -> list[str] | None:
    """The classes of a run in `workdir` in the order of its labels, or None where none has begun there."""
    if not has_work(workdir) or "classes.json" in run_files.damage(workdir):
        return None
    try:
        names = run_files.read_json(workdir / "classes.json", list)
    except UserError:
        return None
    return names if all(isinstance(name, str) for name in names) else None


def check(config: Config, workdir: Path, force: bool, test: bool = True) -> dict[str, Any] | None:
    """Returns the metrics of a finished run of this config, tested if `test`; refuses a workdir of another one."""
    if not has_work(workdir):
        return None
    hashes, damage = run_files.sealed(workdir), run_files.damage(workdir)
    if not hashes:
        warn(f"{workdir / 'manifest.json'} is damaged or missing; the files next to it are not verified")
        for name, arrays in ARRAYS.items():
            try:
                if (workdir / name).exists():
                    run_files.read_npz(workdir / name, arrays)
            except UserError:
                damage[name] = f"{name} has changed"
    for said in damage.values():
        warn(f"{workdir}: {said} since the run wrote it; it is created again")
    if "config.json" not in damage:
        before = run_files.read_json(workdir / "config.json")
        if before.get("fast_dev_run") and not config.fast_dev_run:
            err.print(f"removing the dry run in {workdir}")
            run_files.remove_run(workdir)
            return None
        changed = config_lib.differences(config, before)
        if changed and not force:
            _refuse(workdir, changed)
        if changed:
            return None
    if not (workdir / "summary.json").exists() or "summary.json" not in (hashes or ["summary.json"]):
        return None
    if damage and any((workdir / "checkpoints" / "last").glob("[0-9]*")):
        return None  # it goes through its end once more
    if damage:
        raise UserError(f"{'; '.join(damage.values())} in {str(workdir)!r}\nno checkpoint is left to create it from")
    checkpoints = Checkpoints(workdir / "checkpoints")
    best = checkpoints.steps("best")[-1:]
    checkpoints.verify()
    lost = best != checkpoints.steps("best")[-1:]
    checkpoints.close()
    if lost and any((workdir / "checkpoints" / "last").glob("[0-9]*")):
        return None  # its figures are those of weights that no longer exist
    final = run_files.read_json(workdir / "summary.json").get("final")
    untested = test and final is not None and "test/loss" not in final
    return None if untested and any((workdir / "checkpoints" / "last").glob("[0-9]*")) else final


def write_config(workdir: Path, words: Mapping[str, Any], class_names: Sequence[str], force: bool) -> None:
    """Writes what a run is known by; refuses to continue if the earlier config is damaged and was different.

    What an earlier end has left is taken away: a report would show it as the result of a run that has gone on.
    """
    contents = {
        "config.json": run_files.json_bytes(words),
        "classes.json": run_files.json_bytes(list(class_names)),
    }
    before = run_files.sealed(workdir).get("config.json")
    other = before is not None and manifest.sha256_bytes(contents["config.json"]) != before
    if other and not force and has_work(workdir) and run_files.damage(workdir, ["config.json"]):
        raise UserError(
            f"{str(workdir / 'config.json')!r} is damaged, and the run had a different config\n"
            "start it with its own config, or pass --force to continue with this one"
        )
    # Which model fields the weights bring is known only now: one that is no longer given does not count.
    if not force and has_work(workdir) and not run_files.damage(workdir, ["config.json"]):
        old, new = run_files.read_json(workdir / "config.json")["model"], words["model"]
        changed = [f"model.{k}: {old.get(k)} -> {new.get(k)}" for k in sorted(old | new) if old.get(k) != new.get(k)]
        if changed:
            _refuse(workdir, changed)
    run_files.seal(workdir, contents)
    for name, content in contents.items():
        files.write(workdir / name, content)
    for name in run_files.OF_THE_END:
        (workdir / name).unlink(missing_ok=True)


def _refuse(workdir: Path, changed: Sequence[str]) -> NoReturn:
    shown = "; ".join(changed[:3]) + (f"; {len(changed) - 3} more" if len(changed) > 3 else "")
    raise UserError(
        f"workdir {str(workdir)!r} holds a run of a different config ({shown})\n"
        "choose another --workdir, or pass --force to continue there with the new values"
    )


def check_data(
    workdir: Path, name: str, before: Mapping[str, Any], now: Mapping[str, Any], force: bool = False
) -> None:
    """Refuses data that are not those that a run was begun with: labels and the order of images would be others.

    With `force` it only says so.
    """
    if not (said := changed_data(before, now)):
        return
    said = f"{name} has changed since the run in {str(workdir)!r} started ({said})"
    if not force:
        raise UserError(f"{said}\nchoose another --workdir, or pass --force to resume with the changed data")
    warn(f"{said}; images that it was trained on may be held out now")


def changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How data differ, by their `Dataset.fingerprint`; "" where they do not.

    Where names alone differ, a photo that was renamed may have gone from one split to another.
    """
    if before == {word: now.get(word) for word in before}:  # an earlier version recorded no names, or no pixels
        return ""
    counts = [word for word in ("train", "val", "test") if now[word] != before.get(word)]
    if counts:
        return "; ".join(f"{now[word]} {word} images, {before.get(word)} before" for word in counts)
    if before.get("sha256") == now["sha256"]:
        if before.get("names") in (None, now["names"]):
            return "different pixels"
        return "different names or another order of the images"
    return "different labels"


def has_work(workdir: Path) -> bool:
    """Whether a run or its pretraining got as far as a checkpoint: one that failed before has nothing to protect."""
    places = ((workdir, "checkpoints"), (workdir / run_files.PRETRAIN, f"checkpoints/{run_files.PRETRAIN}"))
    return any(has_begun(place, workdir / checkpoints) for place, checkpoints in places)


def has_begun(place: Path, checkpoints: Path) -> bool:
    """Whether a phase of a run has left a state or its summary in its own directories."""
    return (place / "summary.json").exists() or any((checkpoints / "last").glob("[0-9]*"))


def lines_of_metrics(workdir: Path) -> int:
    """How many lines metrics.jsonl has."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0
