"""Pooling against reduce_window, depthwise convolutions and means."""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.ops import pooling


def feature_map(h, w, c=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, h, w, c)), jnp.float32)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (3, 2, 0), (2, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize("shape", [(8, 8), (9, 7)])
def test_max_pool_and_its_gradient_equal_reduce_window(shape, size, stride, padding):
    x = feature_map(*shape) - 5.0  # negative: padding with zeros would show

    def ours(x):
        return pooling.max_pool(x, size, stride, padding)

    def reference(x):
        return nn.max_pool(x, (size, size), (stride, stride), ((padding, padding),) * 2)

    @jax.jit
    def both(x):
        return [(f(x), jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x)) for f in (ours, reference)]

    (values, gradient), (expected_values, expected_gradient) = both(x)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)


@pytest.mark.parametrize("size, stride, padding", [(3, 2, 1), (3, 2, 0), (2, 2, 0), (3, 1, 1)])
def test_max_pool_gives_the_gradient_of_ties_as_reduce_window_does(size, stride, padding):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 9, 8, 3)), jnp.float32)  # many equal values
    there = nn.max_pool(x, (size, size), (stride, stride), ((padding, padding),) * 2)
    weight = jnp.asarray(np.random.default_rng(1).integers(1, 9, there.shape), jnp.float32)  # sums of these are exact

    @jax.jit
    def both(x):
        ours = jax.grad(lambda x: (pooling.max_pool(x, size, stride, padding) * weight).sum())(x)
        usual = lambda x: nn.max_pool(x, (size, size), (stride, stride), ((padding, padding),) * 2)  # noqa: E731
        return ours, jax.grad(lambda x: (usual(x) * weight).sum())(x)

    np.testing.assert_array_equal(*both(x))
    spoilt = x.at[0, 4, 4, 0].set(jnp.nan)
    np.testing.assert_array_equal(
        pooling.max_pool(spoilt, size, stride, padding),
        nn.max_pool(spoilt, (size, size), (stride, stride), ((padding, padding),) * 2),
    )


def test_avg_pool_2x2_drops_or_averages_the_odd_edge():
    x = feature_map(5, 4)
    np.testing.assert_allclose(pooling.avg_pool_2x2(x), nn.avg_pool(x, (2, 2), (2, 2)), rtol=1e-5, atol=1e-6)
    ceil = pooling.avg_pool_2x2(x, ceil=True)
    chex.assert_shape(ceil, (2, 3, 2, 3))
    np.testing.assert_allclose(ceil[:, 2, 1], x[:, 4, 2:4].mean(1), rtol=1e-5, atol=1e-6)


def test_blur_pool_equals_a_depthwise_convolution():
    x = feature_map(6, 5)
    kernel = jnp.asarray(np.outer([1, 2, 1], [1, 2, 1]) / 16, jnp.float32)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    want = jax.lax.conv_general_dilated(
        padded, jnp.tile(kernel[..., None, None], (1, 1, 1, 3)), (2, 2), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3,
    )  # fmt: skip
    np.testing.assert_allclose(pooling.blur_pool(x), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n", "out"), [(1, 7), (5, 7), (7, 7), (8, 6), (13, 6)])
def test_adaptive_avg_pool_equals_window_means(n, out):
    x = np.asarray(feature_map(n, 3))
    want = [x[:, math.floor(i * n / out) : math.ceil((i + 1) * n / out)].mean(1) for i in range(out)]
    got = pooling.adaptive_avg_pool(jnp.asarray(x), out, 3)
    np.testing.assert_allclose(got, np.stack(want, 1), rtol=1e-5, atol=1e-6)
    chex.assert_shape(pooling.adaptive_avg_pool(jnp.asarray(x), 2, 5), (2, 2, 5, 3))


def test_the_gradient_of_a_global_maximum_goes_to_the_first_greatest_entry():
    x = jnp.asarray(np.float32([[1, 3], [2, 3], [2, 0]])).reshape(1, 3, 1, 2)
    for pool in ("max", "avgmax"):
        grads = jax.grad(lambda x, pool=pool: jnp.sum(pooling.GLOBAL_POOLS[pool](x)))(x).reshape(3, 2)
        wanted = np.float32([[0, 1], [1, 0], [0, 0]])
        np.testing.assert_allclose(grads, wanted if pool == "max" else 0.5 * wanted + 0.5 / 3, rtol=1e-6)
    text = jax.jit(jax.grad(lambda x: jnp.sum(pooling.GLOBAL_POOLS["max"](x)))).trace(x).jaxpr
    assert " div " not in str(text)  # jnp.max divides by the number of entries equal to the maximum, which may be 0
