"""What was learnt of a data set's files, kept in the user's cache directory so that the next start need not look again.

An index only saves time: one that is missing, damaged or cannot be written changes no result. It is one file: a line
that says what it is, the SHA-256 of the rest, and NumPy's arrays.
"""

import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from jaxvit.data.formats import has_avif, has_heif
from jaxvit.errors import UserError
from jaxvit.runtime import console, files, lock
from jaxvit.runtime.compile_cache import make_private, place

MARK = b"jaxvit index 2\n"  # another number where the arrays mean something else
SUFFIX = ".index"
UNUSED_DAYS = 90.0  # after which an index is removed
WORTH_SECS = 1.0  # of reading: what took less is not kept
PATIENCE_SECS = 3600.0  # for another process that reads the same data


def where(source: str) -> Path:
    """The index of a data set, by its absolute name."""
    name = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return Path(place("index"), f"{name}{SUFFIX}")


def read(source: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an index; None where there is none that is intact and from this version and Pillow."""
    path = where(source)
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head = len(MARK) + 65
    digest = hashlib.sha256(memoryview(content)[head:]).hexdigest().encode() + b"\n"
    if content[:head] != MARK + digest:
        return None
    try:
        with np.load(io.BytesIO(memoryview(content)[head:]), allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
            about = json.loads(str(found.pop("about")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if about != _about(source):
        return None
    with suppress(OSError):
        os.utime(path)  # it is in use
    return found


def say_used(source: str) -> None:
    """Says, where --verbose asks for it, that nothing had to be read."""
    console.detail(f"index  {source} is unchanged ({where(source)}); data.rescan=True reads it again")


def forget(source: str) -> None:
    """Removes an index, if there is one and that is possible."""
    _remove(where(source))


def write(source: str, arrays: Mapping[str, np.ndarray]) -> bool:
    """Keeps arrays as the index of a data set; returns whether that was possible."""
    path = where(source)
    if not make_private(str(path.parent)):
        return False
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(_about(source))), **arrays)  # type: ignore[arg-type]
    content = buffer.getbuffer()
    try:
        with files.replacing(path) as temporary, open(temporary, "wb") as file:
            file.write(MARK + hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
    except OSError:
        return False
    _drop_unused(path.parent)
    return True


def stamp(found: os.stat_result) -> tuple[int, int]:
    """What tells that a file is not as it was: its bytes, and when it or its record was last changed, in ns.

    The time of modification alone does not: a copy of another file may bring its own.
    """
    return found.st_size, max(found.st_mtime_ns, found.st_ctime_ns)


def remembered(
    source: str, files: Sequence[Path], make: Callable[[], dict[str, np.ndarray]], *, rescan: bool = False
) -> dict[str, np.ndarray]:
    """Returns the arrays that `make` returns, or has returned when `files` had the same names, sizes and times.

    With `rescan`, `make` is called in any case.
    """
    stats = [file.stat() for file in files]
    seen = {
        "stamped": np.array([str(file) for file in files], np.str_),
        "stamps": np.array([stamp(found) for found in stats], np.int64),
    }

    if rescan:
        forget(source)

    def known() -> dict[str, np.ndarray] | None:
        stored = read(source)
        if stored is None or any(not np.array_equal(stored.pop(word, None), seen[word]) for word in seen):  # type: ignore[arg-type]
            return None
        return stored

    found = known()
    if found is not None:
        say_used(source)
        return found
    with one_at_a_time(source):
        found = known()
        if found is None:
            begun = time.monotonic()
            found = make()
            if time.monotonic() - begun > WORTH_SECS:
                write(source, {**found, **seen})
    return found


@contextmanager
def one_at_a_time(source: str) -> Iterator[None]:
    """Waits for another process that reads the same data: its index saves doing so twice. Never an error."""
    path = where(source).with_suffix(".lock")
    with ExitStack() as stack:
        with suppress(OSError, UserError):
            if make_private(str(path.parent)):
                stack.enter_context(lock.held(path, "", patience=PATIENCE_SECS, waiting=lambda: _say(source)))
                stack.callback(_remove, path)  # who waits for it holds it then all the same
        yield


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _say(source: str) -> None:
    console.err.print(f"another process is reading {source}; waiting for its result")


def _about(source: str) -> dict[str, Any]:
    """What an index must agree on: other versions read other files."""
    from jaxvit import __version__

    reads = [PIL.__version__, has_avif(), has_heif()]
    return {"source": source.encode("utf-8", "backslashreplace").decode(), "jaxvit": __version__, "reads": reads}


def _drop_unused(directory: Path) -> None:
    oldest = time.time() - 86_400 * UNUSED_DAYS
    for file in directory.iterdir():
        with suppress(OSError):
            if file.suffix in (SUFFIX, ".lock", ".tmp") and file.stat().st_mtime < oldest:
                file.unlink()
