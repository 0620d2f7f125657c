"""Images of any kind through a classifier, in batches of one shape."""

import os
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxvit import data
from jaxvit.build import parts
from jaxvit.data.sources.npz import as_images
from jaxvit.errors import UserError, check_whole
from jaxvit.runtime.paths import expand


def probabilities(classifier: Any, images: Any, batch_size: int = 32) -> np.ndarray:
    """Probabilities of images, float32 [n, num_classes].

    Args:
      classifier: a `Classifier`, of a run or a name.
      images: an array [n, h, w, c], uint8 or float in [0, 1], which is scaled whole as a run's own arrays are; or files
        and PIL images, one or several, which are cropped as photos are.
      batch_size: images at once.

    Raises:
      UserError: a file that cannot be read, what is neither, or a batch of no size.
    """
    check_whole("batch_size", batch_size)
    words = classifier.data_config
    if isinstance(images, np.ndarray | jax.Array):
        arrays: Any = as_images("images", np.asarray(images))
        to_float = parts.make_to_float(words["in_channels"])
        scaled = parts.make_normalise(*(words[w] for w in ("image_size", "interpolation", "mean", "std")))

        def prepare(x: Any) -> Any:
            return scaled(to_float(x))
    else:
        several = list(images) if isinstance(images, list | tuple) else [images]
        strange = [x for x in several if not isinstance(x, str | os.PathLike | Image.Image)]
        if strange:
            raise UserError(f"{type(strange[0]).__name__} is not an image; expected files, PIL images or an array")
        opened = (x if isinstance(x, Image.Image) else data.open_image(expand(x)) for x in several)
        arrays = [data.preprocess(x, words) for x in opened]

        def prepare(x: Any) -> Any:
            return x

    if not len(arrays):
        return np.zeros((0, len(classifier.class_names)), np.float32)
    size = min(batch_size, len(arrays))
    apply = jax.jit(lambda v, x: classifier.to_probabilities(classifier.model.apply(v, prepare(x))))
    batches = [np.stack(arrays[i : i + size]) for i in range(0, len(arrays), size)]
    made = [np.asarray(apply(classifier.variables, filled(batch, size)))[: len(batch)] for batch in batches]
    return np.concatenate(made)


def filled(images: np.ndarray, size: int) -> np.ndarray:
    """Images [k, ...] -> [size, ...], the last one repeated: batches of one shape compile one program."""
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])
