"""Convolutions of many shapes."""

import jax.numpy as jnp
import numpy as np

CASES = {  # batch, height, width, channels, features, side of the kernel, stride, padding, groups
    "winograd": (2, 10, 9, 16, 24, 3, 1, 1, 1),
    "few pixels": (1, 5, 4, 16, 16, 3, 1, 1, 1),
    "few channels": (2, 9, 9, 3, 16, 3, 1, 1, 1),
    "strided": (2, 11, 10, 16, 16, 3, 2, 1, 1),
    "stem": (2, 23, 20, 3, 16, 7, 2, 3, 1),
    "5x5": (2, 12, 12, 16, 16, 5, 1, 2, 1),
    "no padding": (2, 12, 12, 16, 16, 3, 1, 0, 1),
    "grouped": (2, 9, 10, 64, 96, 3, 1, 1, 16),
    "grouped, strided": (2, 9, 10, 48, 24, 3, 2, 1, 6),
    "each channel alone": (2, 9, 10, 20, 20, 3, 1, 1, 20),
    "winograd, some images at a time": (6, 10, 9, 16, 24, 3, 1, 1, 1),
    "stem, some images at a time": (3, 23, 20, 3, 16, 7, 2, 3, 1),
    "grouped, some images at a time": (4, 9, 10, 64, 96, 3, 1, 1, 16),
}


def case(name):
    b, h, w, c, d, size, stride, pad, groups = CASES[name]
    rng, c_in = np.random.default_rng(0), c // groups
    x, kernel = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((b, h, w, c), (size, size, c_in, d)))
    how = {"strides": (stride, stride), "padding": ((pad, pad), (pad, pad)), "groups": groups}
    return x, kernel / (size * c_in**0.5), how
