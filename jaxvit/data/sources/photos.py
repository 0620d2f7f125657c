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
from jaxvit.data.splits import IMAGENET_MEAN, IMAGENET_STD, Source, Split, automatic_test, taken
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


@dataclasses.dataclass(frozen=True)
class Photos:
    """Images, a column for each property: of a million of them, an object for each would fill the memory."""

    names: Sequence[str]
    splits: np.ndarray  # str [n]
    labels: np.ndarray  # int32 [n]; of several labels uint8 [n, num_classes]
    index: np.ndarray  # int64 [n]
    file: Callable[[int], Path | IO[bytes]]  # the path, or the open file, of each
    groups: np.ndarray | None = None  # str [n]
    within: Sequence[Path] = ()  # the files that they lie in, where these are not image files

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, name: str, at: np.ndarray) -> Split:
        """The images at `at` [k] as a split; they are decoded when they are read."""
        file = self.file
        groups = None
        if self.groups is not None:
            groups = np.unique(self.groups[at], return_inverse=True)[1].astype(np.int64)
        return Split(
            name,
            self.labels[at],
            self.index[at],
            lambda i: decode(file(int(at[i]))),
            names=taken(self.names, at),
            groups=groups,
            file=lambda i: file(int(at[i])),
            within=self.within,
        )


def as_columns(
    photos: Sequence[Photo], num_classes: int, *, several: bool = False, within: Sequence[Path] = ()
) -> Photos:
    """Returns the properties of some images as columns."""
    kind = np.uint8 if several else np.int32
    paths = [photo.path for photo in photos]

    def file(i: int) -> Path | IO[bytes]:
        path = paths[i]
        return path if isinstance(path, Path) else path()

    grouped = any(photo.group is not None for photo in photos)
    return Photos(
        [photo.name for photo in photos],
        np.array([photo.split for photo in photos], np.str_),
        np.array([photo.label for photo in photos], kind).reshape((-1, num_classes) if several else -1),
        np.array([photo.index for photo in photos], np.int64),
        file,
        np.array([photo.group for photo in photos], np.str_) if grouped else None,
        within,
    )


Checked = tuple[np.ndarray, dict[int, str]]  # sizes int32 [n, 2], (h, w) or 0, and why some cannot be read


def look_into(file: Callable[[int], Path | IO[bytes]], n: int) -> Checked:
    """Looks into n images, each a path or an open file."""
    full = n <= FULL_CHECK
    sizes, why = np.zeros((n, 2), np.int32), {}

    def visit(i: int) -> None:
        try:
            sizes[i] = check(file(i), full=full)
        except DECODE_ERRORS as error:
            why[i] = reason(error)

    in_threads(visit, n, "checking images", show_from=200)
    return sizes, dict(sorted(why.items()))


def report_skipped(
    source: str, skipped: list[tuple[str, str]], total: int, skipped_file: str | os.PathLike | None, allowed: float
) -> str:
    """Returns the note on skipped files; raises UserError where they are too many. `source`: the data's name."""
    listed = "" if skipped_file is None else f", listed in {skipped_file}"
    share = f"{len(skipped)} of {total} image files"
    if len(skipped) > allowed * total:
        raise UserError(
            f"{source}: {share} cannot be read, more than {100 * allowed:g} %{listed}; "
            f"remove them, or train with data.max_bad_fraction={_enough(len(skipped), total)}.\n{few(skipped)}"
        )
    return f"skipped {share} that cannot be read{listed}: {few(skipped)}"


def _enough(bad: int, total: int) -> str:
    """The smallest share, in two digits, that allows this number of bad files."""
    return f"{-(-100 * bad // total) / 100:g}"


def collect(
    source: str,
    photos: Photos,
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
    images: stratified, and by whole groups if there are any. `source` names the data in messages. `checked`: what is
    known of the images; without it they are looked into.

    Raises:
      UserError: too many images that cannot be read; with `to_train`, too few classes or one without training images.
    """
    every = np.ones(len(photos), bool)
    _check(source, photos, every, class_names, several, to_train)
    given = [split for split in ("val", "test") if (photos.splits == split).any()]
    sizes, why = look_into(photos.file, len(photos)) if checked is None else checked
    good = every.copy()
    good[list(why)] = False
    skipped = [(photos.names[i], why[i]) for i in why]
    if skipped_file is not None:
        write_skipped(skipped_file, skipped)
    notes = list(notes)
    if skipped:
        notes.append(report_skipped(source, skipped, len(photos), skipped_file, max_bad_fraction))
        _check(source, photos, good, class_names, several, to_train, "readable ")
    splits = {
        split: photos.split(split, np.flatnonzero(good & (photos.splits == split))) for split in ("train", *given)
    }
    scale, drawn = 1.0, ()
    if "test" not in splits:
        how = "stratified" if splits["train"].groups is None else "whole groups"
        splits["train"], splits["test"], scale = automatic_test(splits["train"])
        drawn = ("test",)
        if len(splits["test"]):
            notes.append(f"test: {len(splits['test']):,} images held out ({how}, the same for every seed)")
    sizes = sizes[good]
    size = (int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) and (sizes == sizes[:1]).all() else None
    return Source(splits, class_names, 3, size, IMAGENET_MEAN, IMAGENET_STD, notes, scale, drawn)


def _check(
    source: str,
    photos: Photos,
    good: np.ndarray,
    class_names: list[str],
    several: bool,
    to_train: bool,
    what: str = "",
) -> None:
    """Raises UserError if there are too few classes, or one without training images among the `good` ones, bool [n]."""
    if len(class_names) < (2 if to_train and not several else 1):
        found = f"only the class {class_names[0]!r}" if class_names else "no class"
        raise UserError(f"{source}: {found}; a classifier needs at least two.")
    if not to_train:
        return
    labels = photos.labels[good & (photos.splits == "train")]
    if not len(labels):
        raise UserError(f"{source}: no {what}image of the split train; expected at least one.")
    seen = labels.any(axis=0) if several else np.bincount(labels, minlength=len(class_names)) > 0
    empty = [class_names[k] for k in np.flatnonzero(~seen)]
    if empty:
        raise UserError(
            f"{source}: no {what}training image of the class {', '.join(map(repr, empty[:3]))}"
            f"{f' and {len(empty) - 3} more' if len(empty) > 3 else ''}; expected at least one per class."
        )
