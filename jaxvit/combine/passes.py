"""Members, the images that they are tested on, and passes over those."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxvit.errors import UserError
from jaxvit.inference import Classifier, OpenSplit, SplitReader, splits


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
            "expected runs of the same data, or --data NAME with images that none of them was trained on"
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
        "one would be tested on training images of the other; expected runs of the same split, or --data NAME"
    )


def logits_of(classifier: Classifier, opened: OpenSplit, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [n, num_classes] of the images that can be read, and their positions in the split, int [n]."""
    _, logits, places = SplitReader(classifier, opened, batch_size)(classifier.variables)
    return logits, places
