"""A run's files: metrics.jsonl, TensorBoard events, JSON and npz files that are whole or not there."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.errors import UserError


def make_workdir(workdir: str | os.PathLike[str]) -> Path:
    """Creates a run's directory; raises UserError where it cannot be written."""
    if not os.fspath(workdir):
        raise UserError("workdir is empty; expected a directory, for example runs/digits")
    path = Path(workdir).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write_test.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to workdir {str(path)!r}: {reason}") from None
    return path


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under a temporary name first, so that `path` never holds half a file."""
    _replace(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, kind: type = dict) -> Any:
    """Reads a JSON object, or a list; raises UserError when the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {str(path)!r}; is {str(path.parent)!r} the workdir of a run?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from None
    if not isinstance(value, kind):
        raise UserError(f"{str(path)!r} is damaged: it holds no {'object' if kind is dict else kind.__name__}")
    return value


RUN_FILES = ("config.json", "classes.json", "summary.json", "metrics.jsonl", "predictions.npz", "samples.npz",
             "skipped_files.txt", "checkpoints", "events")  # fmt: skip


def remove_run(workdir: Path) -> None:
    """Removes a run's own files from its directory, and nothing else."""
    for name in RUN_FILES:
        path = workdir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class MetricsWriter:
    """Appends scalars to metrics.jsonl, one object a line, and to TensorBoard.

    `position` is the length of metrics.jsonl in bytes; a run resumed from a checkpoint opens the writer at the
    position stored there, which drops the lines that will be written again.
    """

    def __init__(self, workdir: Path, *, position: int = 0, step: int = 0):
        """Opens the files; `step` is the first step that will be written."""
        # Imported here: only training writes events.
        from tensorboardX import SummaryWriter

        self._path = workdir / "metrics.jsonl"
        self._path.touch()
        os.truncate(self._path, min(position, self._path.stat().st_size))
        self._file = open(self._path, "ab")  # noqa: SIM115 - open for as long as the run
        self._events = SummaryWriter(str(workdir / "events"), purge_step=step or None)

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def write(self, step: int, scalars: Mapping[str, float], **fields: Any) -> None:
        """Writes one line {"step", **fields, **scalars}."""
        self._file.write((json.dumps({"step": step, **fields, **scalars}) + "\n").encode())
        self._file.flush()
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes."""
        self._file.close()
        self._events.close()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
