"""Scaled dot-product attention (Vaswani et al., 2017) over all tokens."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.ops import cudnn_attention
from jaxvit.ops.lowering import by_platform

Array = jax.Array


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    implementation: str | None = None,
    change: Callable[[Array], Array] | None = None,
) -> Array:
    """softmax(q k^T / sqrt(hd)) v, the softmax in float32 or wider: [b, n, heads, hd].

    Args:
      q: queries [b, n, heads, hd].
      k: keys [b, m, heads, hd].
      v: values [b, m, heads, hd].
      implementation: "cudnn"; "xla", the formula; None: cuDNN on a GPU in 16 bits, else the formula.
      change: is given the weights [b, heads, n, m] and returns those to use; no kernel has them.

    Raises:
      UserError: "cudnn" was asked for and cannot be had.
    """
    if change is not None or q.dtype == jnp.float64:  # jax.nn's softmax is in float32
        weights = attention_weights(q, k)
        return weighted_sum(weights if change is None else change(weights), v)
    if chosen(q, k, v, implementation) == "cudnn":
        return cudnn_attention.attend(q, k, v)
    return by_platform(FORMS, DEFAULT, q, k, v)


def chosen(q: Any, k: Any, v: Any, implementation: str | None = None) -> str:
    """What `attention` runs for arrays of these shapes and dtypes where no weights are changed: "cudnn" or "xla".

    Raises:
      UserError: "cudnn" was asked for and cannot be had.
    """
    if implementation == "cudnn":
        cudnn_attention.check(q, k, v)
    elif implementation is not None or not cudnn_attention.is_default(q, k, v):
        return "xla"
    return "cudnn"


def attention_weights(q: Array, k: Array) -> Array:
    """softmax(q k^T / sqrt(hd)), float32 or wider: [b, n, heads, hd], [b, m, heads, hd] -> [b, heads, n, m]."""
    logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.promote_types(q.dtype, jnp.float32))
    return jax.nn.softmax(logits / math.sqrt(q.shape[-1]), axis=-1)


def weighted_sum(weights: Array, v: Array) -> Array:
    """[b, heads, n, m], [b, m, heads, hd] -> [b, n, heads, hd]."""
    return jnp.einsum("bhnm,bmhd->bnhd", weights.astype(v.dtype), v)


def divided_late(q: Array, k: Array, v: Array) -> Array:
    """With the division after the second product: on a CPU in half the time."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("bnhd,bmhd->bhnm", q * q.shape[-1] ** -0.5, k, preferred_element_type=wide)
    weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    x = jnp.einsum("bhnm,bmhd->bhnd", weights.astype(v.dtype), v)
    return (x / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype).transpose(0, 2, 1, 3)


FORMS: dict[str, Callable[..., Array]] = {
    "plain": cudnn_attention.by_xla,
    "divided_late": divided_late,
    "cudnn": cudnn_attention.attend,
}
DEFAULT = {"cpu": "divided_late", "default": "plain"}
