"""A run's files: metrics.jsonl, TensorBoard events, JSON and npz files that are complete or absent."""

import base64
import json
import os
import shlex
import shutil
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.runtime import escape, files, lock, paths, streams
from jaxvit.runtime.console import warn
from jaxvit.runtime.paths import expand
from jaxvit.workdir import manifest
from jaxvit.workdir.trackers import Tracker


def make_workdir(workdir: str | os.PathLike[str]) -> Path:
    """Creates a run's directory; raises UserError where it cannot be written."""
    path = expand(workdir, "workdir")
    paths.check_workdir(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write_test.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to workdir {str(path)!r}: {reason}") from None
    return path


HOLDS = {
    "a study": "study.json",
    "a sweep": "study.db",
    "exported weights": "model.safetensors",
    "a run": "config.json",
}


def check_free(directory: Path, what: str) -> None:
    """Raises UserError where a directory for `what`, "a run", "a study" or "a sweep", holds another of HOLDS."""
    if (directory / ("checkpoints" if what == "a run" else HOLDS[what])).exists():
        return
    for other, mark in HOLDS.items():
        if other != what and (directory / mark).exists():
            raise UserError(f"{str(directory)!r} holds {other}; choose another --workdir for {what}")


def refuse_weights(directory: Path) -> None:
    """Raises UserError where a directory is called a run and holds exported weights."""
    if (directory / HOLDS["exported weights"]).exists() and not (directory / "checkpoints").exists():
        raise UserError(
            f"{str(directory)!r} holds exported weights and no run\n"
            f"--model NAME --checkpoint {shlex.quote(str(directory))} reads them"
        )


def not_there(path: Path) -> list[Path]:
    """Those of a directory and its parents that are not there, the innermost first."""
    return [place for place in (path, *path.parents) if not place.exists()]


def remove_if_empty(paths: Sequence[Path]) -> None:
    """Removes directories in which nothing was written, as after a mistake in the config; the innermost come first."""
    with suppress(OSError):
        for path in paths:
            path.rmdir()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under a temporary name first, so that `path` never holds half a file."""
    files.write(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Returns a JSON file's content, UTF-8. Bytes of names that are not UTF-8 stand as JSON's own escapes."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays, whole or not at all."""
    try:
        with files.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise files.not_written(path, error) from None


def read_npz(path: Path, names: Sequence[str], perhaps: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Reads arrays of a run's file, `perhaps` where they are there; raises UserError when it is damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in (*names, *(n for n in perhaps if n in arrays))}
    except (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, RuntimeError,
            struct.error, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise UserError(
            f"{str(path)!r} is damaged: {escape.message(error)}\nthe training command creates it again"
        ) from None


def read_json(path: Path, kind: type = dict) -> Any:
    """Reads a JSON object, or a list; raises UserError when the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _no_file(path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from None
    if not isinstance(value, kind):
        raise UserError(
            f"{str(path)!r} is damaged: it does not hold a JSON {'object' if kind is dict else kind.__name__}"
        )
    return value


def _no_file(path: Path) -> UserError:
    """The error on a file of a run that is not there; names the runs below its directory, as a study's or a sweep's."""
    workdir = path.parent
    runs = sorted(workdir.glob("*/config.json")) or sorted(workdir.glob("*/*/config.json"))
    if not runs:
        return UserError(f"no file {str(path)!r}; check that {str(workdir)!r} is the workdir of a run")
    some = ", ".join(repr(str(run.parent)) for run in runs[:3]) + (", ..." if len(runs) > 3 else "")
    study = (workdir / "study.json").exists()
    hint = "\n`study NAME --workdir DIR --report-only` reports on all of them" if study else ""
    return UserError(f"{str(workdir)!r} is not the workdir of a run; below it are the runs {some}{hint}")


THRESHOLDS = "thresholds.json"  # of several labels per image: the probability that says each class
CALIBRATION = "calibration.json"  # the temperature that was fitted on validation
START = "start"  # the weights of another run that a run began with
PRETRAIN = "pretrain"  # the directory of the first phase of a run, and of its checkpoints below checkpoints/
PRETRAIN_FILES = ("model.safetensors", "config.json", "metrics.jsonl", "reconstructions.npz", "reconstructions.png",
                  "summary.json")  # fmt: skip
# what a run leaves at its end, of its best weights: wrong once it goes on
OF_THE_END = ("summary.json", "predictions.npz", "samples.npz", CALIBRATION)
RUN_FILES = (PRETRAIN, START, f"{START}.part", "config.json", "classes.json", THRESHOLDS, CALIBRATION, "summary.json",
             "metrics.jsonl", "predictions.npz", "samples.npz", "unknown", "skipped_files.txt", "leaks.json",
             "leaks.csv", "leaks.png", "checkpoints", "events", "wandb", manifest.NAME, streams.NAME)  # fmt: skip


def read_thresholds(workdir: Path, num_classes: int) -> np.ndarray | None:
    """Returns the thresholds of a run with several labels per image, float64 [num_classes]; None of others."""
    path = workdir / THRESHOLDS
    if not path.exists():
        return None
    return as_thresholds(read_json(path, list), num_classes, THRESHOLDS)


def as_thresholds(found: Any, num_classes: int, name: str) -> np.ndarray:
    """Returns what JSON holds as thresholds, float64 [num_classes]; raises UserError that names the file."""
    good = isinstance(found, list) and len(found) == num_classes
    if not good or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in found):
        raise UserError(f"{name} does not hold a threshold, a probability, for each of {num_classes} classes")
    return np.asarray(found, np.float64)


def remove_run(workdir: Path) -> None:
    """Removes a run's own files from its directory, and nothing else."""
    for name in RUN_FILES:
        path = workdir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(workdir: Path):
    """Keeps a second process out of a workdir; the system frees the lock when this one ends in any way.

    Raises:
      UserError: a run is under way there.
    """
    taken = f"another process is running in workdir {str(workdir)!r}; wait for it, or choose another workdir"
    with lock.held(workdir, taken):
        for left in [*workdir.glob(".*.tmp"), *workdir.glob(".write_test.*")]:  # of a process that was killed
            with suppress(OSError):  # a directory of that name is none of ours
                left.unlink()
        yield


def seal(workdir: Path, contents: Mapping[str, bytes] | Sequence[str]) -> None:
    """Records the SHA-256 of a run's files in its manifest.json: of contents to be written, or of files by name."""
    hashes = (
        {name: manifest.sha256_bytes(content) for name, content in contents.items()}
        if isinstance(contents, Mapping)
        else {name: manifest.sha256(workdir / name) for name in contents}
    )
    try:
        manifest.write(workdir / manifest.NAME, hashes)
    except OSError as error:
        raise files.not_written(workdir / manifest.NAME, error) from None


def sealed(workdir: Path) -> dict[str, str]:
    """Returns {name: SHA-256} of manifest.json, {} if there is none or it is damaged."""
    return manifest.read(workdir / manifest.NAME) or {}


def damage(workdir: Path, names: Sequence[str] | None = None) -> dict[str, str]:
    """Returns {name: "name has changed"} for the files of a run that are not as it wrote them."""
    hashes = {name: value for name, value in sealed(workdir).items() if names is None or name in names}
    there = [name for name in hashes if (workdir / name).is_file()]
    said = manifest.differences(workdir, hashes, there)
    return {line.partition(" ")[0]: line for line in said}


def refuse_damaged(workdir: Path, names: Sequence[str] | None = None) -> None:
    """Raises UserError where one of a run's files is not as the run wrote it."""
    for said in damage(workdir, names).values():
        raise UserError(
            f"{said} since the run in {str(workdir)!r} wrote it (SHA-256 differs)\n"
            f"the training command creates it again; to accept it unchanged, delete {manifest.NAME} there"
        )


class MetricsWriter:
    """Appends scalars to metrics.jsonl, one object a line, and hands them on to the trackers.

    `log` is the file's content so far, packed. It is kept in the checkpoints: a resumed run opens the writer with the
    log stored there, which drops the lines that will be written again and mends a file that has lost or changed some.
    """

    def __init__(self, workdir: Path, *, log: str = "", trackers: Sequence[Tracker] = ()):
        self._path = workdir / "metrics.jsonl"
        content = zlib.decompress(base64.b64decode(log)) if log else b""
        before = self._path.read_bytes() if self._path.is_file() else None
        if log and (before is None or not before.startswith(content)):
            kept = ""
            if before:
                kept = f"; the damaged one is now {self._path.name}.damaged"
                os.replace(self._path, self._path.with_name(f"{self._path.name}.damaged"))
            warn(f"{self._path} was damaged or missing; it was restored from the checkpoint{kept}")
        if before is None or before != content:
            files.write(self._path, content)
        self._file = open(self._path, "ab")  # noqa: SIM115 - open for as long as the run
        self._trackers = trackers

    @property
    def log(self) -> str:
        """The lines so far, packed."""
        return base64.b64encode(zlib.compress(self._path.read_bytes())).decode()

    def write(self, step: int, scalars: Mapping[str, float], **fields: Any) -> None:
        """Writes one line {"step", **fields, **scalars}."""
        try:
            self._file.write((json.dumps({"step": step, **fields, **scalars}) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise files.not_written(self._path, error) from None
        for tracker in self._trackers:
            tracker.scalars(step, scalars)

    def close(self) -> None:
        """Flushes and closes metrics.jsonl; the trackers stay open."""
        with suppress(OSError):  # what could not be written has been said
            self._file.close()


class NoWriter:
    """A MetricsWriter that writes nothing: for all processes but the first."""

    log = ""

    def __init__(self, workdir: Path, **_: Any):
        """As MetricsWriter."""

    def write(self, step: int, scalars: Mapping[str, float], **fields: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
