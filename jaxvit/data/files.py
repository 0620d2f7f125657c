"""Which files of a folder are images, and the list of those that cannot be read: one rule for all commands."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxvit.data.formats import is_image
from jaxvit.errors import UserError
from jaxvit.runtime import escape

# Files with these endings count as images, whatever they hold; others only where their first bytes say so.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
            ".heic", ".heif")  # fmt: skip
MAX_BAD = 0.01  # share of the files that may be unreadable where nothing else is asked for


# Folders that systems put next to files: macOS's archives, Synology's thumbnails and bin, Windows's, Linux's, Python's.
SYSTEM = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__")


def hidden(name: str) -> bool:
    """Whether a file or folder is not part of the data: `.git`, `.ipynb_checkpoints`, `._photo.jpg`, `@eaDir`."""
    return name.startswith(".") or name.lower() in SYSTEM


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is one itself, or a link to one; most systems need not look at it to know."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def follower(root: str | os.PathLike[str]) -> Callable[[str], bool]:
    """Returns what says whether to go into a folder below `root`: into a link only if it leads to another place.

    What lies below the root, or has been gone into by another link, is met there; a folder above the root is a circle.
    """
    top = os.path.realpath(root)
    seen = {top}

    def holds(outer: str, inner: str) -> bool:
        return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)

    def follows(path: str) -> bool:
        if not os.path.islink(path):
            return True
        real = os.path.realpath(path)
        if holds(real, top) or any(holds(other, real) for other in seen):
            return False
        seen.add(real)
        return True

    return follows


def image_files(directory: Path) -> list[Path]:
    """Returns what is, or claims to be, an image below `directory`, sorted; hidden and other files are left out.

    Links to folders are followed as `follower` says.
    """
    follows = follower(directory)

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}).")

    found = []
    for folder, subfolders, names in os.walk(directory, onerror=refuse, followlinks=True):
        subfolders[:] = [s for s in sorted(subfolders) if not hidden(s) and follows(os.path.join(folder, s))]
        for name in names:
            file = Path(folder, name)
            if not hidden(name) and (file.suffix.lower() in SUFFIXES or is_image(file)):
                found.append(file)
    return sorted(found)


def write_skipped(file: str | os.PathLike, skipped: Sequence[tuple[str, str]]) -> None:
    """Writes a line per (name, reason), separated by a tab; without any, an earlier list is removed."""
    path = Path(file)
    try:
        if not skipped:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{escape.text_line(name)}\t{escape.text_line(why)}\n" for name, why in skipped)
        path.write_text(lines, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from None


def few(skipped: Sequence[tuple[str, str]]) -> str:
    """The first of a list of (name, reason), on one line."""
    return "; ".join(f"{name} ({why})" for name, why in skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
