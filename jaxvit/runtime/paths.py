"""Paths as a user writes them."""

import difflib
import itertools
import os
import unicodedata
from pathlib import Path

from jaxvit.errors import UserError, shown

PATTERN = "[]*?" if os.sep == "\\" else "[]*?\\"  # what orbax and the store below it do not take for themselves

MOST_ENTRIES = 10_000  # of a directory that are compared with a name

STORES = ("gs:", "s3:", "az:", "hf:")  # what etils and orbax take for the beginning of a bucket's address


def expand(path: str | os.PathLike[str], what: str = "the path") -> Path:
    """The path with `~` and `~user` resolved. Raises UserError if it is not a path, is empty, or names no user.

    An empty path, such as that of an unset shell variable, would mean the current directory; `what` names
    the path in that error.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{what} is {shown(path)}; expected text, or a pathlib.Path")
    if not os.fspath(path):
        raise UserError(f"{what} is empty; expected a file or a directory ('.' is the current one)")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"no home directory for {os.fspath(path)!r}: there is no such user") from None


def near(path: Path) -> str:
    """Returns " Did you mean 'runs/photos'?" with the existing path that is nearest to a missing one, or "".

    The name that differs may be any part of the path. Case and a shared suffix are ignored.
    """
    missing, rest = path, Path()
    while missing.parent != missing and not missing.parent.exists():
        missing, rest = missing.parent, missing.name / rest
    ending = missing.suffix.casefold()

    def plain(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold().removesuffix(ending)

    try:
        with os.scandir(missing.parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, MOST_ENTRIES)]
    except (OSError, ValueError):  # not a directory, or no permission
        return ""
    known = {plain(name): name for name in names}
    close = difflib.get_close_matches(plain(missing.name), known, n=3, cutoff=0.6)
    found = [missing.parent / known[name] / rest for name in close]
    found = [place for place in found if place.exists()]
    return f" Did you mean {str(found[0])!r}?" if found else ""


def check_directory(path: Path, name: str, expected: str) -> None:
    """Raises UserError where `path` is not a directory; `name` is what the user wrote, `expected` what lies in it."""
    if path.is_file():
        raise UserError(f"{name}: is a file; expected a directory with {expected}")
    if not path.is_dir():
        raise UserError(f"{name}: no such directory; expected one with {expected}.{near(path)}")


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
