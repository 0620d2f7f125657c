"""Attention within the (shifted) windows of a map (Liu et al., 2021)."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.ops import window_kernel
from jaxvit.ops.lowering import by_platform
from jaxvit.ops.window_kernel import MASK_VALUE, Pair

Array = jax.Array
KERNELS = ("pallas", "interpret")


def window_attention(
    qkv: Array,
    bias: Array,
    window: Pair,
    shift: Pair = (0, 0),
    *,
    rolled: bool = False,
    implementation: str | None = None,
    change: Callable[[Array], Array] | None = None,
) -> Array:
    """softmax(q k^T / sqrt(hd) + bias + mask) v in each window and head: [b, h, w, heads hd].

    Args:
      qkv: maps [b, h, w, 3 heads hd] in timm's order: all queries by head, all keys, all values. The window divides
        the map.
      bias: for each pair of tokens of a window: [heads, n, n], float32.
      window: height and width in tokens.
      shift: how many tokens below and right of the corner the windows begin; those at the far ends wrap around, and
        what was not adjacent is kept apart.
      rolled: the map was shifted already; only what was not adjacent is kept apart.
      implementation: "pallas", a kernel for GPUs; "interpret", the same slowly on any device; None or "xla", the
        formula.
      change: is given the weights [b, windows, heads, n, n] and returns those to use; no kernel has them.

    Raises:
      UserError: no kernel can be made for this platform or dtype.
    """
    how = {"window": window, "shift": shift, "rolled": rolled}
    if change is not None:
        return plain(qkv, bias, **how, change=change)
    if implementation in KERNELS:
        return FORMS[implementation](qkv, bias, **how)
    return by_platform(FORMS, DEFAULT, qkv, bias, **how)


def plain(
    qkv: Array,
    bias: Array,
    window: Pair,
    shift: Pair = (0, 0),
    rolled: bool = False,
    attend: Callable[..., Array] | None = None,
    change: Callable[[Array], Array] | None = None,
) -> Array:
    """The formula, written out; `attend` is the attention within the windows."""
    (b, h, w, _), heads, (sh, sw) = qkv.shape, len(bias), shift
    moved = any(shift) and not rolled
    x = window_partition(jnp.roll(qkv, (-sh, -sw), (1, 2)) if moved else qkv, window)
    nw, n = x.shape[1:3]
    pairs = bias[None, None]
    mask = shifted_window_mask((h, w), window, shift)
    if mask is not None:
        pairs = pairs + mask[None, :, None]  # [1 nw heads n n]
    q, k, v = jnp.moveaxis(x.reshape(b, nw, n, 3, heads, -1), 3, 0)
    x = _softmax_first(q, k, v, pairs, change=change) if attend is None else attend(q, k, v, pairs)
    x = window_reverse(x.reshape(b, nw, n, -1), window, (h, w))
    return jnp.roll(x, (sh, sw), (1, 2)) if moved else x


def _logits(q: Array, k: Array, bias: Array) -> Array:
    wide = jnp.promote_types(q.dtype, jnp.float32)
    return jnp.einsum("bwqhd,bwkhd->bwhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=wide) + bias


def _softmax_first(
    q: Array, k: Array, v: Array, bias: Array, *, change: Callable[[Array], Array] | None = None
) -> Array:
    weights = jax.nn.softmax(_logits(q, k, bias), axis=-1)
    weights = weights if change is None else change(weights)
    return jnp.einsum("bwhqk,bwkhd->bwqhd", weights.astype(v.dtype), v)


@jax.custom_jvp
def _divided_late(q: Array, k: Array, v: Array, bias: Array) -> Array:
    """On a CPU in half the time; differentiated it is not faster, and has the derivative of the usual form."""
    logits = _logits(q, k, bias)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    x = jnp.einsum("bwhqk,bwkhd->bwhqd", weights.astype(v.dtype), v)
    return (x / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype).transpose(0, 1, 3, 2, 4)


@_divided_late.defjvp
def _divided_late_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    return jax.jvp(_softmax_first, primals, tangents)


FORMS: dict[str, Callable[..., Array]] = {
    "plain": plain,
    "divided_late": partial(plain, attend=_divided_late),
    "pallas": window_kernel.attend,
    "interpret": partial(window_kernel.attend, interpret=True),
}
DEFAULT = {"cpu": "divided_late", "default": "plain"}


def window_partition(x: Array, window_size: Pair) -> Array:
    """Cuts maps [b, h, w, c] into windows [b, nw, wh*ww, c]; h and w must be multiples of the window."""
    (b, h, w, c), (wh, ww) = x.shape, window_size
    x = x.reshape(b, h // wh, wh, w // ww, ww, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, (h // wh) * (w // ww), wh * ww, c)


def window_reverse(windows: Array, window_size: Pair, map_size: Pair) -> Array:
    """Joins windows [b, nw, wh*ww, c] to maps [b, h, w, c] of size `map_size`: inverts `window_partition`."""
    (h, w), (wh, ww) = map_size, window_size
    b, c = windows.shape[0], windows.shape[-1]
    x = windows.reshape(b, h // wh, w // ww, wh, ww, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h, w, c)


@lru_cache
def shifted_window_mask(map_size: Pair, window_size: Pair, shift_size: Pair) -> np.ndarray | None:
    """Keeps tokens apart that only the cyclic shift made neighbours: 0 or -100, float32 [nw, wh*ww, wh*ww].

    `map_size` is that of the padded map, a multiple of the window. None when nothing is shifted.
    """
    if not any(shift_size):
        return None

    def regions(size: int, window: int, shift: int) -> np.ndarray:
        position = np.arange(size)
        return (position >= size - window).astype(np.int32) + (position >= size - shift)

    rows, columns = (regions(*args) for args in zip(map_size, window_size, shift_size, strict=True))
    region = (rows[:, None] * 3 + columns[None, :]).reshape(1, *map_size, 1)
    region = np.asarray(window_partition(region, window_size))[0, :, :, 0]  # type: ignore[arg-type]
    return np.where(region[:, :, None] == region[:, None, :], 0.0, MASK_VALUE).astype(np.float32)
