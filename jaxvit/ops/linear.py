"""Linear layers: x [..., c] @ kernel [c, d] -> [..., d].

The gradient of a kernel is a product of the layer's input with the gradient of its output, one of them transposed. XLA
on the CPU transposes the latter, and fuses into the copy whatever computes it, in a transformer the sum over all layers
above: two thirds of a DeiT-Ti step went there. The form "transposed_input" has the input transposed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero
from jax.interpreters import ad

from jaxvit.ops.lowering import bilinear

Array = jax.Array
DEFAULT = {"cpu": "transposed_input", "default": "plain"}


def linear(x: Array, kernel: Array, *, form: str | None = None) -> Array:
    """x [..., c] @ kernel [c, d] -> [..., d]; `form` is a key of FORMS, None the platform's."""
    rows = x.reshape(-1, x.shape[-1])  # 2 axes: XLA on a GPU keeps the rows as they lie
    return _product(form)(rows, kernel).reshape(*x.shape[:-1], kernel.shape[1])


FORMS: dict[str, Callable[..., Array]] = {
    name: functools.partial(linear, form=name) for name in ("plain", "transposed_input")
}


def dot_general(x: Array, kernel: Array, dimension_numbers: Any, *args: Any, **kwargs: Any) -> Array:
    """`jax.lax.dot_general`, as `flax.linen.Dense` calls it."""
    (contract, other), (batch, _) = dimension_numbers
    usual = not batch and tuple(contract) == (x.ndim - 1,) and tuple(other) == (0,) and kernel.ndim == 2
    if usual and x.dtype == kernel.dtype and not any(args) and not any(kwargs.values()):
        return linear(x, kernel)
    return jax.lax.dot_general(x, kernel, dimension_numbers, *args, **kwargs)


def product(x: Array, kernel: Array) -> Array:
    """x [n, c] @ kernel [c, d]."""
    return jax.lax.dot_general(x, kernel, (((1,), (0,)), ((), ())))


@functools.cache
def _product(form: str | None) -> Callable[[Array, Array], Array]:
    """A plain product, which policies of remat know, whose gradient of the kernel has a form."""

    @jax.custom_jvp
    def linear(x: Array, kernel: Array) -> Array:
        return product(x, kernel)

    def jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Any]:
        (x, kernel), (dx, dkernel) = primals, tangents
        parts = []
        if not isinstance(dx, SymbolicZero):
            parts.append(product(dx, kernel))
        if not isinstance(dkernel, SymbolicZero):
            parts.append(tangent_p.bind(x, dkernel, form=form))
        return product(x, kernel), sum(parts[1:], parts[0])

    linear.defjvp(jvp, symbolic_zeros=True)
    return linear


def plain_kernel_gradient(x: Array, dy: Array) -> Array:
    """JAX's own: x [n, c], dy [n, d] -> [c, d]."""
    kernel = jax.ShapeDtypeStruct((x.shape[1], dy.shape[1]), dy.dtype)
    return jax.linear_transpose(lambda kernel: product(x, kernel), kernel)(dy)[0]


def kernel_gradient_of_transposed_input(x: Array, dy: Array) -> Array:
    """The same, with x.T written down."""

    def tangent(kernel: Array) -> Array:
        return jax.lax.dot_general(x.T, kernel, (((0,), (0,)), ((), ())))

    kernel = jax.ShapeDtypeStruct((x.shape[1], dy.shape[1]), dy.dtype)
    return jax.linear_transpose(tangent, kernel)(dy)[0]


def _always(name: str) -> Callable[[int], str]:
    return lambda devices: name


tangent_p = bilinear("linear_tangent", dict.fromkeys(FORMS, product), _always("plain"))
kernel_gradient_p = bilinear(
    "linear_kernel_gradient",
    {"plain": plain_kernel_gradient, "transposed_input": kernel_gradient_of_transposed_input},
    _always(DEFAULT["cpu"]),
)
ad.defbilinear(
    tangent_p,
    lambda dy, x, kernel, **how: product(dy, kernel.T),
    lambda dy, x, kernel, **how: kernel_gradient_p.bind(x, dy, **how),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda dk, x, dy, **how: product(dy, dk.T),
    lambda dk, x, dy, **how: tangent_p.bind(x, dk, **how),
)
