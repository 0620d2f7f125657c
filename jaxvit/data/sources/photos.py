"""Image files with labels, wherever the labels come from: checked, counted, made into splits."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxvit.data.files import few
from jaxvit.data.images import DECODE_ERRORS, check, decode, in_threads, reason
from jaxvit.data.splits import Split
from jaxvit.errors import UserError

FULL_CHECK = 200_000  # up to so many files every one is decoded before training; beyond, the suspicious ones


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image file: where it lies, what it is called in lists and reports, its split and its label."""

    path: Path
    name: str
    split: str
    label: int | tuple[int, ...]  # of several labels: 0 or 1 for each class
    index: int = 0  # in the order in which the data set stores them
    group: str | None = None


def readable(photos: list[Photo]) -> tuple[list[Photo], set[tuple[int, int]], list[tuple[str, str]]]:
    """Returns (those that can be read, their sizes (h, w), [(name, why it cannot be read)])."""
    full = len(photos) <= FULL_CHECK
    sizes: list[tuple[int, int] | None] = [None] * len(photos)
    why: dict[int, str] = {}

    def visit(i: int) -> None:
        try:
            sizes[i] = check(photos[i].path, full=full)
        except DECODE_ERRORS as error:
            why[i] = reason(error)

    in_threads(visit, len(photos), "checking images", show_from=200)
    good = [photo for i, photo in enumerate(photos) if i not in why]
    return good, {s for s in sizes if s is not None}, [(photos[i].name, why[i]) for i in sorted(why)]


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
    """The least share of two digits that allows so many bad files."""
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
    return Split(name, labels, index, lambda i: decode(paths[i]), names=[p.name for p in photos], groups=groups)
