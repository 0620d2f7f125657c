"""What a study's directory remembers: study.json, with the state of every run, and a lock against a second process."""

import contextlib
import datetime
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError
from jaxvit.runtime import lock
from jaxvit.runtime.console import err
from jaxvit.workdir import run_files

FILE = "study.json"
# done, diverged: have a result and are not run again. The others are tried again by the next command.
DONE, DIVERGED, NO_MEMORY, NO_WEIGHTS, NO_TEACHER, STOPPED, FAILED, RUNNING, WAITING = (
    "done", "diverged", "out of memory", "weights missing", "teacher missing", "interrupted", "failed", "running",
    "not run",
)  # fmt: skip
FINAL = (DONE, DIVERGED)
PATIENCE = 60.0  # seconds to wait for a process that is still saving its state


def run_key(row: str, seed: int, fold: int | None) -> str:
    """The directory of a run within the study's: "row/seed0", of a fold "row/seed0-fold1"."""
    return f"{row}/seed{seed}" + (f"-fold{fold}" if fold else "")


def split_key(key: str) -> tuple[str, int, int | None]:
    """The row, the seed and the fold (None without folds) of a run's key. Raises UserError for any other text."""
    found = re.fullmatch(r"(.+)/seed(\d+)(?:-fold(\d+))?", key)
    if found is None:
        raise UserError(f"{FILE} is damaged: {key!r} does not name a run; expected ROW/seedN or ROW/seedN-foldI")
    return found[1], int(found[2]), int(found[3]) if found[3] else None


class Ledger:
    """The content of study.json; written whole at every change."""

    def __init__(self, directory: Path, name: str, options: Mapping[str, Any]):
        """Reads the file, or begins it; raises UserError where it belongs to another study or other options."""
        self.directory = directory
        path = directory / FILE
        if path.exists():
            self.content = run_files.read_json(path)
            if not isinstance(self.content.get("runs"), dict) or not isinstance(self.content.get("options"), dict):
                raise UserError(f"{str(path)!r} is damaged; expected the record of a study")
            self._compare(name, options)
        else:
            run_files.check_free(directory, "a study")
            self.content = {"study": name, "options": dict(options), "runs": {}, "costs": {}, "wall_seconds": 0.0}

    @classmethod
    def read(cls, directory: Path, name: str) -> "Ledger":
        """The record that is there, whatever options it was made with."""
        content = run_files.read_json(directory / FILE)
        options = content.get("options")
        ledger = cls(directory, name, options if isinstance(options, dict) else {})
        ledger.close_open_runs("still running, or its process was killed")
        return ledger

    def _compare(self, name: str, options: Mapping[str, Any]) -> None:
        before = self.content
        if before.get("study") != name:
            raise UserError(f"{str(self.directory)!r} holds the study {before.get('study')!r}, not {name!r}")
        for word, value in options.items():
            old = before["options"].get(word)
            if old != value:
                raise UserError(
                    f"{str(self.directory)!r} holds this study with {word} {_show(old)}, now {_show(value)}\n"
                    "choose another --workdir, or pass the same options"
                )

    def get(self, key: str) -> dict[str, Any]:
        """The record of a run by its key, {} if there is none; a run without its directory was thrown away."""
        record = self.content["runs"].get(key, {})
        return record if record.get("status") not in FINAL or (self.directory / key).is_dir() else {}

    def status(self, key: str) -> str:
        """The state of a run; what a process that died has left as running is interrupted."""
        return self.get(key).get("status", WAITING)

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all runs by their keys; a finished run whose directory has gone has no result."""
        gone = {"status": WAITING, "reason": "its directory has gone; the same command runs it again"}
        return {key: self.get(key) or gone for key in self.content["runs"]}

    def record(self, key: str, status: str, reason: str = "", **more: Any) -> None:
        """Notes the state of a run and writes the file."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.content["runs"][key] = {"status": status, "reason": reason, "at": now, **more}
        self.write()

    def write(self) -> None:
        """Writes study.json."""
        run_files.write_json(self.directory / FILE, self.content)

    def close_open_runs(self, reason: str = "its process was killed") -> None:
        """Runs left as running by a process that was killed are interrupted."""
        for key, record in self.content["runs"].items():
            if record.get("status") == RUNNING:
                self.content["runs"][key] = {**record, "status": STOPPED, "reason": reason}


def _show(value: Any) -> str:
    return "off" if value in (None, False, [], ()) else "on" if value is True else repr(value)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Holds the directory for this process and the children that inherit the lock; yields its file descriptor.

    Waits a while for a process that is stopping. Raises UserError if another one continues to run.
    """
    taken = f"another process is running the study in {str(directory)!r}"
    note = "waiting: another process is still running this study or saving its state"
    with lock.held(directory, taken, patience=PATIENCE, waiting=functools.partial(err.print, note)) as descriptor:
        yield descriptor
