"""Weights of several models averaged into one: all of them, or greedily those that help (Wortsman et al., 2022)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvit.combine import batch_norm
from jaxvit.combine.ensemble import check_classes, mean_thresholds
from jaxvit.combine.gain import Gain, measure_gain, scores
from jaxvit.combine.passes import Member, check_same_data, check_same_images
from jaxvit.errors import UserError
from jaxvit.inference import SplitReader, open_split
from jaxvit.models.registry import split_tag
from jaxvit.step import multi_label
from jaxvit.tree import named_leaves


class Ingredient(NamedTuple):
    """A model that was offered, and what became of it."""

    label: str
    kept: bool
    chosen_by: float | None  # accuracy, or mAP, on validation; None where nothing is chosen
    tested: dict[str, float]  # metrics; {} without data


class Average(NamedTuple):
    """Averaged weights, and what they gain over the best ingredient."""

    variables: Any
    thresholds: np.ndarray | None
    ingredients: list[Ingredient]
    validated: float | None
    tested: dict[str, float]
    gain: Gain | None
    best: str  # the label of the ingredient that the gain is over
    images: str  # of the test, "450 images of digits (test)"


def check_alike(members: Sequence[Member]) -> None:
    """Raises UserError for models that cannot be averaged: other names, fields, shapes, classes or preprocessing."""
    first = members[0]
    check_classes(members)
    for other in members[1:]:
        a, b, both = first.classifier, other.classifier, f"{first.label} and {other.label}"
        if split_tag(a.name)[0] != split_tag(b.name)[0]:
            raise UserError(
                f"{both} are different models ({a.name}, {b.name}); an average needs models of the same shapes"
            )
        shapes, others = ({k: np.shape(v) for k, v in named_leaves(c.variables).items()} for c in (a, b))
        for name in [*shapes, *others]:
            if shapes.get(name) != others.get(name):
                said = f"{name} is {shapes.get(name, 'missing')} and {others.get(name, 'missing')}"
                raise UserError(f"{both} have different shapes: {said}")
        for field in dataclasses.fields(a.model):
            x, y = (getattr(c.model, field.name, None) for c in (a, b))
            if field.name not in ("parent", "name", "dtype") and not field.name.endswith("_rate") and x != y:
                raise UserError(f"{both} have different models: {field.name} is {x} and {y}")
        if a.class_names != b.class_names:
            raise UserError(f"{both} have their classes in a different order, so their heads cannot be averaged")
        for word, value in a.data_config.items():
            if _plain(value) != _plain(b.data_config.get(word)):
                said = f"{word} {_plain(value)} and {_plain(b.data_config.get(word))}"
                raise UserError(f"{both} take images with different preprocessing: {said}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def mean(trees: Sequence[Any]) -> Any:
    """The mean of each leaf, in float64 and back."""
    return jax.tree.map(lambda *x: np.mean([np.asarray(v, np.float64) for v in x], axis=0).astype(x[0].dtype), *trees)


def make(members: Sequence[Member], *, greedy: bool, batch_size: int = 64, **data: Any) -> Average:
    """Averages members; with `greedy` those that help on the validation split, the best first.

    `data` are arguments of `open_split`: without a `data_name` those of the runs. Statistics of BatchNorm are estimated
    again on the training split. Without any data nothing is measured.

    Raises:
      UserError: members that cannot be averaged, that have seen each other's images, or data that are missing.
    """
    check_alike(members)
    first = members[0].classifier
    known = data.get("data_name") is not None or all(m.classifier.config is not None for m in members)
    if not known and (greedy or batch_norm.has_statistics(first.variables)):
        why = "a soup is chosen on validation images" if greedy else "its BatchNorm needs training images"
        raise UserError(f"no --data NAME: {why}")
    if not known:
        found = [Ingredient(m.label, True, None, {}) for m in members]
        weights = mean([m.classifier.variables for m in members])
        return Average(weights, mean_thresholds(members), found, None, {}, None, "", "")
    if data.get("data_name") is None:
        for member in members[1:]:
            check_same_data(members[0], member)
    test_name = "test" if greedy or data.get("data_name") is None else None
    tested = _Split(members, test_name, batch_size, data)
    blend = _blender(members, batch_size, data)
    validation = _Split(members, "val", batch_size, data) if greedy else None
    kept, values, weights, value = list(range(len(members))), None, None, None
    if validation is not None:
        values = [validation.score(m.classifier.variables) for m in members]
        kept, weights, value = greedy_soup(values, blend, validation.score)
    weights = blend(kept) if weights is None else weights
    thresholds = mean_thresholds([members[i] for i in kept])
    if thresholds is not None and validation is not None:
        thresholds = multi_label.choose_thresholds(*validation.logits(weights))
    logits = [tested.logits(m.classifier.variables) for m in members]
    after, labels = tested.logits(weights)
    metrics = [scores(x, y, _usual(m.classifier.thresholds)) for m, (x, y) in zip(members, logits, strict=True)]
    chosen = values or [each[tested.figure] for each in metrics]
    best = int(np.argmax(chosen))
    found = [
        Ingredient(m.label, i in kept, None if values is None else values[i], metrics[i]) for i, m in enumerate(members)
    ]
    gain = measure_gain(logits[best][0], after, labels)
    metrics_after = scores(after, labels, _usual(thresholds))
    return Average(weights, thresholds, found, value, metrics_after, gain, members[best].label, tested.images)


def greedy_soup(
    values: Sequence[float], blend: Callable[[list[int]], Any], score: Callable[[Any], float]
) -> tuple[list[int], Any, float]:
    """Returns (positions that are kept, the best first; their average; its score): recipe 1 of Wortsman et al. (2022).

    Args:
      values: of each ingredient on validation; equal ones are taken in their order.
      blend: the average of some of them, by position.
      score: of an average, on validation. An ingredient stays where the score does not fall.
    """
    order = [int(i) for i in np.argsort(-np.asarray(values), kind="stable")]
    kept, best, weights = order[:1], values[order[0]], blend(order[:1])
    for i in order[1:]:
        trial = blend([*kept, i])
        value = score(trial)
        if value >= best:
            kept, best, weights = [*kept, i], value, trial
    return kept, weights, best


def _blender(members: Sequence[Member], batch_size: int, data: dict[str, Any]) -> Callable[[list[int]], Any]:
    """A function from positions to the average, with statistics of BatchNorm; one model alone keeps its own."""
    first, opened = members[0].classifier, None

    def blend(chosen: list[int]) -> Any:
        nonlocal opened
        if len(chosen) == 1:
            return members[chosen[0]].classifier.variables
        weights = mean([members[i].classifier.variables for i in chosen])
        if not batch_norm.has_statistics(weights):
            return weights
        opened = open_split(first, "train", **data) if opened is None else opened
        return batch_norm.update(first.model, weights, opened, batch_size)

    return blend


class _Split:
    """A split that all members are measured on."""

    def __init__(self, members: Sequence[Member], name: str | None, batch_size: int, data: dict[str, Any]):
        first = members[0].classifier
        opened = [open_split(m.classifier, name, **data) for m in members]
        check_same_images(members, opened)
        self._opened, self._read = opened[0], SplitReader(first, opened[0], batch_size)
        self.figure = "mAP" if first.several else "accuracy"
        source = data.get("data_name") or first.config.data.name  # type: ignore[union-attr]
        self.images = f"{len(opened[0].split):,} images of {source} ({opened[0].name})"

    def logits(self, variables: Any) -> tuple[np.ndarray, np.ndarray]:
        """Logits [n, num_classes] and labels of the images that can be read."""
        _, logits, places = self._read(variables)
        return logits, self._opened.split.labels[places]

    def score(self, variables: Any) -> float:
        """Accuracy, or of several labels mAP."""
        return scores(*self.logits(variables))[self.figure]


def _usual(thresholds: np.ndarray | None) -> np.ndarray | float:
    return multi_label.USUAL if thresholds is None else thresholds
