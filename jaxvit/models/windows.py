"""Windows of a map: their sizes and shifts, and the relative positions in them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair

Pair = tuple[int, int]


@lru_cache
def relative_position_index(window_size: Pair) -> np.ndarray:
    """Row of the bias table for every (query, key) pair of a window: int32 [wh*ww, wh*ww]."""
    wh, ww = window_size
    y, x = (a.reshape(-1) for a in np.mgrid[:wh, :ww])
    dy = y[:, None] - y[None, :] + wh - 1  # 0 .. 2wh-2
    dx = x[:, None] - x[None, :] + ww - 1
    return (dy * (2 * ww - 1) + dx).astype(np.int32)


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


def clamp_window(
    map_size: Pair, window_size: Pair, *, shifted: bool, always_partition: bool = False
) -> tuple[Pair, Pair]:
    """Returns (window, shift) on a map: no window larger than the map, no shift where one covers it.

    With `always_partition` neither depends on the map: a small one is padded to a window.
    """
    if always_partition:
        return window_size, (window_size[0] // 2, window_size[1] // 2) if shifted else (0, 0)
    window = (min(map_size[0], window_size[0]), min(map_size[1], window_size[1]))
    shift = tuple(w // 2 if shifted and m > w else 0 for m, w in zip(map_size, window, strict=True))
    return window, shift  # type: ignore[return-value]
