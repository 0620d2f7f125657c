"""ImageNet-ReaL: the validation images with all classes that people saw there (Beyer et al. 2020, arXiv:2006.07159)."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxvit.data import imagenet
from jaxvit.errors import UserError
from jaxvit.runtime.paths import expand

SYNSETS = [synset for synset, _ in imagenet.classes()]


def read(file: str, to_label: np.ndarray) -> list[np.ndarray]:
    """Returns the model's labels of each validation image, 50,000 arrays; some are empty.

    `file` is the authors' real.json: a list of ImageNet's labels for each image, in the order of the images' numbers.
    `to_label`: int [1000], the model's label for each of them.

    Raises:
      UserError: the file is missing or holds something else.
    """
    path = expand(file)
    found: Any = None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--real-labels {file}: cannot be read ({error.strerror}); expected real.json") from None
    except ValueError:
        pass
    good = isinstance(found, list) and len(found) == imagenet.NUM_VAL
    if not good or not all(isinstance(one, list) and all(_is_label(label) for label in one) for one in found):
        raise UserError(
            f"--real-labels {file}: not the labels of ImageNet-ReaL\n"
            f"expected real.json: a list of {imagenet.NUM_VAL:,} lists of labels from 0 to {len(SYNSETS) - 1}"
        )
    return [to_label[np.array(one, np.int64)] for one in found]


def _is_label(value: object) -> bool:
    return type(value) is int and 0 <= value < len(SYNSETS)


def numbers(names: Iterable[str]) -> np.ndarray:
    """Returns the numbers of validation images, from 1, by their names, int64 [n].

    Raises:
      UserError: a name without one.
    """
    found = []
    for name in names:
        number = imagenet.val_number(name)
        if number is None or not 0 < number <= imagenet.NUM_VAL:
            raise UserError(
                f"--real-labels: the image {str(name)!r} is not one of ImageNet's validation images\n"
                "expected names that contain ILSVRC2012_val_00000001 or another number up to 50,000"
            )
        found.append(number)
    return np.array(found, np.int64)


def scores(logits: np.ndarray, images: np.ndarray, sets: list[np.ndarray]) -> dict[str, float]:
    """Returns `real_accuracy`, `real_top5_accuracy` and `real_images`, of logits [n, num_classes] by image number [n].

    An image is right if its most probable class, or one of five, is among its labels; images without labels do not
    count, as the authors and timm have it.

    Raises:
      UserError: no image has labels.
    """
    hits = np.zeros(2)
    count = 0
    for row, number in zip(np.argsort(-logits, axis=-1, kind="stable")[:, :5], images, strict=True):
        if len(labels := sets[number - 1]):
            right = np.isin(row, labels)
            hits += right[0], right.any()
            count += 1
    if not count:
        raise UserError("--real-labels: none of the images has labels; expected more images")
    return {"real_accuracy": hits[0] / count, "real_top5_accuracy": hits[1] / count, "real_images": count}
