"""Evaluation on splits of data sets, whose classes are matched with those of the model."""

import copy
import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvit import config as config_lib
from jaxvit import data
from jaxvit.build import parts
from jaxvit.config.checks import OF_DATA, reads
from jaxvit.config.default import Config
from jaxvit.data import listing
from jaxvit.data.formats import read_formats
from jaxvit.data.imagenet import are_synsets
from jaxvit.data.layout import as_labels, is_number
from jaxvit.data.sources.label_file import KINDS as LABEL_FILES
from jaxvit.data.sources.photos import Photos, report_skipped
from jaxvit.data.splits import some, together
from jaxvit.errors import UserError, suggest
from jaxvit.inference import real
from jaxvit.inference.classifier import Classifier, imagenet_classes
from jaxvit.runtime.console import bar, err, warn
from jaxvit.runtime.paths import check_directory, expand
from jaxvit.step import calibration, multi_label, steps
from jaxvit.step.evaluate import evaluate
from jaxvit.workdir import resume

OF_PATHS = ("folder", "npz", *LABEL_FILES)  # kinds of data that lie on the disk


class Evaluation(NamedTuple):
    """Metrics over the images of a split that could be read."""

    metrics: dict[str, float]
    images: int
    split: str  # "train", "val", "test" or "all"
    of: int  # images of all splits that were read
    classes: int  # that the model chooses among


class EmptySplit(UserError):
    """A data set has no images in the split that is asked for."""


class OpenSplit(NamedTuple):
    """A split of a data set, ready for a classifier's model."""

    split: data.Split  # its labels are the model's
    feed: Any
    pixels: steps.Pixels
    name: str  # "train", "val", "test" or "all"
    of: int  # images of all splits that were read
    among: np.ndarray | None = None  # int [k]: the model's labels that the data's labels 0 to k - 1 stand for


def open_split(
    classifier: Classifier,
    split_name: str | None = None,
    *,
    data_name: str | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    columns: str | None = None,
    labelled: bool = True,
    class_order: Sequence[str] | None = None,
    restrict: bool = False,
) -> OpenSplit:
    """Returns a split of a run's own data, or of `data_name`; for the arguments see `evaluate_split`.

    Without `labelled` the classes of the data may be any: all labels are then 0. `class_order`: see `open_data`.
    """
    prefer = ("test", "val") if split_name is None else () if split_name in ("all", "train") else (split_name,)
    drawn = split_name not in (None, "all")
    config, dataset, foreign = open_data(classifier, data_name, data_dir, columns, class_order, prefer, drawn)
    splits = {split.name: split for split in (dataset.train, dataset.val, dataset.test)}
    if split_name is None:
        own = [name for name in ("test", "val") if name in splits and len(splits[name]) and name not in dataset.drawn]
        split_name = (own[0] if own else "all") if foreign else "test"
    split = together(list(splits.values())) if split_name == "all" else splits[split_name]
    if not len(split):
        others = ", ".join(name for name in splits if len(splits[name])) or "none"
        raise EmptySplit(f"{config.data.name} has no images in its {split_name} split; splits with images: {others}")
    if limit is not None:
        split = some(split, limit)
    if labelled:
        to_label = match_classes(classifier, dataset.class_names)
        labels = model_labels(classifier, split.labels, to_label, config.data.name)
        among = np.unique(to_label)
        if restrict and classifier.several:
            raise UserError("--restrict-classes is for one label per image; this model predicts several")
        if restrict:
            labels = np.searchsorted(among, labels).astype(np.int32)
        elif len(among) < len(classifier.class_names) and are_synsets(dataset.class_names):
            err.print(
                f"data   has {len(among):,} of the model's {len(classifier.class_names):,} classes; --restrict-classes "
                "chooses among these alone, as the published figures of ImageNet-A and ImageNet-R do"
            )
    else:
        labels = np.zeros(len(split), np.int32)
    split = dataclasses.replace(split, labels=labels)
    opened = ready(classifier, config, split, split_name, sum(map(len, splits.values())))
    return opened._replace(among=among) if restrict else opened


def open_data(
    classifier: Classifier,
    data_name: str | None = None,
    data_dir: str | None = None,
    columns: str | None = None,
    class_order: Sequence[str] | None = None,
    prefer: Sequence[str] = (),
    takes_drawn: bool = True,
) -> tuple[Config, data.Dataset, bool]:
    """Returns (config, data set, whether it is other data than the run's): a run's own data, or `data_name`.

    The labels are those of the data. Of other data than the run's all images are there, and what was read is said.
    `class_order`: the order in which classes are read, which draws of images depend on; None: the classifier's.
    Of other data: `prefer` see `data.load_dataset`; `takes_drawn`: tell of a test split that was held out of train.
    """
    config = _reading(classifier)
    foreign = data_name is not None and (classifier.config is None or not same_data(data_name, config.data.name))
    check_read([data_name or config.data.name], columns=columns, data_dir=data_dir)
    with config.unlocked(), config.ignore_type():
        if foreign:
            whole = {
                "fraction": 1.0,
                "per_class": None,
                "imbalance": None,
                "val_fraction": 0.0,
                "test_limit": None,
                "fold": None,
            }
            config.data.update({"name": data_name, **whole})
        config.data.update({"dir": data_dir or config.data.dir, "columns": columns or config.data.columns})
    class_names = classifier.class_names if class_order is None else class_order
    if foreign:
        dataset = parts.load_data(config, class_names=class_names, to_train=False, prefer=prefer)
        for note in dataset.notes:
            if not takes_drawn and "test" in dataset.drawn and note.startswith("test: "):
                continue
            err.print(f"data   {note}")
        return config, dataset, foreign
    dataset = own_data(config, class_names)
    if class_order in (None, classifier.class_names) and not config.data.drop_leaks:
        said = classifier.data and resume.changed_data(classifier.data, dataset.fingerprint())
        if said:
            held_out = "; images that it was trained on may be held out now" if dataset.drawn else ""
            warn(f"data   {config.data.name} has changed since the run was trained ({said}){held_out}")
    return config, dataset, foreign


def own_data(config: Config, class_names: Sequence[str]) -> data.Dataset:
    """The data set of a run. Raises UserError where it cannot be read, and says so where it is no longer there."""
    try:
        return parts.load_data(config, class_names=class_names)
    except UserError as error:
        kind, _, path = config.data.name.partition(":")
        if kind not in OF_PATHS or expand(path).exists():
            raise
        whole = "" if os.path.isabs(expand(path)) else f", here {str(expand(path).absolute())!r}"
        said = str(error).splitlines()[0]
        raise UserError(f"{said}\nthe run was trained on them{whole}: put them, or a link to them, there") from None


def check_read(names: Sequence[str], **given: str | None) -> None:
    """Raises UserError where `columns` or `data_dir` is given and none of some data sets reads it."""
    for word, value in given.items():
        option = word.removeprefix("data_")
        if value is not None and not any(reads(name, option) for name in names):
            raise UserError(f"{word} {value!r} is for {OF_DATA[option][1]} or similar; {names[0]} does not use it")


def open_folder(classifier: Classifier, path: str, limit: int | None = None, *, stream: bool = False) -> OpenSplit:
    """Returns all images below a folder, whatever its subfolders are called, or `limit` of them; all labels are 0.

    `stream`: see `ready`.

    Raises UserError if there are none, or more than `data.max_bad_fraction` of them cannot be read.
    """
    config, root = _reading(classifier), expand(path)
    check_directory(root, f"folder:{path}", "images")
    found = listing.read(root, ["."])
    if not len(found):
        raise UserError(f"folder:{path}: no images; expected {read_formats()} files")
    if found.bad:
        skipped = [(found.names[i], why) for i, why in found.bad.items()]
        allowed = config.data.max_bad_fraction
        warn(f"data   {report_skipped(f'folder:{path}', skipped, len(found), None, allowed)}")
    labels, index = np.zeros(len(found), np.int32), np.arange(len(found), dtype=np.int64)
    photos = Photos(found.names, np.full(len(found), "all"), labels, index, found.path)
    split = photos.split("all", np.setdiff1d(index, list(found.bad)))
    split = split if limit is None else some(split, limit)
    return ready(classifier, config, split, "all", len(found) - len(found.bad), stream=stream)


def _reading(classifier: Classifier) -> Config:
    """A config that reads images as the classifier takes them: that of its run, or the usual one."""
    config = copy.deepcopy(classifier.config) if classifier.config is not None else config_lib.default()
    with config.unlocked(), config.ignore_type():
        config.data.update({k: v for k, v in classifier.data_config.items() if k in config.data})
        config.data.image_size = tuple(classifier.data_config["image_size"])
    return config


def ready(
    classifier: Classifier, config: Config, split: data.Split, name: str, of: int, *, stream: bool = False
) -> OpenSplit:
    """Returns a split with its batches for a classifier's model; `config` says how images are read.

    With `stream` photos are read batch by batch, however few there are.
    """
    if stream and split.images is None:
        config = copy.deepcopy(config)
        config.data.resident_mb = 0
    pixels = steps.Pixels(
        to_float=parts.make_to_float(classifier.data_config["in_channels"]),
        normalise=parts.make_normalise(*(config.data[w] for w in ("image_size", "interpolation", "mean", "std"))),
    )
    feed = parts.make_feed(config, split, crop_mode=classifier.data_config.get("crop_mode", "center"))
    return OpenSplit(split, feed, pixels, name, of)


def evaluate_split(
    classifier: Classifier,
    split_name: str | None = None,
    *,
    data_name: str | None = None,
    batch_size: int = 64,
    limit: int | None = None,
    data_dir: str | None = None,
    columns: str | None = None,
    restrict: bool = False,
    real_labels: str | None = None,
) -> Evaluation:
    """Returns the metrics of a classifier on a split of its own run's data, or of `data_name`.

    Without a `split_name` this is the test split of a run's own data. Of other data it is their own test split, or
    else validation split, or else all images: one held out of the training images has no meaning for a model that was
    trained on others. The classes of other data are matched by `match_classes`. `limit`: the largest number of images,
    drawn as `data.test_limit` draws them. `columns`: as `data.columns`, of a label file. With `restrict` the model
    chooses among the data's classes alone, as is usual for ImageNet-A, ImageNet-R and ObjectNet. `real_labels`: a file
    of ImageNet-ReaL; see `real.scores`.
    """
    wanted = {"data_name": data_name, "limit": limit, "data_dir": data_dir, "columns": columns}
    if restrict and real_labels is not None:
        raise UserError("--restrict-classes and --real-labels: expected one of them")
    sets = None if real_labels is None else real.read(real_labels, _imagenet_labels(classifier))
    opened = open_split(classifier, split_name, restrict=restrict, **wanted)
    numbers = None if sets is None else real.numbers(opened.split.image_names())
    if opened.among is not None:
        classifier = dataclasses.replace(classifier, model=Among(classifier.model, opened.among))
    metrics, logits, places = SplitReader(classifier, opened, batch_size)(classifier.variables)
    metrics["ece"] = calibration.ece(logits, opened.split.labels[places])
    if sets is not None and numbers is not None:
        metrics |= real.scores(logits, numbers[places], sets)
    classes = len(classifier.class_names) if opened.among is None else len(opened.among)
    return Evaluation(metrics, len(places), opened.name, opened.of, classes)


def _imagenet_labels(classifier: Classifier) -> np.ndarray:
    """The model's label for each class of ImageNet, int32 [1000]."""
    try:
        return match_classes(classifier, real.SYNSETS)
    except UserError:
        own = classifier.class_names
        raise UserError(
            f"--real-labels: {classifier.name} has {len(own):,} classes ({own[0]!r}, {own[-1]!r}, ...)\n"
            "expected a model of ImageNet's 1,000 classes"
        ) from None


class Among(NamedTuple):
    """A model that chooses among some of its classes; its logits are those of them alone."""

    model: Any
    labels: np.ndarray  # int [k], sorted

    def apply(self, variables: Any, images: Any) -> jax.Array:
        """Logits [b, k] of images [b, h, w, c]."""
        return self.model.apply(variables, images)[:, self.labels]


class SplitReader:
    """Passes over a split, with the classifier's weights or others of the same shapes: compiled once."""

    def __init__(self, classifier: Classifier, opened: OpenSplit, batch_size: int = 64):
        """`opened` was opened for this classifier."""
        self._opened, self._size = opened, min(batch_size, len(opened.split))
        self._step = jax.jit(steps.make_eval_step(model=classifier.model, pixels=opened.pixels))
        self._thresholds = multi_label.USUAL if classifier.thresholds is None else classifier.thresholds

    def __call__(self, variables: Any) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        """Metrics, logits float32 [n, num_classes] of the images that can be read, their positions in the split [n]."""
        opened, size = self._opened, self._size
        with bar(f"evaluating {opened.name}", math.ceil(len(opened.split) / size) * size) as meter:
            metrics, logits, places = evaluate(
                self._step,
                variables,
                opened.feed,
                size,
                keep_logits=True,
                labels=opened.split.labels,
                thresholds=self._thresholds,
                progress=lambda done: meter.advance(size),
            )
        assert logits is not None and places is not None
        return metrics, logits, places


def model_labels(classifier: Classifier, labels: np.ndarray, to_label: np.ndarray, name: str) -> np.ndarray:
    """Labels of a data set as those of the model, whose label for each of its classes is `to_label` int [classes]."""
    if not classifier.several and labels.ndim == 1:
        return to_label[labels]
    if not classifier.several:
        raise UserError(f"{name} has several labels per image; {classifier.name} was trained to predict one")
    indicators = multi_label.as_indicators(labels, len(to_label))
    found = np.zeros((len(labels), len(classifier.class_names)), np.uint8)
    for i, k in enumerate(to_label):
        found[:, k] |= indicators[:, i]
    return found


def same_data(a: str, b: str) -> bool:
    """Whether two data names mean the same files: a folder may be written in several ways."""
    return whole_name(a) == whole_name(b)


def whole_name(name: str) -> str:
    """A data name with its path written out."""
    kind, colon, path = name.partition(":")
    return f"{kind}:{expand(path).resolve()}" if colon and kind in (*OF_PATHS, "hf") else name


def match_classes(classifier: Classifier, class_names: Sequence[str]) -> np.ndarray:
    """Returns the model's label for each class of a data set, int32 [classes].

    By name, ImageNet's by synset too. Names that are exactly the numbers from 0 to the model's number of classes less
    one are its labels. Where the model's classes have no names, those of the data are taken in their order, which is
    said on a line. Raises UserError for a class that the model does not have, and for a name that two of its have.
    """
    own = list(classifier.class_names)
    names = list(class_names)
    if names == own:
        return np.arange(len(own), dtype=np.int32)
    exact, known, synsets = {}, {}, {}
    for i, name in enumerate(own):
        exact.setdefault(name, []).append(i)
        known.setdefault(_plain(name), []).append(i)
    if own == [name for _, name in imagenet_classes()]:
        synsets = {synset: [i] for i, (synset, _) in enumerate(imagenet_classes())}
    found = [_label(name, exact, known, synsets) for name in names]
    if None not in found:
        return np.asarray(found, np.int32)
    alien = len(names) == len(own) and set(found) == {None}
    unnamed = as_labels([name.removeprefix("class ") for name in own]) == list(range(len(own)))
    numbers = as_labels(names)
    if alien and numbers is not None:
        if not unnamed:
            warn(f"the data's classes are numbers: they are taken as the model's labels, with 0 for {own[0]!r}")
        return np.asarray(numbers, np.int32)
    if alien and unnamed:
        first = ", ".join(f"{i} is {name!r}" for i, name in enumerate(names[:3]))
        more = ", ..." if len(names) > 3 else ""
        warn(f"the model's classes have no names, so they are matched by position in the data's order: {first}{more}")
        return np.arange(len(own), dtype=np.int32)
    missing = names[found.index(None)]
    some = ", ".join(map(repr, own if len(own) <= 5 else [own[0], own[-1]])) + (", ..." if len(own) > 5 else "")
    said = f"class {missing!r} of the data is not one of the model's {len(own)} classes ({some})."
    said += suggest(missing, own)
    if is_number(missing):
        said += f"\nnumbers are taken as its labels only if they are exactly 0 to {len(own) - 1}"
    raise UserError(said)


def _label(name: str, *tables: dict[str, list[int]]) -> int | None:
    """The model's label of a name: written alike, else alike but for case and underscores, else by synset."""
    exact, known, synsets = tables
    synset = re.match(r"n\d{8}(?![0-9])", name)
    for table, key in ((exact, name), (synsets, synset.group() if synset else ""), (known, _plain(name))):
        labels = table.get(key, [])
        if len(labels) > 1:
            raise UserError(
                f"class {name!r} of the data matches two of the model's, {labels[0]} and {labels[1]}\n"
                "expected folders named by synset, or all of them by label"
            )
        if labels:
            return labels[0]
    return None


def _plain(name: str) -> str:
    name = name.replace("_", " ").casefold()
    return str(int(name)) if is_number(name) else name
