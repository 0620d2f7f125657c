"""What every data source hands over: splits with random access, and how they are drawn and limited."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # timm's IMAGENET_DEFAULT_MEAN, in [0, 1] pixel units
IMAGENET_STD = (0.229, 0.224, 0.225)
SEEN = 1_000  # images of a split whose pixels tell the same, where they are in memory
NAMED = 20_000  # images of a split whose names tell whether they are others
SWEEPS = 10  # over the groups, at most; two or three are usual


@dataclasses.dataclass(frozen=True)
class Split:
    """One split with random access.

    Attributes:
      name: "train", "val" or "test".
      labels: int32 [n]; of several labels per image 0 or 1 for each class, uint8 [n, num_classes].
      index: int64 [n], position of each example in the own order of the split it was stored in.
      read: i -> the i-th example, a uint8 array [h, w, c] or a PIL image in mode RGB.
      images: uint8 [n, h, w, c] where the split already is an array.
      names: file names, or a data set's own identifiers, if there are any.
      stored: what `index` counts in: the split or file that the data set stores the examples in.
      file: i -> the path, or the open file, that holds the i-th example, where it is an image file.
      within: the files that hold the images, where they lie within other files, as in shards.
      groups: int64 [n], examples that belong together and are never divided over splits, where the data say so.
    """

    name: str
    labels: np.ndarray
    index: np.ndarray
    read: Callable[[int], Any]
    images: np.ndarray | None = None
    names: Sequence[str] | None = None
    stored: str = ""
    groups: np.ndarray | None = None
    file: Callable[[int], Any] | None = None
    within: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def strata(self) -> np.ndarray:
        """The strata, int [n]: the label, or of several the rarest; images without labels are one stratum."""
        if self.labels.ndim == 1:
            return self.labels
        counts, k = self.labels.sum(axis=0, dtype=np.int64), self.labels.shape[1]
        rarest = np.where(self.labels > 0, counts, len(self) + 1).argmin(axis=1)
        return np.where(self.labels.any(axis=1), rarest, k).astype(np.int32)

    def take(self, positions: np.ndarray, name: str | None = None) -> "Split":
        """Returns the examples at `positions` [k], in that order, optionally under another split name."""
        positions = np.asarray(positions, np.int64)
        names = None if self.names is None else taken(self.names, positions)
        groups = None if self.groups is None else self.groups[positions]
        known = {"index": self.index[positions], "names": names, "stored": self.stored or self.name, "groups": groups}
        if self.images is not None:
            return from_arrays(name or self.name, self.images[positions], self.labels[positions], **known)
        read, file = self.read, self.file
        return Split(
            name or self.name,
            self.labels[positions],
            read=lambda i: read(int(positions[i])),
            file=None if file is None else lambda i: file(int(positions[i])),
            within=self.within,
            **known,
        )

    def image_names(self, positions: Iterable[int] | None = None) -> np.ndarray:
        """Returns what each example is found by, str [k]: its file's name, or its place as "test.npz[30]"."""
        chosen = range(len(self)) if positions is None else positions
        if self.names is not None:
            return np.array([self.names[i] for i in chosen], np.str_)
        return np.array([f"{self.stored or self.name}[{self.index[i]}]" for i in chosen], np.str_)


@dataclasses.dataclass(frozen=True)
class Source:
    """What a reader returns: the splits as they are stored, before validation is drawn and limits are set.

    `splits` has "train" and "test" and, where the source has its own, "val". `val_scale` multiplies the
    validation fraction (a source that drew its own test split still gives val as a share of the whole). `drawn`
    names the splits that are not stored as such but were held out of the training images.
    """

    splits: dict[str, Split]
    class_names: list[str]
    in_channels: int
    image_size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: list[str] = dataclasses.field(default_factory=list)
    val_scale: float = 1.0
    drawn: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Train, validation and test split of one data set, with what is needed to normalise and to report it.

    `mean` and `std` are per channel, in [0, 1] pixel units; `image_size` is None where images differ in size;
    `notes` are lines worth telling the user; `drawn` names the splits that were held out of the training images.
    """

    name: str
    train: Split
    val: Split
    test: Split
    class_names: list[str]
    in_channels: int
    image_size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: list[str]
    drawn: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.train.labels.ndim == 2

    def fingerprint(self) -> dict[str, Any]:
        """What a run that is resumed must find again: sizes of the splits, a hash of their labels and classes, one of
        the images' names where they have some, and one of pixels that are in memory: of more than NAMED and SEEN in a
        split, of evenly spaced ones.
        """
        seen, names = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape")), hashlib.sha256()
        pixels = hashlib.sha256()
        splits = {"train": self.train, "val": self.val, "test": self.test}
        for split in splits.values():
            seen.update(np.ascontiguousarray(split.labels, np.int32).tobytes() + b"\0")
            if split.images is not None:
                for i in _spaced(len(split), SEEN):
                    pixels.update(np.ascontiguousarray(split.images[i]).data)
            if split.names is not None:
                some = (str(split.names[i]) for i in _spaced(len(split), NAMED))
                names.update("\0".join(some).encode("utf-8", "surrogateescape") + b"\1")
        return {
            **{name: len(split) for name, split in splits.items()},
            "sha256": seen.hexdigest(),
            "names": names.hexdigest(),
            "pixels": pixels.hexdigest(),
        }


def _spaced(n: int, most: int) -> range:
    return range(0, n, -(-n // most) or 1)


def taken(names: Sequence[str], positions: np.ndarray) -> Sequence[str]:
    """Returns the names at `positions` [k]; a sequence that has a `take` of its own need not make a text for each."""
    take: Any = getattr(names, "take", None)
    return [names[int(i)] for i in positions] if take is None else take(positions)


def from_arrays(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    stored: str = "",
    groups: np.ndarray | None = None,
) -> Split:
    """Returns a split over arrays in memory: images uint8 [n, h, w, c], labels int [n], or 0 and 1 [n, num_classes]."""
    if index is None:
        index = np.arange(len(labels), dtype=np.int64)
    labels = np.asarray(labels, np.int32 if np.ndim(labels) == 1 else np.uint8)
    return Split(name, labels, index, lambda i: images[i], images, names, stored, groups)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel of uint8 images [n, h, w, c], in [0, 1] pixel units.

    Sums are over integers, so that the order of the examples cannot change a digit.
    """
    means, stds = [], []
    levels = np.arange(256, dtype=np.float64) / 255.0
    for c in range(images.shape[-1]):
        counts = np.bincount(images[..., c].ravel(), minlength=256).astype(np.float64)
        share = counts / counts.sum()
        mean = float((share * levels).sum())
        std = float((share * (levels - mean) ** 2).sum()) ** 0.5
        means.append(round(mean, 4))
        stds.append(round(max(std, 1e-3), 4))  # a constant channel must not divide by zero
    return tuple(means), tuple(stds)


def shuffled(n: int, *seeds: int) -> np.ndarray:
    """Returns a permutation [n] that depends on the seeds only.

    Sorts raw 64-bit draws: numpy promises the bits of PCG64 for ever, but not those of `permutation`.
    """
    entropy = [int(seed) % 2**64 for seed in seeds]
    return np.argsort(np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(n), kind="stable")


def class_ranks(labels: np.ndarray, *seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rank of each example within its class in a shuffled order [n], size of its class [n])."""
    order = shuffled(len(labels), *seeds)
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, first, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - np.repeat(first, sizes)
    class_sizes = np.empty(len(labels), np.int64)
    class_sizes[by_class] = np.repeat(sizes, sizes)
    return ranks, class_sizes


def stratified_order(labels: np.ndarray, *seeds: int, classes_first: bool = False) -> np.ndarray:
    """Returns an order [n] every prefix of which is stratified, so that smaller subsets lie in larger ones.

    The r-th of m examples of a class stands at (r + 1/2) / m of the order. With `classes_first` one example of
    every class comes before all others; without, the last one of every class comes after all others.
    """
    ranks, sizes = class_ranks(labels, *seeds)
    place = (ranks + 0.5) / np.maximum(sizes, 1)
    if classes_first:
        place[ranks == 0] = -1.0
    else:
        place[ranks == sizes - 1] = 2.0
    tie = np.argsort(shuffled(len(labels), *seeds, 1), kind="stable")
    return np.lexsort((tie, place))


def hold_out(labels: np.ndarray, count: int, *seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (kept positions, held-out positions), stratified, each sorted; every class keeps one example."""
    if count < 1:  # a million labels take a while to be ordered
        return np.arange(len(labels)), np.zeros(0, np.int64)
    count = min(count, len(labels) - len(np.unique(labels)))
    order = stratified_order(labels, *seeds)
    return np.sort(order[count:]), np.sort(order[:count])


def hold_out_groups(labels: np.ndarray, groups: np.ndarray, count: int, *seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (kept positions, held-out positions) of about `count` examples, whole groups; each sorted.

    Begins with none held out and goes over the groups, the largest first, equal ones in a shuffled order: each changes
    sides where that brings the classes nearer to their shares (by chi squared), until none does. An example of each
    class is kept. Where all groups are too large for that, the smallest that may be is held out.
    """
    _, code, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    _, member, members = np.unique(groups, return_inverse=True, return_counts=True)
    order = shuffled(len(members), *seeds)
    order = order[np.argsort(-members[order], kind="stable")] if count else order[:0]
    of_group = np.split(code[np.argsort(member, kind="stable")], np.cumsum(members)[:-1])
    parts = [np.unique(of, return_counts=True) for of in of_group]
    share, held, is_held = sizes * (count / max(len(labels), 1)), np.zeros(len(sizes)), np.zeros(len(members), bool)

    def change(g: int, always: bool = False) -> bool:
        classes, of_class = parts[g]
        before, sign = held[classes], -1 if is_held[g] else 1
        after = before + sign * of_class
        nearer = np.sum(((after - share[classes]) ** 2 - (before - share[classes]) ** 2) / share[classes]) < 0
        if not (nearer or always) or (sign > 0 and np.any(after >= sizes[classes])):
            return False
        held[classes], is_held[g] = after, not is_held[g]
        return True

    for _ in range(SWEEPS):
        if not sum(change(int(g)) for g in order):
            break
    if not is_held.any():
        any(change(int(g), always=True) for g in order[::-1])
    return np.flatnonzero(~is_held[member]), np.flatnonzero(is_held[member])


def held_out_of(split: Split, count: int, *seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (kept positions, held-out positions) of a split: stratified, and by whole groups where it has any."""
    if split.groups is None:
        return hold_out(split.strata, count, *seeds)
    return hold_out_groups(split.strata, split.groups, count, *seeds)


def automatic_test(whole: Split, fraction: float = 0.2) -> tuple[Split, Split, float]:
    """Returns (train, test, val_scale): a stratified test split that is the same for every seed of a run.

    The test split is empty where every class has a single image; such data can be evaluated as a whole.
    `val_scale` makes a validation fraction a share of the whole rather than of what is left.
    """
    kept, held_out = held_out_of(whole, max(round(fraction * len(whole)), 1), 20)
    return whole.take(kept), whole.take(held_out, "test"), len(whole) / max(len(kept), 1)


def limit(
    labels: np.ndarray, *, fraction: float, per_class: int | None, seed: int, imbalance: float | None = None
) -> tuple[np.ndarray, str | None]:
    """Returns the sorted positions of a stratified, nested subset of the examples, and a note or None.

    `imbalance` then makes the subset long-tailed, see `long_tail`. Raises UserError for a fraction outside (0, 1], a
    `per_class` below 1, an `imbalance` below 1.
    """
    if isinstance(fraction, bool) or not 0 < fraction <= 1:
        raise UserError(f"data.fraction is {fraction}; expected a number above 0 and at most 1.")
    if per_class is not None and (isinstance(per_class, bool) or per_class != int(per_class) or per_class < 1):
        raise UserError(f"data.per_class is {per_class}; expected a whole number of at least 1.")
    if imbalance is not None and imbalance < 1:
        raise UserError(f"data.imbalance is {imbalance}; expected largest class : smallest, a number of at least 1.")
    if fraction == 1 and per_class is None and imbalance is None:
        return np.arange(len(labels)), None
    classes = len(np.unique(labels))
    order = stratified_order(labels, seed, 2, classes_first=True)
    chosen = order[: max(round(fraction * len(labels)), min(classes, len(labels)))]
    note = None
    if per_class is not None:
        ranks, sizes = class_ranks(labels, seed, 2)
        chosen = chosen[ranks[chosen] < per_class]
        short = len(np.unique(labels[sizes < per_class]))
        if short:
            note = f"per_class={per_class} is more than {short} of {classes} classes have; all of their images are used"
    if imbalance is not None and imbalance > 1:
        ranks, _ = class_ranks(labels[chosen], seed, 2)
        wanted = long_tail(np.bincount(labels[chosen]), imbalance)
        chosen = chosen[ranks < wanted[labels[chosen]]]
        tail = (
            f"long-tailed {imbalance:g}:1: {wanted[0]:,} training images of the first class, {wanted[-1]:,} of the last"
        )
        note = f"{note}; {tail}" if note else tail
    return np.sort(chosen), note


def long_tail(counts: np.ndarray, ratio: float) -> np.ndarray:
    """Sizes of the classes [k] that fall from the first to the last by the same factor (Cui et al., 2019).

    They are floor(n ratio^(-c / (k - 1))), at least 1, with the largest n that the `counts` [k] allow: the number of
    images of a class where all have equally many.

    Raises:
      UserError: a class has no images.
    """
    if counts.min() < 1 or len(counts) < 2:
        raise UserError("data.imbalance needs two classes or more, each with training images")
    share = ratio ** (-np.arange(len(counts)) / (len(counts) - 1.0))
    return np.clip(np.floor((counts / share).min() * share + 1e-9).astype(np.int64), 1, counts)


def some(split: Split, count: int) -> Split:
    """Returns at most `count` examples in their order: stratified, the same for every seed, few within many."""
    order = stratified_order(split.strata, 30, classes_first=True)
    return split.take(np.sort(order[:count]))


def together(splits: Sequence[Split]) -> Split:
    """Returns all examples of some splits, under the name "all"; their names say which split an example is of."""
    splits = [split for split in splits if len(split)]
    labels, index = (np.concatenate([getattr(split, word) for split in splits]) for word in ("labels", "index"))
    names = [str(name) for split in splits for name in split.image_names()]
    if all(split.images is not None for split in splits):
        images = np.concatenate([split.images for split in splits if split.images is not None])
        return from_arrays("all", images, labels, index, names)
    ends = np.cumsum([len(split) for split in splits])

    def read(i: int) -> Any:
        which = int(np.searchsorted(ends, i, side="right"))
        return splits[which].read(i - int(ends[which]) + len(splits[which]))

    return Split("all", labels, index, read, names=names)
