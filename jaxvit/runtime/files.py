"""Files that are complete or absent: written under a temporary name in the same directory, then moved into place."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxvit.errors import RunError, UserError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_DISK_WORDS = ("No space left", "File too large", "Disk quota", "Input/output error", "Read-only file system")


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a file name next to `path` to write to, and moves that file to `path`; after an error it removes it.

    `durable`: the content is on the disk before the move, so that a power cut leaves the old file or the new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # names the file that was meant
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Writes a file whole or not at all.

    Raises:
      RunError: the disk is full, or the like.
      UserError: `path` cannot be written.
    """
    try:
        with replacing(path, durable=durable) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: OSError) -> Exception:
    """The error that says in one or two lines why `path` could not be written."""
    full = disk_reason(error)
    if full:
        return RunError(f"cannot write {str(path)!r}: {full}\nfix that, and the same command resumes there")
    return UserError(f"cannot write {str(path)!r}: {error.strerror}")


def disk_reason(error: BaseException) -> str | None:
    """Why a write failed, where the disk is to blame (full, quota, file size limit, read-only), else None."""
    walked: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in walked):  # causes may form a ring
            continue
        walked.append(one)
        if isinstance(one, OSError) and one.errno in _DISK:
            return os.strerror(one.errno)
        for words in _DISK_WORDS:  # TensorStore puts them into its own errors
            if words in str(one):
                return f"{words} on device" if words == "No space left" else words
        waiting += [one.__context__, one.__cause__]  # the cause first
    return None
