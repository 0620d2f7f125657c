"""Depthwise convolutions as shifted products: against XLA's own, with paddings of all kinds; when they are chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.ops import conv_products, depthwise


@pytest.mark.parametrize("padding", [((3, 3), (2, 2)), ((0, 0), (0, 0)), ((6, 1), (0, 4))])
def test_the_three_products_equal_xlas(padding):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((2, 9, 8, 3), (7, 5, 1, 3)))
    how = {"strides": (1, 1), "padding": padding, "groups": 3}
    y = conv_products.plain(x, kernel, **how)
    np.testing.assert_allclose(depthwise.convolution(x, kernel, padding), y, atol=1e-5)
    dx = conv_products.plain_input_gradient(y, kernel, map_size=(9, 8), **how)
    np.testing.assert_allclose(depthwise.input_gradient(y, kernel, padding), dx, atol=1e-4)
    dk = conv_products.plain_kernel_gradient(x, y, size=(7, 5), **how)
    np.testing.assert_allclose(depthwise.kernel_gradient(x, y, padding, (7, 5)), dk, atol=1e-3)


def test_when_they_are_chosen():
    usual = {"strides": (1, 1), "padding": ((3, 3), (3, 3)), "size": (7, 7), "groups": 8, "features": 8}
    assert depthwise.suits(8, **usual)
    for change in (
        {"strides": (2, 2)}, {"groups": 4}, {"features": 16}, {"size": (13, 13)}, {"padding": ((7, 7), (3, 3))},
    ):  # fmt: skip
        assert not depthwise.suits(8, **{**usual, **change}), change
    x, kernel = jnp.zeros((1, 8, 8, 8)), jnp.zeros((7, 7, 1, 8))
    how = {"strides": (1, 1), "padding": ((3, 3), (3, 3)), "groups": 8, "size": (7, 7), "map_size": (8, 8)}
    for form, wanted in (("cpu", False), ("plain", True)):
        program = jax.jit(lambda x, k, form=form: conv_products.FORMS[form](x, k, **how)).lower(x, kernel).as_text()
        assert ("stablehlo.convolution" in program) == wanted
