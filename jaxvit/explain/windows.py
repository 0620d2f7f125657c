"""Where the windows of a Swin block lie on the image, and their attention brought back there."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxvit.models.layers import Array, to_pair
from jaxvit.models.windows import clamp_window, stage_windows
from jaxvit.ops.window_attention import window_partition, window_reverse

Pair = tuple[int, int]


class Windows(NamedTuple):
    """The geometry of one block, in tokens; `cell` is a token's (height, width) in pixels."""

    map_size: Pair
    window: Pair
    shift: Pair
    cell: Pair

    @property
    def padded(self) -> Pair:
        """The map's size in whole windows."""
        return tuple(m + -m % w for m, w in zip(self.map_size, self.window, strict=True))  # type: ignore[return-value]


def block_windows(model: Any, size: Pair) -> list[Windows]:
    """The windows of every block, first to last, for images of `size`; the model's own image size fixes them."""
    patch = to_pair(model.patch_size)
    own, maps = ([s // p for s, p in zip(to_pair(x), patch, strict=True)] for x in (model.image_size, size))
    places, always = [], getattr(model, "always_partition", False)
    stages = zip(model.depths, stage_windows(model.window_size, len(model.depths)), strict=True)
    for stage, (depth, window) in enumerate(stages):
        if stage:
            own, maps = ([(n + 1) // 2 for n in sides] for sides in (own, maps))
        cell = (patch[0] * 2**stage, patch[1] * 2**stage)
        for i in range(depth):
            clamped, shift = clamp_window((own[0], own[1]), window, shifted=i % 2 == 1, always_partition=always)
            places.append(Windows((maps[0], maps[1]), clamped, shift, cell))
    return places


def _real(place: Windows) -> np.ndarray:
    """1 for tokens of the map, 0 for padding, by window: float32 [windows, tokens]."""
    (h, w), (ph, pw) = place.map_size, place.padded
    real = np.zeros((1, ph, pw, 1), np.float32)
    real[:, :h, :w] = 1
    return np.asarray(window_partition(real, place.window))[0, :, :, 0]  # type: ignore[arg-type]


def received(weights: Array, place: Windows) -> Array:
    """Attention that each token receives: [b, windows, heads, q, k] -> [b, heads, h, w]; 1 where all get the same."""
    queries = _real(place)[None, :, None, :, None]
    sums = jnp.sum(weights * queries, axis=3).transpose(0, 1, 3, 2)  # [b, windows, tokens, heads]
    (h, w), (sh, sw) = place.map_size, place.shift
    maps = window_reverse(sums, place.window, place.padded)[:, :h, :w]
    return jnp.roll(maps, (sh, sw), (1, 2)).transpose(0, 3, 1, 2)


def gaps(grid: Pair, cell: Pair) -> np.ndarray:
    """Distances in pixels between the centres of all pairs of cells: float32 [gh*gw, gh*gw]."""
    y, x = (a.reshape(-1) * c for a, c in zip(np.mgrid[: grid[0], : grid[1]], cell, strict=True))
    return np.hypot(y[:, None] - y[None, :], x[:, None] - x[None, :]).astype(np.float32)


def distance(weights: Array, place: Windows) -> Array:
    """Mean distance in pixels from query to attended key, per head: [b, windows, heads, q, k] -> [heads]."""
    real = _real(place)[None, :, None, :]
    weights = weights * real[:, :, :, None, :]
    gap = gaps(place.window, place.cell)[None, None, None]
    far = jnp.sum(weights * gap, axis=-1) / jnp.maximum(jnp.sum(weights, axis=-1), 1e-12)
    return jnp.sum(far * real, axis=(0, 1, 3)) / (real.sum() * weights.shape[0])
