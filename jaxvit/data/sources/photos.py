"""Image files with labels, wherever the labels come from: checked, counted, made into splits."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxvit.data.files import MAX_BAD, few, write_skipped
from jaxvit.data.images import DECODE_ERRORS, check, decode, in_threads, reason
from jaxvit.data.listing import FULL_CHECK
from jaxvit.data.splits import IMAGENET_MEAN, IMAGENET_STD, Source, Split, automatic_test
from jaxvit.errors import UserError


@dataclasses.dataclass(frozen=True, slots=True)
class Photo:
    """An image: where it lies, what it is called in lists and reports, its split and its label."""

    path: Path | Callable[[], IO[bytes]]  # or what opens it, where it lies within another file
    name: str
    split: str
    label: int | tuple[int, ...]  # of several labels: 0 or 1 for each class
    index: int = 0  # in the order in which the data set stores them
    group: str | None = None


Checked = tuple[np.ndarray, dict[int, str]]  # sizes int32 [n, 2], (h, w) or 0, and why some cannot be read


def look_into(paths: Sequence[Path | Callable[[], IO[bytes]]]) -> Checked:
    """Looks into images, each a path or what opens it."""
    full = len(paths) <= FULL_CHECK
    sizes, why = np.zeros((len(paths), 2), np.int32), {}

    def visit(i: int) -> None:
        try:
            path = paths[i]
            sizes[i] = check(path if isinstance(path, Path) else path(), full=full)
        except DECODE_ERRORS as error:
            why[i] = reason(error)

    in_threads(visit, len(paths), "checking images", show_from=200)
    return sizes, dict(sorted(why.items()))


def readable(
    photos: list[Photo], checked: Checked | None = None
) -> tuple[list[Photo], set[tuple[int, int]], list[tuple[str, str]]]:
    """Returns (those that can be read, their sizes (h, w), [(name, why it cannot be read)]).

    `checked`: what is known of the images; without it they are looked into.
    """
    sizes, why = look_into([photo.path for photo in photos]) if checked is None else checked
    good = [photo for i, photo in enumerate(photos) if i not in why]
    known = {(int(h), int(w)) for h, w in np.unique(sizes, axis=0) if h}
    return good, known, [(photos[i].name, why[i]) for i in why]


def report_skipped(
    source: str, skipped: list[tuple[str, str]], total: int, skipped_file: str | os.PathLike | None, allowed: float
) -> str:
    """Returns the note on skipped files; raises UserError where they are too many. `source`: the data's name."""
    listed = "" if skipped_file is None else f", listed in {skipped_file}"
    share = f"{len(skipped)} of {total} image files"
    if len(skipped) > allowed * total:
        raise UserError(
            f"{source}: {share} cannot be read, more than {100 * allowed:g} %{listed}; "
            f"data.max_bad_fraction={_enough(len(skipped), total)} allows it.\n{few(skipped)}"
        )
    return f"skipped {share} that cannot be read{listed}: {few(skipped)}"


def _enough(bad: int, total: int) -> str:
    """The smallest share, in two digits, that allows this number of bad files."""
    return f"{-(-100 * bad // total) / 100:g}"


def as_split(name: str, photos: Sequence[Photo], num_classes: int, *, several: bool = False) -> Split:
    """Returns a split over files that are decoded when they are read.

    `several`: each label is 0 or 1 for each class.
    """
    kind = np.uint8 if several else np.int32
    labels = np.array([p.label for p in photos], kind).reshape((-1, num_classes) if several else -1)
    paths = [p.path for p in photos]
    index = np.array([p.index for p in photos], np.int64)
    groups = None
    if any(p.group is not None for p in photos):
        groups = np.unique(np.array([p.group for p in photos], np.str_), return_inverse=True)[1].astype(np.int64)

    def file(i: int) -> Path | IO[bytes]:
        path = paths[i]
        return path if isinstance(path, Path) else path()

    names = [p.name for p in photos]
    return Split(name, labels, index, lambda i: decode(file(i)), names=names, groups=groups, file=file)


def collect(
    source: str,
    photos: list[Photo],
    class_names: list[str],
    /,
    *,
    notes: list[str],
    several: bool = False,
    skipped_file: str | os.PathLike | None = None,
    max_bad_fraction: float = MAX_BAD,
    to_train: bool = True,
    checked: Checked | None = None,
    **_: Any,
) -> Source:
    """Returns the splits of images that say themselves which split they are of; the rest of `options` is not read.

    Images that cannot be read are skipped, as those of `folder:`. Without test images some are held out of the training
    images: stratified, and by whole groups if there are any. `source` names the data in messages; for `checked` see
    `readable`.

    Raises:
      UserError: too many images that cannot be read; with `to_train`, too few classes or one without training images.
    """
    _check(source, photos, class_names, several, to_train)
    total = len(photos)
    given = [split for split in ("val", "test") if any(photo.split == split for photo in photos)]
    photos, sizes, skipped = readable(photos, checked)
    if skipped_file is not None:
        write_skipped(skipped_file, skipped)
    notes = list(notes)
    if skipped:
        notes.append(report_skipped(source, skipped, total, skipped_file, max_bad_fraction))
        _check(source, photos, class_names, several, to_train, "readable ")
    splits = {
        split: as_split(split, [p for p in photos if p.split == split], len(class_names), several=several)
        for split in ("train", *given)
    }
    scale, drawn = 1.0, ()
    if "test" not in splits:
        how = "stratified" if splits["train"].groups is None else "whole groups"
        splits["train"], splits["test"], scale = automatic_test(splits["train"])
        drawn = ("test",)
        if len(splits["test"]):
            notes.append(f"test: {len(splits['test'])} images held out ({how}, the same for every seed)")
    size = sizes.pop() if len(sizes) == 1 else None
    return Source(splits, class_names, 3, size, IMAGENET_MEAN, IMAGENET_STD, notes, scale, drawn)


def _check(
    source: str, photos: list[Photo], class_names: list[str], several: bool, to_train: bool, what: str = ""
) -> None:
    """Raises UserError if there are too few classes, or one without training images."""
    if len(class_names) < (2 if to_train and not several else 1):
        found = f"only the class {class_names[0]!r}" if class_names else "no class"
        raise UserError(f"{source}: {found}; a classifier needs at least two.")
    if not to_train:
        return
    labels = [photo.label for photo in photos if photo.split == "train"]
    if not labels:
        raise UserError(f"{source}: no {what}image of the split train; expected at least one.")
    seen = np.asarray(labels).any(axis=0) if several else np.isin(np.arange(len(class_names)), labels)
    empty = [class_names[k] for k in np.flatnonzero(~seen)]
    if empty:
        raise UserError(
            f"{source}: no {what}training image of the class {', '.join(map(repr, empty[:3]))}"
            f"{f' and {len(empty) - 3} more' if len(empty) > 3 else ''}; expected at least one per class."
        )
