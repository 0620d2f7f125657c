"""Linear layers whose gradients suit XLA on the CPU. Elsewhere they are jax.lax's own.

The gradient of a weight is a product of the layer's input with the gradient of its output, one of them transposed. XLA
on the CPU transposes the latter, and fuses into the copy whatever computes it, in a transformer the sum over all layers
above: two thirds of a DeiT-Ti step went there. `linear` has the input transposed.
"""

from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero

from jaxvit.runtime.platform import platform

Array = jax.Array


def dot_general(lhs: Array, rhs: Array, dimension_numbers: Any, *args: Any, **kwargs: Any) -> Array:
    """`jax.lax.dot_general`, as linear layers use it."""
    (contract, other), (batch, _) = dimension_numbers
    plain = not batch and tuple(contract) == (lhs.ndim - 1,) and tuple(other) == (0,) and rhs.ndim == 2
    rows = lhs.reshape(-1, lhs.shape[-1]) if plain else lhs
    if platform() == "cpu" and plain and lhs.dtype == rhs.dtype:
        return linear(rows, rhs).reshape(*lhs.shape[:-1], rhs.shape[1])
    if platform() == "gpu" and plain:
        out = jax.lax.dot_general(rows, rhs, (((1,), (0,)), ((), ())), *args, **kwargs)
        return out.reshape(*lhs.shape[:-1], rhs.shape[1])
    return jax.lax.dot_general(lhs, rhs, dimension_numbers, *args, **kwargs)


@jax.custom_jvp
def linear(x: Array, kernel: Array) -> Array:
    """X [n, c] @ kernel [c, d], whose gradient transposes the input and not what comes back, a long sum."""
    return x @ kernel


def _linear_jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Any]:
    (x, kernel), (dx, dkernel) = primals, tangents
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(dx @ kernel)
    if not isinstance(dkernel, SymbolicZero):  # the same as x @ dkernel; its transpose is x.T @ dy as it stands
        parts.append(jax.lax.dot_general(x.T, dkernel, (((0,), (0,)), ((), ()))))
    return x @ kernel, sum(parts[1:], parts[0])  # a plain product, which policies of remat know


linear.defjvp(_linear_jvp, symbolic_zeros=True)


def matmul(x: Array, kernel: Array) -> Array:
    """[..., n] @ [n, d]."""
    return dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
