"""The standard streams. Closed ones lead nowhere, and a console that goes away costs a run nothing but its lines.

A pipe whose reader has ended, a full disk below `2>log`, a terminal that was closed: what standard error does not take
is kept in the file that a run names (`kept_in`), and the run continues.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxvit.runtime import notebook

NAME = "console.log"  # in a run's directory
MOST = 1000  # texts that wait for a file

lost: str | None = None  # why standard error did not take a text, the first time
own: Any = None  # where our own lines go while what libraries print is thrown away
_waiting: list[str] = []
_file: Path | None = None


class Guard(io.TextIOBase):
    """A text stream that passes on what it can to another one, and never raises OSError."""

    def __init__(self, stream: Callable[[], Any]):
        """`stream` returns where to write now, or None."""
        self._stream = stream

    @property
    def _target(self) -> Any:
        target = self._stream()
        return getattr(target, "rich_proxied_file", target)  # rich puts a proxy before it while a bar is shown

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream behind."""
        return getattr(self._target, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Writes, or keeps the text for the file."""
        try:
            if self._target is None:
                raise ValueError("it is closed")
            return self._target.write(text)
        except (OSError, ValueError) as error:
            _lose(error)
        _keep(text)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be."""
        if self._target is not None:
            try:
                self._target.flush()
            except (OSError, ValueError) as error:
                _lose(error)

    def isatty(self) -> bool:
        """Whether there is a terminal behind."""
        try:
            return self._target is not None and self._target.isatty()
        except (OSError, ValueError):
            return False

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """Of the stream behind."""
        if self._target is None:
            raise io.UnsupportedOperation("no stream")
        return self._target.fileno()


def _for_lines() -> Any:
    """Standard error, but for a notebook, which would show its text as one long error."""
    return own or (sys.stdout if notebook.is_inside() else sys.stderr)


STDERR: Any = Guard(_for_lines)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Within it all that this process prints to standard error goes through a Guard; for the command line."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would get what libraries print
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = Guard(lambda: before[1])
    try:
        yield
    finally:
        sys.stderr.flush()
        for stream in (sys.stdout, before[1]):
            _settle(stream)
        sys.stdout, sys.stderr = before
        _forget()


@contextlib.contextmanager
def of_ours_alone() -> Iterator[None]:
    """Within it what is printed is thrown away, but for what goes to STDERR."""
    global own
    before, own = own, own or sys.stderr
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        own = before


@contextlib.contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Within it the lines that standard error does not take are appended to a file, whose first line says why."""
    global _file
    _file = path
    try:
        yield
    finally:
        _file = None
        _forget()


def _forget() -> None:
    global lost
    lost = None
    _waiting.clear()


def _settle(stream: Any) -> None:
    """Sends nowhere what a stream still holds and cannot write: the interpreter would end with code 120 over it."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()


def _lose(error: Exception) -> None:
    global lost
    if isinstance(error, UnicodeError):
        raise error
    if lost is None:
        lost = getattr(error, "strerror", None) or str(error)
        _waiting.insert(0, f"the console takes no more lines ({lost}); they continue here\n")


def _keep(text: str) -> None:
    if "\x1b" in text:  # a bar that is drawn anew ten times a second
        return
    _waiting.append(re.sub(r"[\x00-\x08\x0b-\x1f]", "", text))
    if _file is None:
        del _waiting[MOST:]
        return
    with contextlib.suppress(OSError), open(_file, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(_waiting))
        _waiting.clear()
