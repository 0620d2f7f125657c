"""Paths as a user writes them."""

import os
from pathlib import Path

from jaxvit.errors import UserError, shown

PATTERN = "[]*?" if os.sep == "\\" else "[]*?\\"  # what orbax and the store below it do not take for themselves

STORES = ("gs:", "s3:", "az:", "hf:")  # what etils and orbax take for the beginning of a bucket's address


def expand(path: str | os.PathLike[str], what: str = "the path") -> Path:
    """The path with `~` and `~user` resolved. Raises UserError if there is no such user, and for what is no path."""
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{what} is {shown(path)}; expected text, or a pathlib.Path")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"no home directory for {os.fspath(path)!r}: there is no such user") from None


def check_workdir(path: Path) -> None:
    """Raises UserError where no checkpoint can be kept under a path: orbax reads it as a pattern, or as a bucket's."""
    check_utf8(path, "workdir")
    if found := next((c for c in PATTERN if c in str(path.absolute())), None):
        raise UserError(
            f"workdir {str(path)!r}: no checkpoint can be written below a {found!r}, as in {str(path.absolute())!r}\n"
            f"choose a path without {' '.join(PATTERN)}"
        )
    parts = path.absolute().parts
    store = next((part for part in parts if part.endswith(STORES)), None)
    if store is None and parts[1:2] and f"{parts[1]}:" in STORES:
        store = f"/{parts[1]}"
    if store is not None:
        raise UserError(
            f"workdir {str(path)!r}: {store!r} in {str(path.absolute())!r} is read as the name of a store in a cloud\n"
            f"choose a path with no directory that ends in {STORES[0]!r} or similar, and not below /gs, /s3, /az or /hf"
        )


def check_utf8(path: Path, what: str) -> None:
    """Raises UserError where the whole path is not UTF-8: orbax cannot name it."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{what} {str(path)!r}: its path holds bytes that are not UTF-8, so no checkpoint can be written there\n"
            "choose, or rename to, a path of UTF-8 names"
        ) from None
