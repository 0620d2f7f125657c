"""Known images against unknown ones: the scores of a classifier on both, and how well each tells them apart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvit import inference
from jaxvit.confidence import unknown
from jaxvit.config.checks import reads
from jaxvit.errors import UserError
from jaxvit.explain import without_classifier
from jaxvit.inference import Classifier, OpenSplit
from jaxvit.inference.splits import check_read, same_data
from jaxvit.runtime import escape, files
from jaxvit.runtime.console import bar, warn
from jaxvit.runtime.late import fetched
from jaxvit.workdir import run_files

BINS = 40  # of the histograms
COLUMNS = ("images", "image", "label", "name")


class Outputs(NamedTuple):
    """The outputs of a model for the readable images of a split."""

    logits: np.ndarray  # float32 [n, num_classes]
    features: np.ndarray  # float32 [n, d], pooled, before the classifier
    names: np.ndarray  # str [n]


class Comparison(NamedTuple):
    """What `compare` finds."""

    report: dict[str, Any]  # of the JSON file
    rows: list[tuple[Any, ...]]  # of the CSV file, an image each


def make_apply(classifier: Classifier, pixels: Any) -> Any:
    """Returns a compiled function: (variables, stored images) -> logits and pooled features."""
    model = classifier.model
    headless = without_classifier(model)

    def apply(variables: Any, images: Any) -> Any:  # the compiler computes what both have in common once
        images = pixels.normalise(pixels.to_float(images))
        return model.apply(variables, images), headless.apply(variables, images)

    return jax.jit(apply)


def outputs(apply: Any, classifier: Classifier, opened: OpenSplit, size: int, what: str) -> Outputs:
    """Returns logits and pooled features of the images that can be read, with a bar called `what`.

    Args:
      apply: of `make_apply`.
      classifier: whose variables it reads.
      opened: the split.
      size: images a step, the last ones padded.
      what: the images are, for a person.
    """

    def results() -> Iterator[Any]:
        for batch in opened.feed.batches(np.arange(len(opened.split)), size, pad=True):
            yield (*apply(classifier.variables, batch["image"]), batch["mask"])

    logits, features, masks = [], [], []
    with bar(what, len(opened.split)) as meter:
        for some_logits, some_features, mask in fetched(results()):
            logits.append(np.asarray(some_logits, np.float32)[mask])
            features.append(np.asarray(some_features, np.float32)[mask])
            masks.append(mask)
            meter.advance(int(mask.sum()))
    places = np.flatnonzero(np.concatenate(masks))
    return Outputs(np.concatenate(logits), np.concatenate(features), np.asarray(opened.split.image_names(places)))


def compare(
    classifier: Classifier,
    unknown_name: str,
    *,
    split_name: str | None = None,
    data_name: str | None = None,
    batch_size: int = 64,
    limit: int | None = None,
    neighbours: int | None = None,
    data_dir: str | None = None,
    columns: str | None = None,
) -> Comparison:
    """Returns the scores of known and unknown images, and AUROC and FPR at 95 % TPR of each score.

    Args:
      classifier: whose scores they are. One of a run has its training images as neighbours; a named model has none.
      unknown_name: a data source. All images below a folder are read, whatever its subfolders are called; of other
        sources their own test or validation split, or else all images.
      split_name: of the known images, as in `inference.evaluate_split`; `data_name`, `data_dir` too.
      data_name: see `split_name`.
      batch_size: images a step.
      limit: the largest number of known, unknown and training images each.
      neighbours: k of the k-th nearest training image; None: 50, or as many as there are.
      data_dir: see `split_name`.
      columns: of `unknown_name` and `data_name`, where these are label files.

    Raises:
      UserError: data that are not there, an empty folder, unknown images that are the known ones.
    """
    own = None if classifier.config is None else classifier.config.data.name
    for known in filter(None, (data_name or own, own)):
        if same_data(unknown_name, known):
            raise UserError(f"{unknown_name!r} are the known images; expected images of classes that are not known")
    kind, _, path = unknown_name.partition(":")
    given = [unknown_name, *filter(None, [data_name])]  # the run's own data have the run's own columns
    check_read(given, columns=columns)
    check_read([*given, *filter(None, [own])], data_dir=data_dir)

    def options(name: str | None) -> dict[str, Any]:
        """What the data set reads, of the run's own for None."""
        return {
            "limit": limit,
            "data_dir": data_dir if reads(name or str(own), "dir") else None,
            "columns": columns if name is not None and reads(name, "columns") else None,
        }

    if kind == "folder":
        other = inference.open_folder(classifier, path, limit)
    else:
        other = inference.open_split(classifier, data_name=unknown_name, labelled=False, **options(unknown_name))
    here = inference.open_split(classifier, split_name, data_name=data_name, **options(data_name))
    apply = make_apply(classifier, here.pixels)
    both = [
        outputs(apply, classifier, opened, batch_size, what)
        for opened, what in ((here, "known images"), (other, "unknown images"))
    ]
    several = classifier.several
    found = {
        "max_sigmoid" if several else "max_softmax": [unknown.max_probability(o.logits, several=several) for o in both],
        "energy": [unknown.energy(o.logits, several=several) for o in both],
    }
    facts: dict[str, Any] = {}
    if own is None:
        warn("no kNN score: a named model has no training images, only a run has them")
    else:
        train = inference.open_split(classifier, "train", **options(None))
        reference = outputs(apply, classifier, train, batch_size, "training images").features
        k = min(unknown.NEIGHBOURS, len(reference)) if neighbours is None else neighbours
        with bar("nearest neighbours", sum(len(o.features) for o in both)) as meter:
            found["knn"] = [unknown.knn(o.features, reference, k, meter.advance) for o in both]
        facts = {"neighbours": k, "train_images": len(reference)}
    report = {
        "model": classifier.name,
        "temperature": classifier.temperature,
        "known": {"data": data_name or own, "split": here.name, "images": len(both[0].logits)},
        "unknown": {"data": unknown_name, "split": other.name, "images": len(both[1].logits)},
        **facts,
        "scores": {name: _figures(*scores) for name, scores in found.items()},
    }
    return Comparison(report, _rows(classifier, both, found))


def _figures(known: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """What the JSON file says of a score; the ends of its histograms hold what lies beyond."""
    auroc, fpr, threshold = unknown.detect(known, other)
    low, high = np.percentile(np.concatenate([known, other]), (0.5, 99.5))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts = [np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0].tolist() for scores in (known, other)]
    histogram = {"edges": edges.tolist(), "known": counts[0], "unknown": counts[1]}
    return {"auroc": auroc, "fpr_at_95_tpr": fpr, "threshold": threshold, "histogram": histogram}


def _rows(classifier: Classifier, both: list[Outputs], found: dict[str, list[np.ndarray]]) -> list[tuple[Any, ...]]:
    rows, names = [], classifier.shown_names
    for which, (what, output) in enumerate(zip(("known", "unknown"), both, strict=True)):
        labels = output.logits.argmax(axis=-1)
        for i, (name, label) in enumerate(zip(output.names, labels, strict=True)):
            scores = (float(of[which][i]) for of in found.values())
            rows.append((what, str(name), int(label), names[label], *scores))
    return rows


def write(found: Comparison, directory: Path, picture: bytes) -> list[Path]:
    """Writes NAME.json, NAME.csv (the scores of each image) and NAME.png, named by the unknown data; returns them."""
    kind, _, rest = found.report["unknown"]["data"].partition(":")
    stem = escape.file_name("_".join(filter(None, (kind, Path(rest).name))))
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{stem}.{end}" for end in ("json", "csv", "png")]
    columns = (*COLUMNS, *found.report["scores"])
    contents = (run_files.json_bytes(found.report), escape.csv_bytes(columns, found.rows), picture)
    for path, content in zip(paths, contents, strict=True):
        files.write(path, content)
    return paths
