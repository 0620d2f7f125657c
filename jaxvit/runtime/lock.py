"""One process at a time: a lock on a file or a directory, which the system frees however the process ends."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxvit.errors import UserError

PAUSE_SECS = 0.25


@contextmanager
def held(path: Path, taken: str, *, patience: float = 0.0, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Holds `path`, a directory or a file that is made where it is missing; yields its file descriptor.

    Children that inherit the descriptor hold the lock too. On Windows, and on file systems without locks, nothing is
    locked.

    Args:
      path: what is locked.
      taken: the message where another process holds it.
      patience: seconds to wait for a process that is stopping.
      waiting: called once, before the first wait.

    Raises:
      UserError: `taken`.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o644)
    try:
        end, said = time.monotonic() + patience, False
        while not _lock(descriptor):
            if time.monotonic() >= end:
                raise UserError(taken)
            if not said:
                waiting()
                said = True
            time.sleep(PAUSE_SECS)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Takes the lock; False where another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
