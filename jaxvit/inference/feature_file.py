"""Files of features: rows are kept as they come, so that a run that was stopped goes on; the whole at the end.

Beside `features.npz` lies `features.npz.parts/` while it is made: for each split a memory-mapped array [n, d], which of
its rows could be read, and how many are done. The final name appears when all rows are there.
"""

import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.runtime import files, lock
from jaxvit.workdir import run_files

SAVE_SECS = 5.0  # between two marks of how far it has come
ROWS = 4096  # copied at once
KEY = "key.json"
ARRAYS = ("features", "names", "labels", "splits", "index", "class_names")


class Table:
    """Features of one split as they come, float32 [n, d]; rows up to `done` are there, and `usable` where readable."""

    def __init__(self, stem: Path, n: int, d: int):
        """Opens the files, or makes them."""
        self._mark = stem.with_suffix(".json")
        shapes = {"features": ((n, d), np.float32), "usable": ((n,), np.bool_)}
        mapped = {}
        self.done = self._read_mark()
        for word, (shape, dtype) in shapes.items():
            path = stem.with_suffix(f".{word}.npy")
            try:
                found = np.lib.format.open_memmap(path, "r+")
                fits = found.shape == shape and found.dtype == dtype
            except (OSError, ValueError):
                fits = False
            if not fits:
                found, self.done = np.lib.format.open_memmap(path, "w+", dtype, shape), 0
            mapped[word] = found
        self.features, self.usable = mapped["features"], mapped["usable"]
        self._saved = time.monotonic()

    def _read_mark(self) -> int:
        try:
            return int(json.loads(self._mark.read_text(encoding="utf-8"))["done"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def put(self, start: int, features: np.ndarray, usable: np.ndarray) -> None:
        """Writes rows [k, d] from `start` on, which must follow those that are done or repeat them."""
        stop = min(start + len(features), len(self.features))
        self.features[start:stop] = features[: stop - start]
        self.usable[start:stop] = usable[: stop - start]
        self.done = max(self.done, stop)
        if stop == len(self.features) or time.monotonic() - self._saved >= SAVE_SECS:
            self.save()

    def save(self) -> None:
        """Marks how far it has come, after the rows are on the disk."""
        self.features.flush()
        self.usable.flush()
        run_files.write_json(self._mark, {"done": self.done})
        self._saved = time.monotonic()


class Store:
    """The tables of one output file."""

    def __init__(self, directory: Path):
        """Use `store`."""
        self._directory = directory

    def table(self, split: str, n: int, d: int) -> Table:
        """The table of a split."""
        try:
            return Table(self._directory / split, n, d)
        except OSError as error:
            raise files.not_written(self._directory, error) from None

    def remove(self) -> None:
        """Removes the tables: the whole file is there."""
        shutil.rmtree(self._directory, ignore_errors=True)


@contextmanager
def store(out: Path, key: Mapping[str, Any]) -> Iterator[Store]:
    """Yields the tables that lie beside `out`: those of before where `key` is the same, else new ones.

    Raises:
      UserError: another process makes the same file.
    """
    directory = out.with_name(f"{out.name}.parts")
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise files.not_written(directory, error) from None
    with lock.held(directory, f"another process is writing {str(out)!r}; wait for it, or choose another --out"):
        path = directory / KEY
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if known != key:
            for left in directory.iterdir():
                left.unlink()
            run_files.write_json(path, dict(key))
        yield Store(directory)


def write(out: Path, about: Mapping[str, Any], blocks: Iterable[np.ndarray], n: int, d: int, **arrays: Any) -> None:
    """Writes `out`, whole or not at all: `about` as JSON, `features` float32 [n, d] from blocks of rows, the arrays."""
    try:
        with files.replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            with archive.open("features.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": (n, d)}
                np.lib.format.write_array_header_1_0(member, header)  # type: ignore[arg-type]
                for block in blocks:
                    member.write(np.ascontiguousarray(block, "<f4").tobytes())
            for name, value in {"about": np.asarray(json.dumps(about, ensure_ascii=True)), **arrays}.items():
                buffer = io.BytesIO()
                np.save(buffer, np.asarray(value), allow_pickle=False)
                archive.writestr(f"{name}.npy", buffer.getvalue())
    except OSError as error:
        raise files.not_written(out, error) from None


def about(path: Path) -> dict[str, Any]:
    """What a file says of itself; {} where it is none of ours."""
    try:
        found = json.loads(str(run_files.read_npz(path, ["about"])["about"]))
    except (UserError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file. Raises UserError where it is damaged."""
    try:
        return run_files.read_npz(path, ARRAYS)
    except UserError as error:
        raise UserError(f"{str(error).splitlines()[0]}\n--force makes it again") from None
