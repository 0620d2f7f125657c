"""Windows of a map: cut, joined, shifted; their relative positions and the mask of the shift."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair

Array = jax.Array
Pair = tuple[int, int]
MASK_VALUE = -100.0  # added to the logits of pairs from different regions; finite, as in the paper's code


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
def relative_position_index(window_size: Pair) -> np.ndarray:
    """Row of the bias table for every (query, key) pair of a window: int32 [wh*ww, wh*ww]."""
    wh, ww = window_size
    y, x = (a.reshape(-1) for a in np.mgrid[:wh, :ww])
    dy = y[:, None] - y[None, :] + wh - 1  # 0 .. 2wh-2
    dx = x[:, None] - x[None, :] + ww - 1
    return (dy * (2 * ww - 1) + dx).astype(np.int32)


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


def stage_windows(window_size: int | Sequence[Any], num_stages: int) -> tuple[Pair, ...]:
    """Expands one int, one (h, w) pair or one entry per stage to a (h, w) window per stage."""
    if isinstance(window_size, int):
        stages = (window_size,) * num_stages
    elif len(window_size) == 2 and all(isinstance(w, int) for w in window_size):
        stages = (tuple(window_size),) * num_stages
    else:
        stages = tuple(window_size)
    if len(stages) != num_stages:
        raise UserError(
            f"window_size {stages} has {len(stages)} entries; expected one int, one (height, width), "
            f"or one entry for each of the {num_stages} stages."
        )
    return tuple(to_pair(w) for w in stages)


def clamp_window(map_size: Pair, window_size: Pair, *, shifted: bool) -> tuple[Pair, Pair]:
    """Returns (window, shift) on a map: no window larger than the map, no shift where one covers it."""
    window = (min(map_size[0], window_size[0]), min(map_size[1], window_size[1]))
    shift = tuple(w // 2 if shifted and m > w else 0 for m, w in zip(map_size, window, strict=True))
    return window, shift  # type: ignore[return-value]
