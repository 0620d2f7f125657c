"""Names to data sets: `digits`, `cifar10`, `folder:PATH`, `csv:FILE` and the others of NAMES."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxvit import plugins
from jaxvit.data.files import MAX_BAD
from jaxvit.data.folds import hold_out_fold, parse
from jaxvit.data.sources import cifar, digits, folder, hf, label_file, npz, tfds_source, wds
from jaxvit.data.splits import Dataset, Source, Split, held_out_of, limit, some
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import escape
from jaxvit.runtime.paths import expand

__all__ = ["Dataset", "NAMES", "Split", "load_dataset", "register_data"]

NAMES = ("digits", "cifar10", "cifar100", "tfds:NAME", "folder:PATH", "npz:PATH", "csv:FILE", "parquet:FILE",
         "hf:NAME", "wds:PATTERN")  # fmt: skip

MANY = 3  # validation images for each training image: to evaluate them takes as long as an epoch of training
ARRAYS = "arrays"  # data.name of a run whose data set no name stands for

_PLAIN: dict[str, Callable[..., Source]] = {
    "digits": lambda **_: digits.load(),
    "cifar10": lambda **options: cifar.load("cifar10", options["data_dir"], options["archive"]),
    "cifar100": lambda **options: cifar.load("cifar100", options["data_dir"], options["archive"]),
}
_WITH_ARGUMENT: dict[str, Callable[..., Source]] = {
    "tfds": lambda argument, **options: tfds_source.load(
        argument, options["data_dir"], options["rescan"], options["prefer"]
    ),
    "folder": lambda argument, **options: folder.load(
        argument,
        options["skipped_file"],
        options["max_bad_fraction"],
        options["class_names"],
        options["to_train"],
        options["rescan"],
        options["prefer"],
    ),
    "npz": lambda argument, **options: npz.load(argument, options["to_train"]),
    **{kind: partial(label_file.load, kind) for kind in label_file.KINDS},
    "hf": hf.load,
    "wds": wds.load,
}


def register_data(name: str) -> Callable[[Any], Any]:
    """Adds a data set: above a function, `@register_data("name")`; data.name is then "name", or "name:ARGUMENT".

    The function takes nothing, or the argument, a str; with a default, "name" alone is allowed too. It returns
    {"train": (images, labels), "test": (images, labels)}, "val" and "classes" (names [num_classes]) if wanted. Images
    are uint8 or float in [0, 1], [n, h, w, c]; labels int [n], or 0 and 1 [n, num_classes]. Where images are to be read
    one by one it returns a `splits.Source`.

    Raises:
      UserError: a name that exists, or another kind of thing than such a function.
    """

    def register(name: str, load: Callable[..., Any]) -> None:
        takes = plugins.parameters("data set", name, load, _FORM)
        if len(takes) > 1:
            raise UserError(f"the data set {name!r}: its function takes {len(takes)} arguments; expected {_FORM}")
        plugins.claim("data set", name, {ARRAYS, *(n.partition(":")[0] for n in NAMES)}, load)
        for table in (_PLAIN, _WITH_ARGUMENT):
            table.pop(name, None)
        if takes:
            _WITH_ARGUMENT[name] = lambda argument, **options: _own(name, load, options, argument)
        if not takes or takes[0].default is not takes[0].empty:
            _PLAIN[name] = lambda **options: _own(name, load, options)

    return plugins.decorator(register, name, '@register_data("name")')


_FORM = "() or (argument) -> {'train': (images, labels), 'test': (images, labels)}"


def _own(name: str, load: Callable[..., Any], options: dict[str, Any], *argument: str) -> Source:
    try:
        made = load(*argument)
    except UserError:
        raise
    except Exception as error:  # whatever it raises is the function's own mistake
        said = f"{type(error).__name__}: {escape.message(error)}"
        raise UserError(f"the data set {name!r} cannot be loaded: {said}") from error
    return made if isinstance(made, Source) else npz.of_arrays(made, name, options["to_train"])


def load_dataset(
    name: str,
    *,
    seed: int = 0,
    fraction: float = 1.0,
    per_class: int | None = None,
    imbalance: float | None = None,
    val_fraction: float = 0.1,
    data_dir: str | None = None,
    archive: str | None = None,
    skipped_file: str | None = None,
    test_limit: int | None = None,
    max_bad_fraction: float = MAX_BAD,
    class_names: Sequence[str] | None = None,
    to_train: bool = True,
    columns: str | None = None,
    fold: str | None = None,
    arrays: Mapping[str, Any] | None = None,
    rescan: bool = False,
    prefer: Sequence[str] = (),
) -> Dataset:
    """Returns the data set called `name`, with validation drawn and the train split limited.

    Validation is the source's own where it has train, val and test; otherwise a stratified `val_fraction` of
    train that depends on the seed. `fraction`, `per_class` and `imbalance` then limit train: stratified, deterministic
    in the seed, and nested (10 % lies within 20 %). The test split is the same for every seed.

    Args:
      name: one of NAMES.
      seed: of the validation split and of the limits.
      fraction: share of the train split to use, in (0, 1].
      per_class: largest number of train images per class, or None.
      imbalance: images of the first class to those of the last, which the others lie between, or None.
      val_fraction: share of train held out for validation, in [0, 1); 0 gives an empty split.
      data_dir: where TFDS data sets lie (TFDS's own default if None).
      archive: local official CIFAR binary archive, for `cifar10` and `cifar100`.
      skipped_file: where `folder:` and `csv:` list the files they could not read, one per line with the reason.
      test_limit: largest number of test images (stratified, the same for every seed), or None for all.
      max_bad_fraction: share of the files of `folder:` and `csv:` that may be unreadable, in [0, 1].
      class_names: the order in which a run knows the classes of `folder:` and `csv:`, taken where they are the same.
      to_train: whether a classifier is trained on it, which needs two classes, each with images.
      fold: "i/k": the test split is fold i of k of the training images; see `folds.hold_out_fold`.
      arrays: as `register_data`'s function returns them, in place of what the name stands for.
      rescan: read all files of `folder:`, `tfds:` and `wds:` again, not only those that have changed since an earlier
        start.
      prefer: names of splits; of `folder:` and photos of `tfds:` the first that is stored is read alone, and the others
        are empty.
      columns: which columns of `csv:` are meant, as "file=path,label=species"; see `label_file`.
    """
    if isinstance(val_fraction, bool) or not 0 <= val_fraction < 1:
        raise UserError(f"data.val_fraction is {val_fraction}; expected a number from 0 to below 1.")
    if test_limit is not None and (isinstance(test_limit, bool) or test_limit != int(test_limit) or test_limit < 1):
        raise UserError(f"data.test_limit is {test_limit}; expected a whole number of at least 1.")
    if isinstance(max_bad_fraction, bool) or not 0 <= max_bad_fraction <= 1:
        raise UserError(f"data.max_bad_fraction is {max_bad_fraction}; expected a number from 0 to 1.")
    limit(np.arange(2), fraction=fraction, per_class=per_class, seed=seed, imbalance=imbalance)  # refuse before reading
    if fold is not None:
        parse(fold)
    options: dict[str, Any] = {"data_dir": data_dir, "archive": archive, "skipped_file": skipped_file}
    options |= {"max_bad_fraction": max_bad_fraction, "class_names": class_names, "to_train": to_train}
    options |= {"columns": columns, "rescan": rescan, "prefer": prefer}
    source = _load_source(name, **options) if arrays is None else npz.of_arrays(arrays, "dataset", to_train)
    if fold is not None:
        source = hold_out_fold(name, source, fold)
    train, test = source.splits["train"], source.splits["test"]
    notes = list(source.notes)
    val, drawn = source.splits.get("val"), source.drawn
    if val is None:
        drawn = (*drawn, "val")
        train, val = _draw_validation(train, val_fraction * source.val_scale, seed)
        if val_fraction:
            how = "whole groups" if train.groups is not None else "stratified"
            notes.append(f"validation: {len(val):,} images drawn from train ({how}, seed {seed})")
    if to_train:
        notes += _without_images(name, train, {"val": val, "test": test}, drawn, source.class_names)
    positions, note = limit(train.strata, fraction=fraction, per_class=per_class, seed=seed, imbalance=imbalance)
    if note:
        notes.append(note)
    if len(positions) < len(train):
        notes.append(f"train: {len(positions):,} of {len(train):,} images used (stratified, seed {seed})")
        train = train.take(positions)
        if "val" in drawn and len(val) > MANY * len(train):
            fewer = val_fraction * len(train) / len(val)
            notes.append(f"evaluating so many images takes most of the time; data.val_fraction={fewer:.1g} uses fewer")
    if test_limit is not None and test_limit < len(test):
        notes.append(f"test: {test_limit:,} of {len(test):,} images used (stratified, the same for every seed)")
        test = some(test, test_limit)
    return Dataset(
        name=name,
        train=train,
        val=val,
        test=test,
        class_names=source.class_names,
        in_channels=source.in_channels,
        image_size=source.image_size,
        mean=source.mean,
        std=source.std,
        notes=notes,
        drawn=drawn,
    )


def _load_source(name: str, **options) -> Source:
    known = ", ".join(NAMES)
    if not isinstance(name, str):
        raise UserError(f"data.name is {name!r}; expected one of {known}.")
    if name == ARRAYS:
        raise UserError("the images were handed to train_and_evaluate as arrays, and are not kept; name other data")
    kind, colon, argument = name.partition(":")
    if kind not in {**_PLAIN, **_WITH_ARGUMENT}:
        plugins.load_installed()
    if name in _PLAIN:
        return _PLAIN[name](**options)
    if colon and kind in _WITH_ARGUMENT:
        if not argument:
            raise UserError(f"data.name is {name!r} without a value after the colon; expected one of {known}.")
        return _WITH_ARGUMENT[kind](argument, **options)
    choices = {n.partition(":")[0]: n for n in NAMES} | {n: n for n in (*_PLAIN, *_WITH_ARGUMENT)}
    meant = _of_path(name) or suggest(kind, choices)
    raise UserError(f"no data source {name!r}; expected one of {known}.{meant}")


def _of_path(name: str) -> str:
    """Returns " Did you mean 'folder:photos'?" for a path that is there, whose kind of data is missing, or ""."""
    path = expand(name or ".")
    kind = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".tar": "wds"}.get(path.suffix.lower())
    if name and path.is_dir():
        kind = "npz" if (path / "train.npz").is_file() else "folder"
    return f" Did you mean {f'{kind}:{name}'!r}?" if kind and path.exists() else ""


def _without_images(
    name: str, train: Split, others: dict[str, Split], drawn: Sequence[str], class_names: Sequence[str]
) -> list[str]:
    """Lines on classes that are trained and not tested.

    Raises:
      UserError: the data's own validation split lacks a class: nothing would then choose by it.
    """
    notes, what = [], {"val": "validation", "test": "test"}
    for part, split in others.items():
        missing = np.flatnonzero(_of_classes(train, len(class_names)) & ~_of_classes(split, len(class_names)))
        if not len(split) or not len(missing):
            continue
        names = ", ".join(repr(class_names[k]) for k in missing[:3]) + (", ..." if len(missing) > 3 else "")
        if part == "val" and part not in drawn:
            of = "the class" if len(missing) == 1 else "the classes"
            raise UserError(
                f"{name}: no validation image of {of} {names}; expected at least one per class that is trained.\n"
                "without that split a stratified one is drawn from the training images (data.val_fraction)"
            )
        notes.append(f"{len(missing)} of {len(class_names)} classes have no {what[part]} image: {names}")
    return notes


def _of_classes(split: Split, num_classes: int) -> np.ndarray:
    """Which classes a split has images of, bool [num_classes]."""
    if split.labels.ndim == 2:
        return np.asarray(split.labels.any(axis=0))
    return np.asarray(np.bincount(split.labels, minlength=num_classes)[:num_classes] > 0)


def _draw_validation(train: Split, val_fraction: float, seed: int) -> tuple[Split, Split]:
    count = round(val_fraction * len(train))
    if val_fraction > 0:
        count = max(count, 1)
    kept, held_out = held_out_of(train, count, seed, 1)
    return train.take(kept), train.take(held_out, "val")
