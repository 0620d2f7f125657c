"""Products whose gradients suit XLA on the CPU. Elsewhere they are jax.lax's own.

The gradient of a weight is a product of the layer's input with the gradient of its output, one of them transposed. XLA
on the CPU transposes the latter, and fuses into the copy whatever computes it, in a transformer the sum over all layers
above: two thirds of a DeiT-Ti step went there. `linear` has the input transposed. `settled` keeps a convolution's
gradient apart from what computes it.

The gradient of a 3x3 kernel XLA takes as a convolution with a kernel as large as the map, which on large maps costs
three times the forward pass. But

    dw[i, j] = sum over r, q of x[r, q + j] dy[r - i, q]        (x padded, dy zero outside)

so the inputs shifted along the rows of pixels, joined as channels, times the output gradients shifted along the
columns, joined likewise, hold all nine sums: one matmul [3 d, pixels] x [pixels, 3 c] that reads each array three
times, not nine.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxvit.target import platform

Array = jax.Array
SMALLEST_MAP = 24 * 24  # pixels; on smaller maps XLA's own is as fast
NHWC = ("NHWC", "HWIO", "NHWC")


@jax.custom_jvp
def settled(x: Array) -> Array:
    """The identity, whose gradient is computed before it is used."""
    return x


@settled.defjvp
def _settled_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return settled(primals[0]), jax.lax.optimization_barrier(tangents[0])


def dot_general(lhs: Array, rhs: Array, dimension_numbers: Any, *args: Any, **kwargs: Any) -> Array:
    """`jax.lax.dot_general`, as linear layers use it."""
    (contract, other), (batch, _) = dimension_numbers
    plain = not batch and tuple(contract) == (lhs.ndim - 1,) and tuple(other) == (0,) and rhs.ndim == 2
    if platform() == "cpu" and plain and lhs.dtype == rhs.dtype:
        return linear(lhs.reshape(-1, lhs.shape[-1]), rhs).reshape(*lhs.shape[:-1], rhs.shape[1])
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


def conv_general_dilated(lhs: Array, rhs: Array, *args: Any, **kwargs: Any) -> Array:
    """`jax.lax.conv_general_dilated`, as convolutions use it; with the other gradient where that is the faster one."""
    if platform() != "cpu":
        return jax.lax.conv_general_dilated(lhs, rhs, *args, **kwargs)
    if suits(lhs, rhs, *args, **kwargs):
        return settled(conv3x3(lhs, rhs))
    return settled(jax.lax.conv_general_dilated(lhs, rhs, *args, **kwargs))


def suits(
    lhs: Array,
    rhs: Array,
    window_strides: Any,
    padding: Any,
    *,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **_: Any,
) -> bool:
    """Whether it is a plain 3x3 convolution, stride 1 and padding 1, on a large map, in float32."""
    ones = (None, 1, (1, 1))
    spec = getattr(dimension_numbers, "lhs_spec", None)
    return (
        lhs.ndim == 4
        and rhs.shape[:2] == (3, 3)
        and lhs.dtype == rhs.dtype == jnp.float32
        and lhs.shape[1] * lhs.shape[2] >= SMALLEST_MAP
        and lhs.shape[3] == rhs.shape[2] >= 16
        and feature_group_count == 1
        and tuple(window_strides) == (1, 1)
        and not isinstance(padding, str)
        and tuple(map(tuple, padding)) == ((1, 1), (1, 1))
        and (spec is None or tuple(spec) == (0, 3, 1, 2))
        and all(d is None or tuple(d) == (1, 1) or d in ones for d in (lhs_dilation, rhs_dilation))
    )


def _plain(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=NHWC)


@jax.custom_jvp
def conv3x3(x: Array, kernel: Array) -> Array:
    """3x3, stride 1, padding 1: x [b, h, w, c], kernel [3, 3, c, d] -> [b, h, w, d]."""
    return _plain(x, kernel)


def _conv3x3_jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Any]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y, parts = _plain(x, kernel), []
    if not isinstance(dx, SymbolicZero):
        parts.append(_plain(dx, kernel))
    if not isinstance(dkernel, SymbolicZero):  # the same as _plain(x, dkernel); its transpose is kernel_gradient
        back = jax.linear_transpose(functools.partial(kernel_gradient, x), y)
        parts.append(back(dkernel)[0])
    return y, sum(parts[1:], parts[0])


conv3x3.defjvp(_conv3x3_jvp, symbolic_zeros=True)


def kernel_gradient(x: Array, dy: Array) -> Array:
    """X [b, h, w, c], dy [b, h, w, d] -> [3, 3, c, d]."""
    w, c, d = x.shape[2], x.shape[3], dy.shape[3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    along_rows = jnp.stack([padded[:, :, j : j + w] for j in range(3)], axis=3)  # [b h+2 w 3 c]
    along_columns = jnp.stack([jnp.pad(dy, ((0, 0), (i, 2 - i), (0, 0), (0, 0))) for i in range(3)], axis=3)
    # Made first: fused into the matmul they would be computed again for each of its tiles.
    a = jax.lax.optimization_barrier(along_rows.reshape(-1, 3 * c))
    g = jax.lax.optimization_barrier(along_columns.reshape(-1, 3 * d))
    sums = jax.lax.dot_general(g, a, (((0,), (0,)), ((), ())))
    return sums.reshape(3, d, 3, c).transpose(0, 2, 3, 1)
