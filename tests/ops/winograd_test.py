"""Winograd's convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.ops import conv as conv_op
from jaxvit.ops import conv_products

ONES = ((1, 1), (1, 1))


@pytest.mark.parametrize("shape", [(2, 16, 16, 64), (2, 7, 7, 256)])
def test_winograd_rounds_no_worse_than_the_usual_form(shape):
    """Against float64: values and both gradients."""
    rng, c = np.random.default_rng(0), shape[-1]
    x, kernel, dy = (rng.standard_normal(s) for s in (shape, (3, 3, c, c), shape))

    def all_of(conv, *arrays):
        y, back = jax.vjp(conv, *arrays[:2])
        return y, *back(arrays[2])

    plain = functools.partial(conv_products.plain, strides=(1, 1), padding=ONES)
    short = [jnp.asarray(a, jnp.float32) for a in (x, kernel, dy)]
    ours = all_of(lambda x, k: conv_op.conv(x, k, (1, 1), ONES), *short)
    usual = all_of(plain, *short)
    with jax.enable_x64(True):
        exact = [np.asarray(a) for a in all_of(plain, *(jnp.asarray(np.asarray(a), jnp.float64) for a in short))]
    for a, b, true in zip(ours, usual, exact, strict=True):
        assert np.std(a - true) < 2 * np.std(b - true) and np.std(a - true) < 1e-6 * np.std(true)
