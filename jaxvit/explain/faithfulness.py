"""Is a map right? Deletion and insertion curves, and where the mass of a map lies."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError
from jaxvit.explain import taps
from jaxvit.models.layers import Array


def cell_order(maps: Any, cell: int) -> np.ndarray:
    """Squares of `cell` pixels from the most to the least important: maps [b, h, w] -> int [b, cells], row by row."""
    maps = np.asarray(maps)
    b, h, w = maps.shape
    if h % cell or w % cell:
        raise UserError(f"maps of {h}x{w} are not divisible into squares of {cell} pixels.")
    means = maps.reshape(b, h // cell, cell, w // cell, cell).mean((2, 4)).reshape(b, -1)
    return np.argsort(-means, axis=1, kind="stable")


def blur(images: Any, sigma: float = 5.0) -> np.ndarray:
    """Images [b, h, w, c] under a Gaussian of `sigma` pixels, cut at three sigmas: what insertion starts from."""
    images = np.asarray(images, np.float32)
    reach = np.arange(-round(3 * sigma), round(3 * sigma) + 1)
    kernel = np.exp(-(reach**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (1, 2):
        pad = [(len(reach) // 2,) * 2 if a == axis else (0, 0) for a in range(4)]
        padded, n = np.pad(images, pad, mode="symmetric"), images.shape[axis]
        images = sum(k * padded.take(range(i, i + n), axis) for i, k in enumerate(kernel))  # type: ignore[assignment]
    return images


@partial(jax.jit, static_argnames=("model", "cell", "several"))
def _probability(
    variables: Any,
    start: Array,
    end: Array,
    rank: Array,
    n: Array,
    index: Array,
    *,
    model: Any,
    cell: int,
    several: bool,
) -> Array:
    """Probability of the class with the first `n` cells (rank < n) taken from `end`: [b]."""
    b, h, w, _ = start.shape
    changed = (rank < n).reshape(b, h // cell, w // cell).repeat(cell, 1).repeat(cell, 2)[..., None]
    logits = model.apply(variables, jnp.where(changed, end, start))
    return taps.pick_logits(jax.nn.sigmoid(logits) if several else jax.nn.softmax(logits, axis=-1), index)


def curve(
    model: nn.Module,
    variables: Any,
    start: Any,
    end: Any,
    order: Any,
    class_index: Any,
    *,
    cell: int,
    steps: int = 14,
    several: bool = False,
) -> np.ndarray:
    """Probabilities [b, steps + 1] of a class while squares of `start` become those of `end`, in `order` [b, cells].

    Deletion (Petsiuk et al., 2018, RISE) goes from the image to its mean colour (zeros), insertion from a blurred
    image to the image. The mean over the curve is its area: low is good for deletion, high for insertion.
    `several` is for models of several labels per image, whose probabilities are sigmoids.
    """
    start, end = (taps.check_inputs(model, variables, images) for images in (start, end))
    index = taps.check_classes(model, class_index, start.shape[0])
    rank = jnp.argsort(jnp.asarray(order), axis=1)
    counts = np.round(np.linspace(0, rank.shape[1], steps + 1)).astype(np.int32)
    run = partial(_probability, variables, start, end, rank, model=model, cell=cell, several=several)
    return np.stack([np.asarray(run(n, index)) for n in counts], axis=1)


def area(curves: Any) -> np.ndarray:
    """Area under curves [b, steps + 1] over [0, 1] by the trapezoid rule: [b]."""
    curves = np.asarray(curves)
    return (curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2


def cell_of(size: tuple[int, int], across: int = 14) -> int:
    """The side in pixels of squares that divide (height, width), about `across` of them along the shorter side."""
    sides = [n for n in range(1, min(size) + 1) if size[0] % n == size[1] % n == 0]
    return min(sides, key=lambda n: (abs(min(size) / n - across), n))


class Scores(NamedTuple):
    """Areas under the curves of maps, and of squares in random order, each [b]: what there is to be beaten."""

    deletion: np.ndarray
    insertion: np.ndarray
    random_deletion: np.ndarray
    random_insertion: np.ndarray


def scores(
    model: nn.Module, variables: Any, images: Any, maps: Any, class_index: Any, *, several: bool = False, seed: int = 0
) -> Scores:
    """Returns the deletion and insertion areas of maps [b, h, w] (Petsiuk et al., 2018), and those of a random order.

    A map that found what the model uses has a deletion below the random one and an insertion above it. 60 passes for
    each image; the random order is the same for every image. Raises UserError as `curve`.
    """
    images = np.asarray(taps.check_inputs(model, variables, images), np.float32)
    if (shape := np.shape(maps)) != images.shape[:3]:
        raise UserError(f"maps have shape {shape}; expected one for each image, {images.shape[:3]}.")
    cell = cell_of(taps.size_of(images))
    order = cell_order(maps, cell)
    by_chance = np.broadcast_to(np.random.default_rng(seed).permutation(order.shape[1]), order.shape)
    pairs = ((images, np.zeros_like(images)), (blur(images), images))
    areas = [
        area(curve(model, variables, start, end, squares, class_index, cell=cell, several=several))
        for squares in (order, by_chance)
        for start, end in pairs
    ]
    return Scores(*areas)


def side_by_side(left: Any, right: Any, size: tuple[int, int]) -> np.ndarray:
    """Two uint8 photos [h, w, 3], each squeezed into half of an image of `size` (height, width)."""
    from PIL import Image

    h, w = size
    halves = [Image.fromarray(np.asarray(x)).resize((w // 2, h), Image.Resampling.BICUBIC) for x in (left, right)]
    return np.concatenate([np.asarray(x) for x in halves], axis=1)


def share_on(maps: Any, half: str) -> np.ndarray:
    """Share of each map's mass [b, h, w] on its "left" or "right" half: [b]; a half of none is 0."""
    maps = np.asarray(maps)
    middle = maps.shape[2] // 2
    mass = maps[:, :, :middle] if half == "left" else maps[:, :, middle:]
    total = maps.sum((1, 2))
    return np.where(total > 0, mass.sum((1, 2)) / np.where(total > 0, total, 1), 0.0)
