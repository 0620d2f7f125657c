"""Tokens keep their order in memory where they are differentiated, and on GPUs alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.ops.layout import row_major

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)


def loss(x):
    return jnp.sum(jnp.sin(row_major(x)))


def test_values_and_derivatives_are_those_of_the_identity():
    np.testing.assert_array_equal(row_major(X), X)
    np.testing.assert_allclose(jax.grad(loss)(X), jnp.cos(X), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(X), jnp.cos(X), rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(loss, (X,), (X,))[1], jnp.sum(jnp.cos(X) * X), rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "platform", "constrained"),
    [(jax.grad(loss), "cuda", True), (loss, "cuda", False), (jax.grad(loss), "cpu", False)],
)
def test_gradients_on_a_gpu_are_constrained(function, platform, constrained):
    text = jax.jit(function).trace(X).lower(lowering_platforms=(platform,)).as_text()
    assert ("LayoutConstraint" in text) is constrained
