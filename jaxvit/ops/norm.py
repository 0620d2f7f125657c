"""Norms: LayerNorm over rows, BatchNorm over channels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxvit.ops.lowering import by_platform

Array = jax.Array
Dtype = Any


def layer_norm(x: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype = None) -> Array:
    """LayerNorm over the last axis (Ba et al., 2016), in 32 bits or more; the variance takes two passes.

    On a GPU that of 16-bit rows takes one, as the rows are read.

    Args:
      x: [..., d].
      scale: [d].
      bias: [d].
      eps: added to the variance.
      dtype: of the result; None: what x, scale and bias have in common.
    """
    dtype = dtype or jnp.result_type(x, scale, bias)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return by_platform(_WHOLE, DEFAULT, x, wide, wide, scale, bias, eps=eps, dtype=dtype)


def plain_layer_norm(x: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype) -> Array:
    """The formula, differentiated by JAX."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _plain(x, wide, wide, scale, bias, eps=eps, dtype=dtype)


def _plain(x: Array, again: Array, wide: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype) -> Array:
    # The same array for each of its uses: so its gradients are added up outside, one after another to that of the
    # residual connection, in the order of a formula without a choice of forms. Another order rounds otherwise.
    mean = wide.mean(-1, keepdims=True)
    variance = jnp.square(again - mean).mean(-1, keepdims=True)
    scale, bias = (_along_last(v, x.ndim) for v in (scale, bias))
    return ((x - mean) * (jax.lax.rsqrt(variance + eps) * scale) + bias).astype(dtype)


def two_sums(x: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype) -> Array:
    """With its own derivative, for GPUs.

    The gradient of x takes two sums over a row that do not wait for each other. By differentiation of the mean and
    the variance it takes three, one after another, and XLA on a GPU writes down the terms of the sums over rows. The
    backward pass has the input, a mean and a factor per row; left to itself XLA keeps the rows in 32 bits as well.
    """
    rows = x.reshape(-1, x.shape[-1])
    return _rows_again(rows, scale, bias, eps, dtype).reshape(x.shape)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def normalised_rows(x: Array, scale: Array, bias: Array, eps: float, dtype: Dtype) -> Array:
    """LayerNorm of rows: x [n, d], scale and bias [d] -> [n, d] in `dtype`."""
    return (_unit_rows(x, eps)[0] * scale[None] + bias[None]).astype(dtype)


def _unit_rows(x: Array, eps: float) -> tuple[Array, Array]:
    """Rows of mean 0 and variance 1, and the factors that made them so: [n, d], [n, 1]."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = checkpoint_name(jnp.mean(wide, axis=-1, keepdims=True), "layer_norm")
    if jnp.finfo(x.dtype).bits == 16:
        # x and x^2 are summed as the row is read, or written; what that loses in 32 bits is less than 16 bits have lost
        variance = jnp.maximum(0.0, jnp.mean(jnp.square(wide), axis=-1, keepdims=True) - jnp.square(mean))
    else:
        variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    factor = checkpoint_name(jax.lax.rsqrt(variance + eps), "layer_norm")
    return (wide - mean) * factor, factor


@normalised_rows.defjvp
def _normalised_rows_jvp(eps: float, dtype: Dtype, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, scale, bias), (dx, dscale, dbias) = primals, tangents
    unit, factor = _unit_rows(x, eps)
    dx = dx.astype(unit.dtype)
    dunit = factor * (dx - jnp.mean(dx, axis=-1, keepdims=True) - unit * jnp.mean(unit * dx, axis=-1, keepdims=True))
    tangent = dunit * scale[None] + unit * dscale[None] + dbias[None]
    return (unit * scale[None] + bias[None]).astype(dtype), tangent.astype(dtype)


_rows_again = jax.checkpoint(
    normalised_rows, static_argnums=(3, 4), policy=jax.checkpoint_policies.save_only_these_names("layer_norm")
)

FORMS: dict[str, Callable[..., Array]] = {"plain": plain_layer_norm, "two_sums": two_sums}
DEFAULT = {"gpu": "two_sums", "default": "plain"}


def _two_sums(x: Array, again: Array, wide: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype) -> Array:
    del again, wide
    return two_sums(x, scale, bias, eps=eps, dtype=dtype)


_WHOLE = {"plain": _plain, "two_sums": _two_sums}


def batch_norm(x: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype = None) -> tuple[Array, Array, Array]:
    """Normalises by the batch (Ioffe and Szegedy, 2015): statistics over all axes but the last, in 32 bits or more.

    On a CPU the variance takes two passes, as a cache is near and digits are kept. On a GPU or TPU one pass sums x
    and x^2, and another one both terms of the gradient: how often maps are read is what bounds a training there.

    Args:
      x: [..., c].
      scale: [c].
      bias: [c].
      eps: added to the variance.
      dtype: of the first result; None: what x, scale and bias have in common.

    Returns:
      The maps [..., c], the mean [c] and the variance [c], which is not the unbiased one.
    """
    dtype = dtype or jnp.result_type(x, scale, bias)
    wide = _wide(x, dtype)
    return by_platform(_WHOLE_MAPS, BATCH_DEFAULT, x, wide, wide, scale, bias, eps=eps, dtype=dtype)


def plain_batch_norm(x: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype) -> tuple[Array, Array, Array]:
    """The formula, differentiated by JAX."""
    wide = _wide(x, dtype)
    return _plain_maps(x, wide, wide, scale, bias, eps=eps, dtype=dtype)


def _plain_maps(
    x: Array, again: Array, wide: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype
) -> tuple[Array, Array, Array]:
    over = tuple(range(x.ndim - 1))
    mean = wide.mean(over)
    variance = jnp.square(again - _along_last(mean, x.ndim)).mean(over)
    at, var, by, to = (_along_last(v, x.ndim) for v in (mean, variance, scale, bias))
    return ((x - at) * (jax.lax.rsqrt(var + eps) * by) + to).astype(dtype), mean, variance


def two_sums_of_maps(x: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype) -> tuple[Array, Array, Array]:
    """With its own derivative, for accelerators: as `two_sums`, for channels instead of rows."""
    rows = x.reshape(-1, x.shape[-1])
    y, mean, variance = _maps_again(rows, scale, bias, eps, dtype)
    return y.reshape(x.shape), mean, variance


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def normalised_maps(x: Array, scale: Array, bias: Array, eps: float, dtype: Dtype) -> tuple[Array, Array, Array]:
    """BatchNorm: x [n, c], scale and bias [c] -> [n, c] in `dtype`, mean and variance [c]."""
    centred, factor, mean, variance = _centred_maps(x, eps, dtype)
    return (centred * (factor * scale)[None] + bias[None]).astype(dtype), mean, variance


def _centred_maps(x: Array, eps: float, dtype: Dtype) -> tuple[Array, Array, Array, Array]:
    """Channels of mean 0 [n, c]; what makes their variance 1, their mean and their variance [c]."""
    wide = _wide(x, dtype)
    mean = checkpoint_name(wide.mean(0), "batch_norm")
    # below 0, which rounding may give, it is 0
    variance = jnp.maximum(0.0, jnp.square(wide).mean(0) - jnp.square(mean))
    return wide - mean[None], checkpoint_name(jax.lax.rsqrt(variance + eps), "batch_norm"), mean, variance


@normalised_maps.defjvp
def _normalised_maps_jvp(eps: float, dtype: Dtype, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (x, scale, bias), (dx, dscale, dbias) = primals, tangents
    centred, factor, mean, variance = _centred_maps(x, eps, dtype)
    unit, dx = centred * factor[None], dx.astype(centred.dtype)
    dmean, along, slope = dx.mean(0), (unit * dx).mean(0), factor * scale
    # what is added for each channel comes together first: so its transpose has two sums over the maps, and not four
    tangent = dx * slope[None] + unit * (dscale - slope * along)[None] + (dbias - slope * dmean)[None]
    value = (centred * slope[None] + bias[None]).astype(dtype)
    return (value, mean, variance), (tangent.astype(dtype), dmean, 2 * along / factor)


# XLA may look across: the ReLU behind it is then masked within the sums, and not before them
_maps_again = jax.checkpoint(
    normalised_maps,
    static_argnums=(3, 4),
    prevent_cse=False,
    policy=jax.checkpoint_policies.save_only_these_names("batch_norm"),
)


def _two_sums_of_maps(
    x: Array, again: Array, wide: Array, scale: Array, bias: Array, *, eps: float, dtype: Dtype
) -> tuple[Array, Array, Array]:
    del again, wide
    return two_sums_of_maps(x, scale, bias, eps=eps, dtype=dtype)


BATCH_FORMS: dict[str, Callable[..., tuple[Array, Array, Array]]] = {
    "plain": plain_batch_norm,
    "two_sums": two_sums_of_maps,
}
BATCH_DEFAULT = {"cpu": "plain", "default": "two_sums"}
_WHOLE_MAPS = {"plain": _plain_maps, "two_sums": _two_sums_of_maps}


def _wide(x: Array, dtype: Dtype) -> Array:
    return x.astype(jnp.promote_types(dtype, jnp.float32))


def _along_last(values: Array, rank: int) -> Array:
    """[c] -> [1, ..., 1, c]."""
    return jnp.expand_dims(values, tuple(range(rank - 1)))
