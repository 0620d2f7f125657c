"""All derivatives of a bilinear operation, to compare its forms."""

import jax
import jax.numpy as jnp


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
