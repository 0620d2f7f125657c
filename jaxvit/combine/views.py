"""Test-time augmentation: a model is asked about several views of an image, and the probabilities are averaged.

`flip`: the image and its mirror image. `crops`: centre and four corners, each with its mirror image, the ten crops of
Krizhevsky et al. (2012).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.combine.mean import log_mean
from jaxvit.inference import Classifier
from jaxvit.ops import loops

FORMS = {"flip": 2, "crops": 10}  # forward passes
SHARE = 0.875  # side of a crop, of the picture that it is cut from: 224 of 256 pixels


@dataclasses.dataclass(frozen=True)
class Views:
    """Stands where a model stands: its `apply` gives logits of the mean probability over the views."""

    model: Any  # a linen module
    form: str
    size: tuple[int, int]  # (height, width) that the model takes
    several: bool

    def apply(self, variables: Any, images: jax.Array) -> jax.Array:
        """Normalised images [b, h, w, c] -> logits [b, num_classes]; for `crops` they may be larger than `size`."""

        def one(carry: None, view: jax.Array) -> tuple[None, jax.Array]:
            return carry, self.model.apply(variables, view)

        _, logits = loops.scan(one, None, views(images, self.form, self.size))
        return log_mean(logits, self.several)


def views(images: jax.Array, form: str, size: tuple[int, int]) -> jax.Array:
    """Images [b, h, w, c] -> their views [v, b, *size, c], the plain image first.

    Crops of an image that has no more than `size` are cut from the image mirrored at its edges, an eighth wider.
    """
    cut = [images]
    if form == "crops":
        pads = [(round(s / SHARE) - s + 1) // 2 if n <= s else 0 for n, s in zip(images.shape[1:3], size, strict=True)]
        images = jnp.pad(images, ((0, 0), *((p, p) for p in pads), (0, 0)), mode="symmetric")
        down, across = (n - s for n, s in zip(images.shape[1:3], size, strict=True))
        corners = [(down // 2, across // 2), (0, 0), (0, across), (down, 0), (down, across)]
        cut = [images[:, y : y + size[0], x : x + size[1]] for y, x in corners]
    return jnp.stack([view for image in cut for view in (image, image[:, :, ::-1])])


def with_views(classifier: Classifier, form: str | None, *, wide: bool = False) -> Classifier:
    """A classifier that answers by its views; None as the form is the classifier itself.

    `wide`: it is given files, from which crops are cut beyond what plain evaluation reads.
    """
    if form is None:
        return classifier
    size: tuple[int, int] = tuple(classifier.data_config["image_size"])
    model, words = Views(classifier.model, form, size, classifier.several), dict(classifier.data_config)
    if form == "crops" and wide:
        share = min(words.get("crop_pct") or SHARE, SHARE)
        words |= {"image_size": tuple(round(s / share) for s in size), "crop_pct": 1.0}
    return dataclasses.replace(classifier, model=model, data_config=words)
