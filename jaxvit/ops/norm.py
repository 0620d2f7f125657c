"""Norms: LayerNorm over rows, and the variance of a batch."""

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
    """LayerNorm over the last axis (Ba et al., 2016), with the variance in two passes, in 32 bits or more.

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


def batch_variance(x: Array, mean: Array) -> Array:
    """The variance over all axes but the last about the mean [c]: float32 or wider [..., c] -> [c].

    On a CPU in two passes, as a cache is near and digits are kept. On a GPU or TPU one pass sums x and x^2: the maps
    are then read once, which is what bounds a training there.
    """
    return by_platform(VARIANCE_FORMS, VARIANCE_DEFAULT, x, mean)


def two_pass_variance(x: Array, mean: Array) -> Array:
    """The mean of (x - mean)^2."""
    return jnp.square(x - _along_last(mean, x.ndim)).mean(tuple(range(x.ndim - 1)))


def one_pass_variance(x: Array, mean: Array) -> Array:
    """The same from the mean of x^2, which is summed together with x; below 0, which rounding may give, it is 0."""
    return jnp.maximum(0.0, jnp.square(x).mean(tuple(range(x.ndim - 1))) - jnp.square(mean))


VARIANCE_FORMS: dict[str, Callable[..., Array]] = {"plain": two_pass_variance, "one_pass": one_pass_variance}
VARIANCE_DEFAULT = {"cpu": "plain", "default": "one_pass"}


def _along_last(values: Array, rank: int) -> Array:
    """[c] -> [1, ..., 1, c]."""
    return jnp.expand_dims(values, tuple(range(rank - 1)))
