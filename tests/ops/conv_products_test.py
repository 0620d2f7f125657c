"""Convolutions as products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.ops import conv as conv_op
from jaxvit.ops import conv_products
from jaxvit.ops.macs import count_jaxpr
from tests.helpers.conv_cases import case
from tests.helpers.derivatives import derivatives


def test_images_a_part(monkeypatch):
    monkeypatch.setattr(conv_products, "PART", 400)
    for images, wanted in {1: 1, 2: 2, 4: 4, 8: 4, 12: 4, 6: 3, 10: 5, 9: 3, 7: 7, 14: 2, 26: 2, 25: 5}.items():
        assert conv_products.images_a_part(jnp.zeros((images, 5, 5, 4)), jnp.zeros((images, 1))) == wanted, images


@pytest.mark.parametrize("size, stride, side", [(1, 2, 9), (4, 4, 12), (7, 1, 7), (3, 1, 3)])
def test_what_is_one_matmul_equals_the_convolution(size, stride, side):
    """1x1 with a stride, patches, and a kernel of the map's own size."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((2, side, side, 5), (size, size, 5, 6)))
    how = {"strides": (stride, stride), "padding": conv_op.NONE}
    ours = derivatives(functools.partial(conv_op.conv, **how), x, kernel / size)
    usual = derivatives(functools.partial(conv_products.plain, **how), x, kernel / size)
    for word, value in usual.items():
        for a, b in zip(jax.tree.leaves(ours[word]), jax.tree.leaves(value), strict=True):
            assert jnp.max(jnp.abs(a - b)) <= 1e-5 * jnp.max(jnp.abs(b)), word
    text = jax.jit(functools.partial(conv_op.conv, **how)).trace(x, kernel).lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.convolution" not in text and text.count("dot_general") == 1


def test_both_gradients_count_the_products_of_the_convolution():
    x, kernel, how = case("strided")
    y = conv_products.plain(x, kernel, **how)

    def gradient(x, kernel):
        return jax.vjp(lambda x, k: conv_op.conv(x, k, **how), x, kernel)[1](y)

    assert count_jaxpr(jax.make_jaxpr(gradient)(x, kernel).jaxpr) == 3 * y.size * 9 * 16
