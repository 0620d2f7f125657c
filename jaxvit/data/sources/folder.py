"""Folders of photos: one subfolder per class, in folders of splits such as `train/` and `test/` or all together."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxvit.data import listing
from jaxvit.data.files import MAX_BAD, write_skipped
from jaxvit.data.formats import read_formats
from jaxvit.data.imagenet import SOLUTION
from jaxvit.data.images import decode
from jaxvit.data.layout import Layout, in_order, inner, plain, read_layout, subfolders
from jaxvit.data.sources.photos import report_skipped
from jaxvit.data.splits import IMAGENET_MEAN, IMAGENET_STD, Source, Split, automatic_test
from jaxvit.data.texts import View
from jaxvit.errors import UserError
from jaxvit.runtime.paths import check_directory, expand


def load(
    path: str,
    skipped_file: str | os.PathLike | None = None,
    max_bad_fraction: float = MAX_BAD,
    known: Sequence[str] | None = None,
    to_train: bool = True,
    rescan: bool = False,
    prefer: Sequence[str] = (),
) -> Source:
    """Reads `PATH/train/CLASS/*`, `PATH/val/CLASS/*`, `PATH/test/CLASS/*`, or `PATH/CLASS/*`, at any depth.

    Names of splits count in the usual spellings (`layout.SPLIT_NAMES`). A split that is missing is held out of the
    training images; for the test split these are 20 % of every class, the same for every seed. Classes have the order
    of `layout.in_order`, or that of `known` where these are the same ones. Formats are told by content. Files that
    cannot be read are skipped, counted, and listed in `skipped_file`; more than `max_bad_fraction` of them is a
    UserError, as are, with `to_train`, single classes and those without images. `rescan`: see `listing.read`;
    `prefer`: see `load_dataset`.
    """
    root = expand(path)
    check_directory(root, f"folder:{path}", "a subfolder per class")
    layout = read_layout(root)
    folders, notes = dict(layout.folders), list(layout.notes)
    class_names = in_order(layout.class_names("train"))
    if known is not None and sorted(known) == sorted(class_names):
        class_names = list(known)
    elif class_names != sorted(class_names):
        first = ", ".join(repr(name) for name in class_names[:3])
        notes.append(f"class names are sorted by the numbers in them: {first}, ... have the labels 0, 1, 2, ...")
    labels = {name: label for label, name in enumerate(class_names)}
    _check_classes(layout, class_names, 2 if to_train else 1)
    alone = next((split for split in prefer if split in folders), None)
    if alone is not None and len(folders) > 1:
        folders = {alone: folders[alone]}
        notes.append(f"only {folders[alone].name}/ is read")
    directories = [
        (split, directory)
        for split, folder in folders.items()
        for directory in ([folder] if split in layout.flat else subfolders(folder))
    ]
    files = listing.read(root, [d.relative_to(root).as_posix() for _, d in directories], rescan=rescan)
    label = np.array([labels.get(plain(d.name), -1) for _, d in directories], np.int32)[files.unit]
    split = np.array([list(folders).index(name) for name, _ in directories], np.int8)[files.unit]
    for name in layout.flat.keys() & folders.keys():
        at = np.flatnonzero(split == list(folders).index(name))
        label[at] = [labels[_class_of(files.path(i), layout.flat[name])] for i in at.tolist()]
    first = next(iter(folders.values()))  # of the training images
    _check_counts(root, first, label[split == 0], class_names, "no images", to_train)
    good = np.ones(len(files), bool)
    good[list(files.bad)] = False
    skipped = [(files.name(i), why) for i, why in files.bad.items()]
    if skipped_file is not None:
        write_skipped(skipped_file, skipped)
    if skipped:
        notes.append(report_skipped(f"folder:{root}", skipped, len(files), skipped_file, max_bad_fraction))
    _check_counts(root, first, label[good & (split == 0)], class_names, "no readable images", to_train)
    splits = {name: _split(name, files, np.flatnonzero(good & (split == i)), label) for i, name in enumerate(folders)}
    for name, folder in folders.items():
        if not len(splits[name]):
            raise UserError(f"{folder}: no images; expected a subfolder per class with {read_formats()} files.")
    scale, drawn = 1.0, ()
    if alone is not None:
        splits = {name: splits[alone].take(np.arange(0), name) for name in ("train", "test")} | splits
    if "test" not in splits:
        splits["train"], splits["test"], scale = automatic_test(splits["train"])
        drawn = ("test",)
        if len(splits["test"]):
            notes.append(f"test: {len(splits['test']):,} images held out (stratified, the same for every seed)")
    shapes = files.shapes[good]
    size = (int(shapes[0, 0]), int(shapes[0, 1])) if (shapes == shapes[:1]).all() else None
    return Source(splits, class_names, 3, size, IMAGENET_MEAN, IMAGENET_STD, notes, scale, drawn)


def _check_classes(layout: Layout, class_names: list[str], fewest: int) -> None:
    folders = layout.folders
    if len(class_names) < fewest:
        found = f"only the class {class_names[0]!r}" if class_names else "no class folders"
        below = inner(folders["train"])
        instead = f"\nDid you mean folder:{below}?" if len(subfolders(below)) > 1 else ""
        raise UserError(f"{folders['train']}: {found}; a classifier needs at least two, one subfolder each.{instead}")
    for split, folder in folders.items():
        unknown = sorted(layout.class_names(split) - set(class_names))
        if unknown:
            names = ", ".join(repr(u) for u in unknown[:3])
            raise UserError(f"{folder}: {names} is not a class of {folders['train']} (needed for {split}).")


def _class_of(file: Path, classes: dict[str, str]) -> str:
    """The class of a file in a folder without class folders. Raises UserError where nobody has named it."""
    if file.stem not in classes:
        raise UserError(f"{file}: {SOLUTION} has no class for it; remove the file, or sort the images by class")
    return classes[file.stem]


def _check_counts(
    root: Path, train: Path, labels: np.ndarray, class_names: list[str], what: str, to_train: bool
) -> None:
    """Raises UserError for classes that no training image has; `labels`: those of the training images."""
    empty = [class_names[k] for k in np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)]
    if len(empty) == len(class_names):
        raise UserError(f"folder:{root}: {what}; expected {read_formats()} files in a subfolder per class.")
    if empty and to_train:
        names = ", ".join(repr(name) for name in empty[:3])
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise UserError(f"{train}: {what} in the class folder {names}{more}; expected at least one per class.")


def _split(name: str, files: listing.Files, at: np.ndarray, labels: np.ndarray) -> Split:
    """The files `at` [n] as a split; they are decoded when they are read."""

    def file(i: int) -> Path:
        return files.path(int(at[i]))

    names = View(files.name, at)
    index = np.arange(len(at), dtype=np.int64)
    return Split(name, labels[at], index, lambda i: decode(file(i)), names=names, file=file)
