"""Linear layers with gradients of their own on the CPU: derivatives of any order and mode, where they are used."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.ops.linear import FORMS, linear

RNG = np.random.default_rng(0)
X, KERNEL = (jnp.asarray(RNG.standard_normal(s), jnp.float32) for s in ((5, 7), (7, 3)))


def derivatives(product, x, kernel):
    """Values and derivatives of a function of a bilinear product."""

    def f(x, kernel):
        return jnp.sum(jnp.sin(product(x, kernel)))

    args = (x, kernel)
    return {
        "value": product(*args),
        "both": jax.grad(f, (0, 1))(*args),
        "x alone": jax.grad(f, 0)(*args),
        "kernel alone": jax.grad(f, 1)(*args),
        "forward": jax.jvp(f, args, args)[1],
        "forward over reverse": jax.jvp(jax.grad(f, (0, 1)), args, args)[1],
        "reverse over kernel": jax.grad(lambda x, k: jnp.sum(jax.grad(f, 1)(x, k) ** 2), (0, 1))(*args),
        "reverse over x": jax.grad(lambda x, k: jnp.sum(jax.grad(f, 0)(x, k) ** 2), (0, 1))(*args),
    }


def test_every_derivative_is_the_usual_one():
    for form in FORMS.values():
        chex.assert_trees_all_close(
            derivatives(form, X, KERNEL), derivatives(jnp.matmul, X, KERNEL), rtol=1e-3, atol=1e-3
        )


def test_linear_layers_use_it_with_any_number_of_axes():
    x = jnp.asarray(RNG.standard_normal((2, 3, 4, 7)), jnp.float32)
    np.testing.assert_allclose(linear(x, KERNEL), x @ KERNEL, rtol=1e-5)
    assert "name=linear" in str(jax.make_jaxpr(linear)(x, KERNEL))
