"""Several classifiers as one: the mean of their probabilities on the same images."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvit.combine.gain import scores
from jaxvit.combine.mean import log_mean
from jaxvit.combine.passes import Member, check_same_data, check_same_images, logits_of, other_images
from jaxvit.combine.views import with_views
from jaxvit.errors import UserError
from jaxvit.inference import Classifier, OpenSplit, open_split
from jaxvit.inference import predict as predict_files
from jaxvit.step import multi_label


class Scored(NamedTuple):
    """A prediction of the images of a split that could be read."""

    label: str
    logits: np.ndarray  # float32 [n, num_classes], of the first member's classes in their order
    metrics: dict[str, float]


class Outcome(NamedTuple):
    """Members and ensemble on the same images."""

    members: list[Scored]
    whole: Scored
    labels: np.ndarray  # int [n], or 0 and 1 [n, num_classes]
    split: str
    of: int  # images of the whole data set


def check_classes(members: Sequence[Member]) -> None:
    """Raises UserError for members whose classes are not the same."""
    for other in members[1:]:
        _order_of_classes(members[0], other)


def _order_of_classes(first: Member, other: Member) -> np.ndarray:
    """Where the first member's classes stand among the other's, int [num_classes]."""
    a, b = first.classifier, other.classifier
    if a.several != b.several:
        kinds = [f"{m.label} has {'several labels' if m.classifier.several else 'one label'}" for m in (first, other)]
        raise UserError(f"{' per image, '.join(kinds)}; expected members of the same kind")
    missing = [name for name in a.class_names if name not in b.class_names]
    missing += [name for name in b.class_names if name not in a.class_names]
    if missing or len(a.class_names) != len(b.class_names):
        said = f": {missing[0]!r} is a class of only one of them" if missing else ""
        counts = f"{len(a.class_names)} and {len(b.class_names)}"
        raise UserError(f"{first.label} and {other.label} have different classes ({counts}){said}")
    if a.class_names == b.class_names:
        return np.arange(len(a.class_names))
    return np.array([b.class_names.index(name) for name in a.class_names])


def mean_thresholds(members: Sequence[Member]) -> np.ndarray | None:
    """Of several labels per image: the mean of the members' thresholds, in the order of the first one's classes."""
    if not members[0].classifier.several:
        return None
    found = [m.classifier.thresholds[_order_of_classes(members[0], m)] for m in members]  # type: ignore[index]
    return np.mean(found, axis=0)


def evaluate(
    members: Sequence[Member],
    split_name: str | None = None,
    *,
    tta: str | None = None,
    batch_size: int = 64,
    **data: Any,
) -> Outcome:
    """Returns the metrics of each member and of the mean of their probabilities, on the same images.

    Each member reads them with its own preprocessing; `tta` is a form of `views`. `data` are arguments of `open_split`.

    Raises:
      UserError: members of different classes, or whose splits have different images.
    """
    first = members[0]
    orders = [_order_of_classes(first, member) for member in members]
    if data.get("data_name") is None:
        for member in members[1:]:
            check_same_data(first, member)
    data = {**data, "class_order": first.classifier.class_names}  # draws of images go by the labels: one order for all
    opened = [open_split(member.classifier, split_name, **data) for member in members]
    names = check_same_images(members, opened)
    read = [
        _read(member, each, tta, split_name, batch_size, data) for member, each in zip(members, opened, strict=True)
    ]
    common = set.intersection(*(set(names[i][places]) for i, (_, places) in enumerate(read)))
    kept = [[j for j, place in enumerate(places) if names[i][place] in common] for i, (_, places) in enumerate(read)]
    rows = []
    for i, (logits, places) in enumerate(read):
        by_name = sorted(kept[i], key=lambda j: names[i][places[j]])
        labels = opened[i].split.labels[places[by_name]]
        if labels.ndim == 2:
            labels = labels[:, orders[i]]
        else:
            labels = np.argsort(orders[i])[labels]
        rows.append((logits[by_name][:, orders[i]], labels))
        if not np.array_equal(labels, rows[0][1]):
            raise other_images(first, members[i], opened[i])
    labels = rows[0][1]
    found = [
        Scored(member.label, logits, scores(logits, labels, _usual(first.classifier.thresholds)))
        for member, (logits, _) in zip(members, rows, strict=True)
    ]
    whole = np.asarray(log_mean(jax.numpy.stack([each.logits for each in found]), first.classifier.several))
    ensemble = Scored("ensemble", whole, scores(whole, labels, _usual(mean_thresholds(members))))
    return Outcome(found, ensemble, labels, opened[0].name, opened[0].of)


def evaluate_views(
    member: Member, split_name: str | None = None, *, tta: str, batch_size: int = 64, **data: Any
) -> Outcome:
    """Returns the metrics of a classifier without and with its views, on the same images; as `evaluate` otherwise."""
    opened = open_split(member.classifier, split_name, **data)
    plain = logits_of(member.classifier, opened, batch_size)
    viewed = _read(member, opened, tta, split_name, batch_size, data)
    places, a, b = np.intersect1d(plain[1], viewed[1], return_indices=True)
    labels, thresholds = opened.split.labels[places], _usual(member.classifier.thresholds)
    one, several = plain[0][a], viewed[0][b]
    before = Scored("one view", one, scores(one, labels, thresholds))
    after = Scored(tta, several, scores(several, labels, thresholds))
    return Outcome([before], after, labels, opened.name, opened.of)


def _usual(thresholds: np.ndarray | None) -> np.ndarray | float:
    return multi_label.USUAL if thresholds is None else thresholds


def _read(
    member: Member, opened: OpenSplit, tta: str | None, split_name: str | None, batch_size: int, data: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [n, num_classes] and the positions in the split that they are of, int [n]."""
    files = opened.split.images is None
    classifier = with_views(member.classifier, tta, wide=files)
    if classifier.data_config["image_size"] != member.classifier.data_config["image_size"]:
        opened = open_split(classifier, split_name, **data)
    return logits_of(classifier, opened, batch_size)


def predict(
    members: Sequence[Member],
    paths: Sequence[Path],
    batch_size: int = 32,
    bad: list[tuple[str, str]] | None = None,
    tta: str | None = None,
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields (path, mean probabilities [num_classes]) in the order of the first member's classes; see `predict`."""
    total: list[tuple[Path, np.ndarray]] = []
    for member in members:
        order, skipped = _order_of_classes(members[0], member), []
        classifier = with_views(member.classifier, tta, wide=True)
        found = predict_files(classifier, paths, batch_size, None if bad is None else skipped)
        ordered = [(path, np.asarray(values, np.float64)[order]) for path, values in found]
        total = [(path, a + b) for (path, a), (_, b) in zip(total, ordered, strict=True)] if total else ordered
        if bad is not None and member is members[-1]:
            bad += skipped
    yield from ((path, values / len(members)) for path, values in total)


def ensemble_of(members: Sequence[Member]) -> Classifier:
    """The first member, with the thresholds of the whole: what reads names and thresholds reads it."""
    first = members[0].classifier
    if len(members) == 1:
        return first
    return dataclasses.replace(first, name=f"ensemble of {len(members)}", thresholds=mean_thresholds(members))
