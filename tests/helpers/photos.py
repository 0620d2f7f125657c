"""Pieces of the two photographs that come with scikit-learn; pictures of any size, and JPEG files of them."""

import functools
import io

import numpy as np
from PIL import Image


@functools.cache
def photos(b: int = 6, h: int = 40, w: int = 32) -> np.ndarray:
    """Returns uint8 [b, h, w, 3], pieces of both photographs at a quarter of their size; not square by default."""
    from sklearn.datasets import load_sample_images

    small = [np.asarray(image)[::4, ::4] for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    pieces = []
    for i in range(b):
        image = small[i % 2]
        top, left = rng.integers(0, image.shape[0] - h), rng.integers(0, image.shape[1] - w)
        pieces.append(image[top : top + h, left : left + w])
    pieces = np.stack(pieces)
    pieces.setflags(write=False)
    return pieces


def detailed(h: int = 90, w: int = 120, seed: int = 0, detail: int = 6) -> Image.Image:
    """A smooth random picture with something new about every `detail` pixels."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (h // detail + 1, w // detail + 1, 3), np.uint8))
    return small.resize((w, h), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options) -> bytes:
    """The bytes of a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 95, **options})
    return file.getvalue()
