"""The exact GELU."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.ops.activations import exact_gelu


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_exact_gelu_is_exact_and_keeps_one_array(dtype):
    """Against the formula in double precision; its slope is what the backward pass reads."""
    x = jnp.linspace(-8, 8, 801).astype(dtype)
    wide = np.asarray(x, np.float64)
    share = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in wide])
    slope = share + wide * np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    value, pull = jax.vjp(exact_gelu, x)
    rounding = 8 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(value, np.float64), wide * share, atol=rounding)
    np.testing.assert_allclose(np.asarray(pull(jnp.ones_like(x))[0], np.float64), slope, atol=rounding)
    kept = [leaf for leaf in jax.tree.leaves(pull) if getattr(leaf, "shape", ()) == x.shape]
    assert [leaf.dtype for leaf in kept] == [dtype]
    second = jax.grad(jax.grad(exact_gelu))(jnp.asarray(0.7, dtype))  # and it can be differentiated again
    assert abs(float(second) - (2 - 0.7**2) * math.exp(-(0.7**2) / 2) / math.sqrt(2 * math.pi)) < rounding
