"""Folders of photos: one subfolder per class, in `train/` and `val/` or all together."""

import dataclasses
import os
import unicodedata
from pathlib import Path

import numpy as np

from jaxvit.data.images import DECODE_ERRORS, check, decode, has_image_signature, in_threads, reason
from jaxvit.data.splits import IMAGENET_MEAN, IMAGENET_STD, Source, Split, automatic_test
from jaxvit.errors import UserError
from jaxvit.runtime.paths import expand

# Files with these endings count as images, whatever they hold; others only where their first bytes say so.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
MAX_SKIPPED = 0.01  # share of the files
FULL_CHECK = 200_000  # up to so many files every one is decoded before training; beyond, the suspicious ones
VAL_NAMES = ("val", "validation", "valid", "dev")


@dataclasses.dataclass(frozen=True)
class _File:
    path: Path
    split: str
    label: int


def load(path: str, skipped_file: str | os.PathLike | None = None) -> Source:
    """Reads `PATH/train/CLASS/*`, `PATH/val/CLASS/*`, `PATH/test/CLASS/*`, or `PATH/CLASS/*`, at any depth.

    JPEG, PNG and WebP by content. With train and val alone, val is the test split; without either, 20 % of every
    class are the test split, the same for every seed. Files that cannot be read are skipped and counted, and
    listed in `skipped_file`; more than 1 % of them is a UserError, as are empty folders and single classes.
    """
    root = expand(path)
    if not root.is_dir():
        raise UserError(f"folder:{path}: no such directory; expected one with a subfolder per class.")
    folders, notes = _layout(root)
    class_names = sorted({_plain(d.name) for d in _subfolders(folders["train"])})
    _check_classes(root, folders, class_names)
    files = [
        _File(file, split, class_names.index(_plain(directory.name)))
        for split, folder in folders.items()
        for directory in _subfolders(folder)
        for file in _image_files(directory)
    ]
    _check_counts(root, folders["train"], files, class_names, "no images")
    files, sizes, skipped = _verify(root, files)
    if skipped:
        notes.append(_report(root, skipped, len(files) + len(skipped), skipped_file))
    _check_counts(root, folders["train"], files, class_names, "no readable images")
    splits = {split: _split(root, split, [f for f in files if f.split == split]) for split in folders}
    for split, folder in folders.items():
        if not len(splits[split]):
            raise UserError(f"{folder}: no images; expected a subfolder per class with JPEG, PNG or WebP files.")
    scale = 1.0
    if "test" not in splits:
        splits["train"], splits["test"], scale = automatic_test(splits["train"])
        notes.append(f"test: {len(splits['test'])} images held out (stratified, the same for every seed)")
    size = sizes.pop() if len(sizes) == 1 else None
    return Source(splits, class_names, 3, size, IMAGENET_MEAN, IMAGENET_STD, notes, scale)


def _plain(name: str) -> str:
    """One spelling for names with accents: macOS takes them apart, Linux does not."""
    return unicodedata.normalize("NFC", name)


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = [d for d in folder.iterdir() if d.is_dir() and not d.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).") from None
    return sorted(found, key=lambda d: _plain(d.name))


def _layout(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns {split: folder with the class folders}, and notes."""
    folders = _subfolders(root)
    if not folders:
        raise UserError(f"folder:{root}: empty, or images without class folders; expected one subfolder per class.")
    inside = {d.name: d for d in folders if _subfolders(d)}
    if "train" not in inside:
        return {"train": root}, []
    layout, notes = {"train": inside["train"]}, []
    val = next((inside[name] for name in VAL_NAMES if name in inside), None)
    test = inside.get("test")
    if any(d.name == "test" for d in folders) and test is None:
        notes.append(f"{root / 'test'} has no class folders and is not used")
    if val and test:
        layout |= {"val": val, "test": test}
    elif val:
        layout["test"] = val
        notes.append(f"{val.name}/ is the held-out test split; validation is drawn from train/")
    elif test:
        layout["test"] = test
    return layout, notes


def _check_classes(root: Path, folders: dict[str, Path], class_names: list[str]) -> None:
    if len(class_names) < 2:
        found = f"only the class {class_names[0]!r}" if class_names else "no class folders"
        raise UserError(f"{folders['train']}: {found}; a classifier needs at least two, one subfolder each.")
    for split, folder in folders.items():
        unknown = sorted({_plain(d.name) for d in _subfolders(folder)} - set(class_names))
        if unknown:
            names = ", ".join(repr(u) for u in unknown[:3])
            raise UserError(f"{folder}: {names} is not a class of {folders['train']} (needed for {split}).")


def _image_files(directory: Path) -> list[Path]:
    """Returns what is, or claims to be, an image below `directory`, sorted; hidden and other files are left out."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}).")

    found = []
    for folder, subfolders, names in os.walk(directory, onerror=refuse):
        subfolders[:] = [s for s in subfolders if not s.startswith((".", "__MACOSX"))]
        for name in names:
            file = Path(folder, name)
            if not name.startswith(".") and (file.suffix.lower() in SUFFIXES or has_image_signature(file)):
                found.append(file)
    return sorted(found)


def _check_counts(root: Path, train: Path, files: list[_File], class_names: list[str], what: str) -> None:
    filled = {f.label for f in files if f.split == "train"}
    empty = [name for i, name in enumerate(class_names) if i not in filled]
    if len(empty) == len(class_names):
        raise UserError(f"folder:{root}: {what}; expected JPEG, PNG or WebP files in a subfolder per class.")
    if empty:
        names = ", ".join(repr(name) for name in empty[:3])
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise UserError(f"{train}: {what} in the class folder {names}{more}; expected at least one in each.")


def _verify(root: Path, files: list[_File]) -> tuple[list[_File], set[tuple[int, int]], list[tuple[str, str]]]:
    """Returns (readable files, their sizes (h, w), [(path below root, why it cannot be read)])."""
    full = len(files) <= FULL_CHECK
    sizes: list[tuple[int, int] | None] = [None] * len(files)
    why: dict[int, str] = {}

    def visit(i: int) -> None:
        try:
            sizes[i] = check(files[i].path, full=full)
        except DECODE_ERRORS as error:
            why[i] = reason(error)

    in_threads(visit, len(files), "checking images", show_from=200)
    good = [f for i, f in enumerate(files) if i not in why]
    skipped = [(_below(root, files[i].path), why[i]) for i in sorted(why)]
    return good, {s for s in sizes if s is not None}, skipped


def _report(root: Path, skipped: list[tuple[str, str]], total: int, skipped_file: str | os.PathLike | None) -> str:
    """Returns the note on skipped files, after listing them; raises UserError where they are too many."""
    listed = ""
    if skipped_file is not None:
        lines = "".join(f"{name}\t{why}\n" for name, why in skipped)
        try:
            Path(skipped_file).parent.mkdir(parents=True, exist_ok=True)
            Path(skipped_file).write_text(lines, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UserError(f"{skipped_file}: cannot be written ({error.strerror}).") from None
        listed = f", listed in {skipped_file}"
    few = "; ".join(f"{name} ({why})" for name, why in skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
    if len(skipped) > MAX_SKIPPED * total:
        raise UserError(
            f"folder:{root}: {len(skipped)} of {total} image files cannot be read, more than 1 %{listed}.\n{few}"
        )
    return f"skipped {len(skipped)} of {total} image files that cannot be read{listed}: {few}"


def _split(root: Path, name: str, files: list[_File]) -> Split:
    labels = np.array([f.label for f in files], np.int32)
    paths = [f.path for f in files]
    names = [_below(root, path) for path in paths]
    return Split(name, labels, np.arange(len(files), dtype=np.int64), lambda i: decode(paths[i]), names=names)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
