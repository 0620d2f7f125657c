"""Members, the images that they are tested on, and passes over those."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvit.errors import UserError
from jaxvit.inference import Classifier, OpenSplit, splits
from jaxvit.runtime.console import bar
from jaxvit.step import steps
from jaxvit.step.evaluate import evaluate as run_steps


class Member(NamedTuple):
    """A classifier, and what it is called."""

    label: str
    classifier: Classifier


def check_same_data(first: Member, other: Member) -> None:
    """Raises UserError for runs of different data."""
    a, b = (m.classifier.config for m in (first, other))
    if a is not None and b is not None and not splits.same_data(a.data.name, b.data.name):
        raise UserError(
            f"{first.label} and {other.label} were trained on different data ({a.data.name}, {b.data.name})\n"
            "expected runs of the same data, or --data NAME with images that none of them has seen"
        )


def check_same_images(members: Sequence[Member], opened: Sequence[OpenSplit]) -> list[np.ndarray]:
    """The names of the images of each member's split, str [n] each. Raises UserError unless they are the same."""
    names = [each.split.image_names() for each in opened]
    for member, each, found in zip(members[1:], opened[1:], names[1:], strict=True):
        if not np.array_equal(np.sort(names[0]), np.sort(found)):
            raise other_images(members[0], member, each)
    return names


def other_images(first: Member, other: Member, opened: OpenSplit) -> UserError:
    """The error of two members whose splits hold different images."""
    words = ("data.fold", "seed", "data.fraction", "data.test_limit")
    a, b = (m.classifier.config for m in (first, other))
    differ = []
    for word in words if a is not None and b is not None else ():
        values = [config.data[word[5:]] if word.startswith("data.") else config[word] for config in (a, b)]  # type: ignore[index,union-attr]
        differ += [f"{word} {values[0]} and {values[1]}"] * (values[0] != values[1])
    why = f" ({', '.join(differ)})" if differ else ""
    return UserError(
        f"the {opened.name} images of {first.label} and {other.label} are not the same{why}\n"
        "one would be tested on images that the other was trained on; expected runs of one split, or --data NAME"
    )


class Reader:
    """Passes over a split, with the classifier's weights or others of the same shapes: compiled once."""

    def __init__(self, classifier: Classifier, opened: OpenSplit, batch_size: int):
        """`opened` was opened for this classifier."""
        self._opened, self._size = opened, min(batch_size, len(opened.split))
        self._step = jax.jit(steps.make_eval_step(model=classifier.model, pixels=opened.pixels))

    def __call__(self, variables: Any) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [n, num_classes] of the images that can be read, and their positions in the split, int [n]."""
        opened, size = self._opened, self._size
        with bar(f"evaluating {opened.name}", math.ceil(len(opened.split) / size) * size) as meter:
            _, logits, places = run_steps(
                self._step,
                variables,
                opened.feed,
                size,
                keep_logits=True,
                labels=opened.split.labels,
                progress=lambda done: meter.advance(size),
            )
        assert logits is not None and places is not None
        return logits, places


def logits_of(classifier: Classifier, opened: OpenSplit, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """One pass over a split with the classifier's own weights."""
    return Reader(classifier, opened, batch_size)(classifier.variables)
