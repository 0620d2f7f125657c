"""Classifiers ready to use, from a run's workdir or from a timm name: prediction on files, evaluation on splits."""

import copy
import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxvit import config as config_lib
from jaxvit import data, pretrained
from jaxvit.build import checks, parts, resolve
from jaxvit.config.default import Config
from jaxvit.data import files, formats
from jaxvit.data.layout import as_labels, is_number
from jaxvit.data.sources.label_file import KINDS as LABEL_FILES
from jaxvit.data.splits import some, together
from jaxvit.errors import UserError
from jaxvit.runtime import escape
from jaxvit.runtime.console import bar, err
from jaxvit.runtime.late import fetched
from jaxvit.runtime.paths import check_utf8, expand
from jaxvit.step import multi_label, steps
from jaxvit.step.evaluate import evaluate
from jaxvit.workdir import run_files
from jaxvit.workdir.checkpoint import Checkpoints

SHOWN = 20  # unreadable files that are listed by name


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model with weights, the names of its classes and the preprocessing that belongs to it."""

    name: str
    model: Any  # a linen module
    variables: Any
    class_names: list[str]
    data_config: dict[str, Any]  # what `jaxvit.preprocess` takes
    config: Config | None = None  # of the run, where it comes from one
    thresholds: np.ndarray | None = (
        None  # of several labels per image: the probability that says a class, [num_classes]
    )

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none: probabilities are then sigmoids, one for each class."""
        return self.thresholds is not None

    def to_probabilities(self, logits: Any) -> Any:
        """Logits [b, num_classes] -> probabilities."""
        return jax.nn.sigmoid(logits) if self.several else jax.nn.softmax(logits, axis=-1)

    def said(self, probabilities: np.ndarray) -> np.ndarray:
        """The classes that are said of an image, of its probabilities [num_classes], the most probable first."""
        order = probabilities.argsort(kind="stable")[::-1]
        return order[:1] if self.thresholds is None else order[probabilities[order] >= self.thresholds[order]]


def from_run(workdir: str | Path) -> Classifier:
    """Returns the best model of a run. Raises UserError where `workdir` is no run or has no checkpoint."""
    path = expand(workdir)
    if not os.fspath(workdir) or not path.is_dir():
        raise UserError(f"no run in {os.fspath(workdir)!r}: there is no such directory")
    check_utf8(path, "the run in")
    run_files.refuse_damaged(path, ("config.json", "classes.json", run_files.THRESHOLDS))
    config = config_lib.from_mapping(run_files.read_json(path / "config.json"))
    class_names = run_files.read_json(path / "classes.json", list)
    try:
        checks.check(config)
        resolve.check_resolved(config)
        if len(class_names) != config.model.num_classes or not all(isinstance(name, str) for name in class_names):
            raise UserError(f"classes.json does not hold the names of {config.model.num_classes} classes")
        thresholds = run_files.read_thresholds(path, len(class_names))
    except UserError as error:
        raise UserError(f"the run in {str(path)!r} is damaged: {error}") from None
    model = parts.make_model(config)
    shape = (*config.data.image_size, config.model.in_channels)
    template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape), jnp.float32))
    checkpoints = Checkpoints(path / "checkpoints", read_only=True)
    try:
        variables, _ = checkpoints.restore("best", jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), template))
    finally:
        checkpoints.close()
    words = {name: config.data[name] for name in ("image_size", "mean", "std", "crop_pct", "interpolation")}
    data_config = {**words, "in_channels": config.model.in_channels}
    return Classifier(config.model.name, model, variables, class_names, data_config, config, thresholds)


def from_name(name: str, checkpoint: str | None = None, weights: str | None = None) -> Classifier:
    """Returns a pretrained model by its timm name, with the weights of `checkpoint` (None: of the hub).

    `weights` is "ema" or "raw" where the file holds both.
    """
    loaded = pretrained.load(name, checkpoint, weights=weights)
    model: Any = loaded.model
    if model.num_classes < 1:
        raise UserError(f"{name} from {loaded.checkpoint.path} has no classifier, only features")
    names = class_names(loaded) or [f"class {i}" for i in range(model.num_classes)]
    return Classifier(name, model, loaded.variables, names, loaded.data_config)


def class_names(loaded: pretrained.Loaded) -> list[str] | None:
    """Returns the names that a weight file records, else ImageNet's where there are 1,000 classes, else None."""
    count: int = getattr(loaded.model, "num_classes", 0)
    names = loaded.checkpoint.config.get("label_names")
    if isinstance(names, list) and len(names) == count > 0 and all(isinstance(name, str) for name in names):
        return list(names)
    imagenet = [label for _, label in imagenet_classes()]
    return imagenet if count == len(imagenet) else None


def imagenet_classes() -> list[tuple[str, str]]:
    """Returns (synset, name) of the 1,000 ImageNet classes, in the order of the logits."""
    text = resources.files("jaxvit.data").joinpath("imagenet_classes.json").read_text(encoding="utf-8")
    return [(synset, name) for synset, name in json.loads(text)]


def find_images(paths: Sequence[str]) -> list[Path]:
    """Returns the files named, and the images in the folders named, without hidden ones; UserError where none is."""
    found: list[Path] = []
    for text in paths:
        path = expand(text)
        if path.is_dir():
            inside = files.image_files(path)
            if not inside:
                raise UserError(f"no images in folder {text!r}; expected {formats.read_formats()} files")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no file {text!r}")
    return found


def read_images(paths: Sequence[Path], bad: list[tuple[str, str]]) -> Iterator[tuple[Path, Image.Image]]:
    """Yields (path, image) of the files that can be read; the others are added to `bad` as (path, why).

    Raises UserError at the end where none of them can be read.
    """
    before, said = len(bad), ""
    for path in paths:
        try:
            yield path, data.open_image(path)
        except UserError as error:
            said = said or str(error)
            bad.append((str(path), str(error).removeprefix(f"{path}: ").removeprefix("not a readable image: ")))
    if paths and len(bad) - before == len(paths):
        more = f"\nnor can the other {len(paths) - 1} be read" if len(paths) > 1 else ""
        raise UserError(said + more)


def say_skipped(bad: Sequence[tuple[str, str]], total: int, listed: Path | None = None) -> int:
    """Says which files could not be read; returns the exit code: 0, or 1 where they are more than 1 % of `total`.

    `listed` is a file for all of them, which is taken away where there are none.
    """
    if listed is not None:
        files.write_skipped(listed, bad)
    if not bad:
        return 0
    for name, why in bad[:SHOWN]:
        err.print(escape.terminal(f"skipped {name}: {why}"))
    more = f", {len(bad) - SHOWN} more than these" if len(bad) > SHOWN else ""
    err.print(f"{len(bad)} of {total} image files cannot be read{more}" + (f"; listed in {listed}" if listed else ""))
    return 1 if len(bad) > files.MAX_BAD * total else 0


def predict(
    classifier: Classifier, paths: Sequence[Path], batch_size: int = 32, bad: list[tuple[str, str]] | None = None
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields (path, probabilities [num_classes]) of the images that can be read, in order.

    The others are added to `bad` as (path, why); without that list, and where none can be read, a UserError is raised.
    """
    apply = jax.jit(lambda v, images: classifier.to_probabilities(classifier.model.apply(v, images)))
    size = min(batch_size, len(paths))
    with bar("predicting", len(paths)) as meter:
        images = ((p, data.open_image(p)) for p in paths) if bad is None else read_images(paths, bad)
        ready = ((path, data.preprocess(image, classifier.data_config)) for path, image in images)
        chunks = iter(lambda: list(itertools.islice(ready, size)), [])
        results = (
            ([path for path, _ in chunk], apply(classifier.variables, filled(np.stack([x for _, x in chunk]), size)))
            for chunk in chunks
        )
        for done, probabilities in fetched(results):  # files are decoded while the device computes
            yield from zip(done, probabilities[: len(done)], strict=True)
            meter.advance(len(done))


def filled(images: np.ndarray, size: int) -> np.ndarray:
    """Images [k, ...] -> [size, ...], the last one repeated: batches of one shape compile one program."""
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])


class Evaluation(NamedTuple):
    """Metrics over the images of a split that could be read."""

    metrics: dict[str, float]
    images: int
    split: str  # "train", "val", "test" or "all"
    of: int  # images of the whole data set


def evaluate_split(
    classifier: Classifier,
    split_name: str | None = None,
    *,
    data_name: str | None = None,
    batch_size: int = 64,
    limit: int | None = None,
    data_dir: str | None = None,
    columns: str | None = None,
) -> Evaluation:
    """Returns the metrics of a classifier on a split of its own run's data, or of `data_name`.

    Without a `split_name` this is the test split of a run's own data. Of other data it is their own test split, or
    else validation split, or else all images: one held out of the training images has no meaning for a model that was
    trained on others. The classes of other data are matched by `match_classes`. `limit`: at most so many images, drawn
    as `data.test_limit` draws them. `columns`: as `data.columns`, of a label file.
    """
    config = copy.deepcopy(classifier.config) if classifier.config is not None else config_lib.default()
    foreign = data_name is not None and (classifier.config is None or not same_data(data_name, config.data.name))
    with config.unlocked(), config.ignore_type():
        config.data.update({k: v for k, v in classifier.data_config.items() if k in config.data})
        config.data.image_size = tuple(classifier.data_config["image_size"])
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
    dataset = parts.load_data(config, class_names=classifier.class_names, to_train=not foreign)
    splits = {split.name: split for split in (dataset.train, dataset.val, dataset.test)}
    if foreign:
        for note in dataset.notes:
            err.print(f"data   {note}")
    if split_name is None:
        own = [name for name in ("test", "val") if name in splits and len(splits[name]) and name not in dataset.drawn]
        split_name = (own[0] if own else "all") if foreign else "test"
    split = together(list(splits.values())) if split_name == "all" else splits[split_name]
    if not len(split):
        raise UserError(f"{config.data.name} has no images in its {split_name} split")
    if limit is not None:
        split = some(split, limit)
    to_label = match_classes(classifier, dataset.class_names)
    split = dataclasses.replace(split, labels=model_labels(classifier, split.labels, to_label, config.data.name))
    pixels = steps.Pixels(
        to_float=parts.make_to_float(classifier.data_config["in_channels"]),
        normalise=parts.make_normalise(*(config.data[w] for w in ("image_size", "interpolation", "mean", "std"))),
    )
    feed = parts.make_feed(config, split, crop_mode=classifier.data_config.get("crop_mode", "center"))
    size = min(batch_size, len(split))
    with bar(f"evaluating {split_name}", math.ceil(len(split) / size) * size) as meter:
        metrics, *_ = evaluate(
            jax.jit(steps.make_eval_step(model=classifier.model, pixels=pixels)),
            classifier.variables,
            feed,
            size,
            labels=split.labels,
            thresholds=multi_label.USUAL if classifier.thresholds is None else classifier.thresholds,
            progress=lambda done: meter.advance(size),
        )
    return Evaluation(metrics, len(split) - len(feed.unreadable), split_name, sum(map(len, splits.values())))


def model_labels(classifier: Classifier, labels: np.ndarray, to_label: np.ndarray, name: str) -> np.ndarray:
    """Labels of a data set as those of the model, whose label for each of its classes is `to_label` int [classes]."""
    if not classifier.several and labels.ndim == 1:
        return to_label[labels]
    if not classifier.several:
        raise UserError(f"{name} has several labels per image; {classifier.name} was trained to answer with one")
    indicators = multi_label.as_indicators(labels, len(to_label))
    found = np.zeros((len(labels), len(classifier.class_names)), np.uint8)
    for i, k in enumerate(to_label):
        found[:, k] |= indicators[:, i]
    return found


def same_data(a: str, b: str) -> bool:
    """Whether two data names mean the same files: a folder may be written in several ways."""

    def place(name: str) -> str:
        kind, colon, path = name.partition(":")
        return f"{kind}:{expand(path).resolve()}" if colon and kind in ("folder", "npz", *LABEL_FILES, "hf") else name

    return place(a) == place(b)


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
            err.print(f"the data's classes are numbers: they count as the model's labels, 0 as {own[0]!r}")
        return np.asarray(numbers, np.int32)
    if alien and unnamed:
        first = ", ".join(f"{i} is {name!r}" for i, name in enumerate(names[:3]))
        more = ", ..." if len(names) > 3 else ""
        err.print(f"the model's classes have no names: matched by position in the order of the data, {first}{more}")
        return np.arange(len(own), dtype=np.int32)
    missing = names[found.index(None)]
    said = f"class {missing!r} of the data is none of the model's {len(own)} ({own[0]!r}, {own[-1]!r}, ...)"
    if is_number(missing):
        said += f"\nnumbers count as its labels only where they are exactly 0 to {len(own) - 1}"
    raise UserError(said)


def _label(name: str, *tables: dict[str, list[int]]) -> int | None:
    """The model's label of a name: written alike, else alike but for case and underscores, else by synset."""
    exact, known, synsets = tables
    synset = re.match(r"n\d{8}(?![0-9])", name)
    for table, key in ((exact, name), (synsets, synset.group() if synset else ""), (known, _plain(name))):
        labels = table.get(key, [])
        if len(labels) > 1:
            raise UserError(
                f"class {name!r} of the data is two of the model's, {labels[0]} and {labels[1]}\n"
                "expected folders named by synset, or all of them by label"
            )
        if labels:
            return labels[0]
    return None


def _plain(name: str) -> str:
    name = name.replace("_", " ").casefold()
    return str(int(name)) if is_number(name) else name
