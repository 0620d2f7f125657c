"""Cross-validation: the images in k folds, each of them the test split of one run."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from jaxvit.data.splits import Source, Split, shuffled, together
from jaxvit.errors import UserError

SEED = 40  # of the folds; never the run's seed: runs of every seed hold out the same images
FORM = "expected i/k, the i-th of k folds, for example 1/5"


def parse(text: str) -> tuple[int, int]:
    """Reads "2/5" as (2, 5); raises UserError for anything but 1 <= i <= k with k of at least 2."""
    found = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", text)
    if found is None:
        raise UserError(f"data.fold is {text!r}; {FORM}")
    fold, k = int(found[1]), int(found[2])
    if k < 2 or not 1 <= fold <= k:
        raise UserError(f"data.fold is {text!r}; {FORM}: k is at least 2, and i from 1 to k")
    return fold, k


def assign(labels: np.ndarray, groups: np.ndarray | None, k: int) -> np.ndarray:
    """Returns the fold of each image, int [n] from 0 to k - 1; the same for every seed.

    Without groups the sizes of the folds, and those of each class in them, differ by one image at most, as in
    scikit-learn's StratifiedKFold. Groups are never divided: the largest first, each goes where the classes stay
    nearest to their shares (by chi squared).
    """
    if groups is not None:
        return _assign_groups(labels, groups, k)
    order = shuffled(len(labels), SEED)
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % k
    return fold


def _assign_groups(labels: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    _, code, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    _, member, members = np.unique(groups, return_inverse=True, return_counts=True)
    counts = np.zeros((len(members), len(sizes)))  # images of each class in each group
    np.add.at(counts, (member, code), 1)
    order = shuffled(len(members), SEED)
    order = order[np.argsort(-members[order], kind="stable")]
    held, share, fold = np.zeros((k, len(sizes))), sizes / k, np.empty(len(members), np.int64)
    for g in order:
        worse = (((held + counts[g] - share) ** 2 - (held - share) ** 2) / share).sum(axis=1)
        fold[g] = int(np.lexsort((held.sum(axis=1), np.round(worse, 9)))[0])
        held[fold[g]] += counts[g]
    return fold[member]


def check(name: str, labels: np.ndarray, groups: np.ndarray | None, class_names: Sequence[str], k: int) -> None:
    """Raises UserError where k folds cannot each hold images of every class."""
    what, of = ("groups", groups) if groups is not None else ("images", np.arange(len(labels)))
    count = len(np.unique(of))
    if count < k:
        raise UserError(f"data.fold: {name} has {count} {what}, fewer than {k} folds")
    for label in np.unique(labels[labels < len(class_names)]):
        n = len(np.unique(of[labels == label]))
        if n < k:
            verb = "has" if groups is None else "is in"
            few = f"{n} {what[:-1] if n == 1 else what}"
            most = f"at most {n} folds, or more" if n > 1 else f"two {what} or more"
            raise UserError(
                f"data.fold: class {class_names[label]!r} {verb} {few}, fewer than {k} folds: some would leave it out\n"
                f"expected {most} of that class"
            )


def hold_out_fold(name: str, source: Source, text: str) -> Source:
    """Returns the source with fold i of k as its test split, and the other folds as its training images.

    The folds are made of the training split, and of a test split that was drawn from it. A test split of the source's
    own is left out: nothing of it trains, nothing is tested on it. Its own validation split stays.

    Raises:
      UserError: more folds than images of a class, or than groups.
    """
    fold, k = parse(text)
    train, test = source.splits["train"], source.splits.get("test")
    drawn = "test" in source.drawn and test is not None
    whole = _merged(train, test) if drawn and test is not None else train
    strata = whole.strata
    check(name, strata, whole.groups, source.class_names, k)
    which = assign(strata, whole.groups, k)
    held = np.flatnonzero(which == fold - 1)
    kept = np.flatnonzero(which != fold - 1)
    if whole.labels.ndim == 1:
        lost = np.setdiff1d(strata, strata[held])
        lost = lost if len(lost) else np.setdiff1d(strata, strata[kept])
        if len(lost):
            raise UserError(
                f"data.fold={fold}/{k} leaves out class {source.class_names[lost[0]]!r}: its groups are too few\n"
                "expected fewer folds, or more groups of that class"
            )
    how = "stratified, whole groups" if whole.groups is not None else "stratified"
    notes = [n for n in source.notes if not (drawn and n.startswith("test:"))]
    notes.append(f"test: fold {fold} of {k}, {len(held):,} of {len(whole):,} images ({how}, the same for every seed)")
    if test is not None and not drawn:
        notes.append(f"the data's own test split of {len(test):,} images is not used: the folds are of train")
    splits = {**source.splits, "train": whole.take(kept, "train"), "test": whole.take(held, "test")}
    scale = len(whole) / max(len(kept), 1)
    drawn_now = tuple(dict.fromkeys((*source.drawn, "test")))
    return dataclasses.replace(source, splits=splits, notes=notes, val_scale=scale, drawn=drawn_now)


def _merged(train: Split, test: Split) -> Split:
    """Two splits that were drawn from one, in its own order."""
    both = together([train, test])
    groups = None
    if train.groups is not None and test.groups is not None:
        groups = np.concatenate([train.groups, test.groups])
    names = both.names if train.names is not None else None
    both = dataclasses.replace(both, groups=groups, names=names, stored=train.stored or train.name, name="train")
    return both.take(np.argsort(both.index, kind="stable"))
