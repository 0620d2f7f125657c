"""Pieces of the two photographs that come with scikit-learn."""

import functools

import numpy as np


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
