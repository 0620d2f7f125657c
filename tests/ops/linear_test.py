"""Linear layers with gradients of their own on the CPU: derivatives of any order and mode, where they are used."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.ops.linear import FORMS, linear
from tests.helpers.derivatives import derivatives

RNG = np.random.default_rng(0)
X, KERNEL = (jnp.asarray(RNG.standard_normal(s), jnp.float32) for s in ((5, 7), (7, 3)))


def test_every_derivative_is_the_usual_one():
    for form in FORMS.values():
        chex.assert_trees_all_close(
            derivatives(form, X, KERNEL), derivatives(jnp.matmul, X, KERNEL), rtol=1e-3, atol=1e-3
        )


def test_linear_layers_use_it_with_any_number_of_axes():
    x = jnp.asarray(RNG.standard_normal((2, 3, 4, 7)), jnp.float32)
    np.testing.assert_allclose(linear(x, KERNEL), x @ KERNEL, rtol=1e-5)
    assert "name=linear" in str(jax.make_jaxpr(linear)(x, KERNEL))
