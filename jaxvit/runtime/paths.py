"""Paths as a user writes them."""

import os
from pathlib import Path

from jaxvit.errors import UserError

PATTERN = "[]*?" if os.sep == "\\" else "[]*?\\"  # what orbax and the store below it do not take for themselves


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` resolved. Raises UserError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"no home directory for {os.fspath(path)!r}: there is no such user") from None


def check_workdir(path: Path) -> None:
    """Raises UserError where no checkpoint can be kept under a path: orbax reads it as a pattern when it saves."""
    check_utf8(path, "workdir")
    if found := next((c for c in PATTERN if c in str(path.absolute())), None):
        raise UserError(
            f"workdir {str(path)!r}: there is a {found!r} in {str(path.absolute())!r}, where no checkpoint can lie\n"
            f"choose a path without {' '.join(PATTERN)}"
        )


def check_utf8(path: Path, what: str) -> None:
    """Raises UserError where the whole path is not UTF-8: orbax cannot name it."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{what} {str(path)!r}: its path holds bytes that are not UTF-8, where no checkpoint can lie\n"
            "choose, or rename to, a path of UTF-8 names"
        ) from None
