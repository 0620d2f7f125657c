"""Pooling, of maps [b, h, w, c] and of tokens [b, n, d].

Windows are shifted slices: on the CPU the gradient is several times faster than that of `reduce_window`, and it
compiles under the determinism flags of XLA on GPUs.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.ops.lowering import replaceable

Array = jax.Array


def _shifted(x: Array, axis: int, size: int, stride: int) -> list[Array]:
    """The `size` strided slices of one axis whose i-th entries together are the i-th window."""
    n = (x.shape[axis] - size) // stride + 1
    return [jax.lax.slice_in_dim(x, i, i + (n - 1) * stride + 1, stride, axis) for i in range(size)]


def _pad(x: Array, axis: int, low: int, high: int, mode: str, **kwargs) -> Array:
    widths = [(low, high) if a == axis else (0, 0) for a in range(x.ndim)]
    return jnp.pad(x, widths, mode=mode, **kwargs) if low or high else x


@replaceable
def max_pool(x: Array, size: int, stride: int, padding: int = 0) -> Array:
    """Maximum over windows, padded with minus infinity: [b, h, w, c] -> [b, h', w', c], sizes rounded down.

    Of equal values the first in reading order gets the gradient, as in PyTorch and `reduce_window`: columns go first.
    """
    return FORMS[DEFAULT["default"]](x, size, stride, padding)


def max_of_slices(x: Array, size: int, stride: int, padding: int = 0) -> Array:
    """The maximum of shifted slices."""
    for axis in (2, 1):
        x = _pad(x, axis, padding, padding, "constant", constant_values=-jnp.inf)
        x = functools.reduce(_first_max, _shifted(x, axis, size, stride))
    return x


def plain_max_pool(x: Array, size: int, stride: int, padding: int = 0) -> Array:
    """XLA's own."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, np.asarray(-np.inf, x.dtype), jax.lax.max, window, strides, pads)


# of the maximum over windows
FORMS: dict[str, Callable[..., Array]] = {"plain": plain_max_pool, "slices": max_of_slices}
DEFAULT = {"default": "slices"}


def _first_max(a: Array, b: Array) -> Array:
    """The maximum; of equal values `a`, where `jnp.maximum` gives each half of the gradient. NaN stays."""
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def avg_pool_2x2(x: Array, *, ceil: bool = False) -> Array:
    """Mean of 2x2 windows with stride 2; an odd last row or column is dropped, or averaged alone when `ceil`."""
    for axis in (1, 2):
        if ceil:  # a repeated edge leaves the mean of the cut window as it is
            x = _pad(x, axis, 0, x.shape[axis] % 2, "edge")
        first, second = _shifted(x, axis, 2, 2)
        x = 0.5 * (first + second)
    return x


def blur_pool(x: Array) -> Array:
    """A [1, 2, 1] binomial blur with reflected borders, then every second pixel (Zhang, 2019)."""
    for axis in (1, 2):
        left, middle, right = _shifted(_pad(x, axis, 1, 1, "reflect"), axis, 3, 2)
        x = 0.25 * (left + 2 * middle + right)
    return x


def max_over_tokens(x: Array) -> Array:
    """[b, n, d] -> [b, d]; the gradient goes to the first greatest entry, as in PyTorch's pooling.

    That of `jnp.max` looks for entries equal to the result. Where a program computes x twice with other roundings it
    finds none, and the gradient is NaN.
    """
    first = jnp.argmax(jax.lax.stop_gradient(x), axis=1, keepdims=True)
    places = jax.lax.broadcasted_iota(first.dtype, (1, x.shape[1], 1), 1)
    return jnp.sum(jnp.where(places == first, x, jnp.zeros((), x.dtype)), axis=1)


def adaptive_avg_pool(x: Array, height: int, width: int) -> Array:
    """Mean over `height` x `width` near-equal, possibly overlapping windows; enlarges too: [b, h, w, c]."""
    for axis, size in ((1, height), (2, width)):
        if x.shape[axis] != size:
            matrix = jnp.asarray(_window_means(x.shape[axis], size), x.dtype)
            x = jnp.tensordot(matrix, x, axes=(1, axis), precision=jax.lax.Precision.HIGHEST)
            x = jnp.moveaxis(x, 0, axis)
    return x


@functools.cache
def _window_means(n: int, out: int) -> np.ndarray:
    """[out, n] matrix: row i averages entries floor(i n / out) to ceil((i + 1) n / out) - 1."""
    matrix = np.zeros((out, n), np.float32)
    for i in range(out):
        start, stop = i * n // out, -(-(i + 1) * n // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def _mean(x: Array) -> Array:
    return x.mean((1, 2))


def _max(x: Array) -> Array:
    b, h, w, c = x.shape
    return max_over_tokens(x.reshape(b, h * w, c))


# global_pool -> [b, h, w, c] to [b, c], or [b, 2 c] for "catavgmax"
GLOBAL_POOLS: dict[str, Callable[[Array], Array]] = {
    "avg": _mean,
    "max": _max,
    "avgmax": lambda x: 0.5 * (_mean(x) + _max(x)),
    "catavgmax": lambda x: jnp.concatenate([_mean(x), _max(x)], axis=-1),
}
# and all of the map
MAP_POOLS: dict[str, Callable[[Array], Array]] = {**GLOBAL_POOLS, "": lambda x: x}
