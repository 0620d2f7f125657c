"""Activations, by timm's names. All are plain XLA in one form, but for the derivatives of GELU and of a sum's ReLU."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.ops.lowering import by_platform, replaceable

Array = jax.Array


def activation(x: Array, name: str) -> Array:
    """The activation of that name, a key of ACTIVATIONS, of each entry."""
    return ACTIVATIONS[name](x)


@jax.custom_jvp
def exact_gelu(x: Array) -> Array:
    """The exact GELU of torch.nn.GELU, x times the normal distribution function; 16-bit types compute in 32.

    Left to itself the derivative keeps three arrays of the size of x for the backward pass; here it keeps one, its own.
    """
    return _gelu_and_slope(x)[0]


def _gelu_and_slope(x: Array) -> tuple[Array, Array]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    share = 0.5 * (1 + jax.lax.erf(wide * np.asarray(0.5**0.5, wide.dtype)))  # erf takes half the time of erfc
    density = jnp.exp(-0.5 * jnp.square(wide)) * np.asarray((2 * np.pi) ** -0.5, wide.dtype)
    return (wide * share).astype(x.dtype), (share + wide * density).astype(x.dtype)


@exact_gelu.defjvp
def _exact_gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value, slope = _gelu_and_slope(primals[0])
    return value, tangents[0] * slope


def plain_gelu(x: Array) -> Array:
    """JAX's own."""
    return jax.nn.gelu(x, approximate=False)


def relu_of_sum(x: Array) -> Array:
    """max(x, 0) of a sum of two maps. Its derivative on a GPU reads the result, and not both maps once more."""
    return by_platform(SUM_FORMS, SUM_DEFAULT, x)


@jax.custom_jvp
def relu_by_output(x: Array) -> Array:
    """max(x, 0), whose result is kept for the backward pass: what follows keeps it in any case."""
    return jnp.maximum(x, 0)


# without the barrier XLA writes x > 0 instead
relu_by_output.defjvps(
    lambda dx, y, x: jax.lax.select(jax.lax.optimization_barrier(y) > 0, dx, jax.lax.full_like(dx, 0))
)

# of the exact GELU
FORMS: dict[str, Callable[[Array], Array]] = {"plain": plain_gelu, "slope_kept": exact_gelu}
DEFAULT = {"default": "slope_kept"}
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": replaceable(jax.nn.relu),
    "gelu": replaceable(exact_gelu),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": replaceable(jax.nn.silu),
}
SUM_FORMS: dict[str, Callable[[Array], Array]] = {"plain": ACTIVATIONS["relu"], "by_output": relu_by_output}
SUM_DEFAULT = {"gpu": "by_output", "default": "plain"}
ACTIVATIONS_OF_SUMS = {**ACTIVATIONS, "relu": relu_of_sum}
