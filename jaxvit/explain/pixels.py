"""Gradients of a logit with respect to pixels: integrated gradients and SmoothGrad."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.errors import check_number, check_whole
from jaxvit.explain import taps
from jaxvit.models.layers import Array
from jaxvit.ops import loops

PERCENTILE = 99.0  # brighter pixels count as this bright (Smilkov et al., 2017)


@partial(jax.jit, static_argnames=("model",))
def _logits(variables: Any, images: Array, class_index: Array, *, model: Any) -> Array:
    return taps.pick_logits(model.apply(variables, images), class_index).astype(jnp.float32)


@partial(jax.jit, static_argnames=("model",))
def _gradient(variables: Any, images: Array, class_index: Array, *, model: Any) -> Array:
    def score(images: Array) -> Array:
        return jnp.sum(taps.pick_logits(model.apply(variables, images), class_index))

    return jax.grad(score)(images).astype(jnp.float32)


@jax.jit
def brightness(attributions: Array) -> Array:
    """Attributions [b, h, w, c] as maps [b, h, w] in [0, 1]: sizes summed over channels, the largest 1 % cut off."""
    maps = jnp.sum(jnp.abs(attributions), axis=-1)
    most = jnp.percentile(maps, PERCENTILE, axis=(1, 2), keepdims=True)
    return taps.to_unit(jnp.where(most > 0, jnp.minimum(maps, most), maps))


def integrated_gradients(
    model: nn.Module,
    variables: Any,
    images: Any,
    class_index: Any = None,
    *,
    steps: int = 32,
    baseline: Any = 0.0,
    progress: Callable[[int], None] | None = None,
) -> Array:
    """Attributions [b, h, w, c] whose sum is the logit's rise from `baseline` to the image (Sundararajan et al., 2017).

    The path is straight, with `steps` midpoints; a baseline of 0 is the mean colour of the training images. How near
    the sum comes is what `completeness` says. `progress` is called with the number of passes done since the last call.
    """
    model, images, index = taps.prepare(model, variables, images, class_index)
    base = taps.broadcast("baseline", baseline, images)
    check_whole("steps", steps)

    def add(total: Array, i: int) -> Array:
        found = _gradient(variables, base + (i + 0.5) / steps * (images - base), index, model=model)
        return _count(total + found, len(images), progress)

    total = loops.fold(add, jnp.zeros(images.shape, jnp.float32), steps)
    return total / steps * (images - base)


class Completeness(NamedTuple):
    """What attributions sum to, and what they should: both [b], in logits."""

    total: Array
    rise: Array


def completeness(
    model: nn.Module, variables: Any, images: Any, attributions: Any, class_index: Any = None, *, baseline: Any = 0.0
) -> Completeness:
    """Returns the sum of attributions [b, h, w, c] and the logit's rise from the baseline to the image.

    Integrated gradients are complete: with enough steps the two are equal (Sundararajan et al., 2017, proposition 1).
    Where they are not, the path was too coarse, and the map shows something else; give more `steps`.
    """
    model, images, index = taps.prepare(model, variables, images, class_index)
    end, start = (
        _logits(variables, x, index, model=model) for x in (images, taps.broadcast("baseline", baseline, images))
    )
    return Completeness(jnp.sum(jnp.asarray(attributions, jnp.float32), axis=(1, 2, 3)), end - start)


def _count(found: Array, passes: int, progress: Callable[[int], None] | None) -> Array:
    """Returns `found`, once it is there where somebody watches: a bar that runs ahead of the work says nothing."""
    if progress is not None:
        found.block_until_ready()
        progress(passes)
    return found


def smooth_grad(
    model: nn.Module,
    variables: Any,
    images: Any,
    class_index: Any = None,
    *,
    samples: int = 16,
    noise: float = 0.15,
    key: Array | None = None,
    progress: Callable[[int], None] | None = None,
) -> Array:
    """Mean gradient [b, h, w, c] over noisy copies of each image (Smilkov et al., 2017).

    `noise` is the standard deviation as a share of the image's range; the same key gives the same map.
    `progress` is called with the number of passes done since the last call.
    """
    model, images, index = taps.prepare(model, variables, images, class_index)
    check_whole("samples", samples)
    check_number("noise", noise)
    key = jax.random.key(0) if key is None else key
    axes = (1, 2, 3)
    sigma = noise * (jnp.max(images, axes, keepdims=True) - jnp.min(images, axes, keepdims=True))

    def add(total: Array, i: int) -> Array:
        draw = jax.random.normal(jax.random.fold_in(key, i), images.shape, images.dtype)
        return _count(total + _gradient(variables, images + sigma * draw, index, model=model), len(images), progress)

    return loops.fold(add, jnp.zeros(images.shape, jnp.float32), samples) / samples


# (model, variables, images, class_index) -> [b, h, w] in [0, 1]: the sum over channels of what is not signed
PIXEL_METHODS: dict[str, Callable[[nn.Module, Any, Array, Any], Array]] = {
    "integrated_gradients": lambda *args: brightness(integrated_gradients(*args)),
    "smoothgrad": lambda *args: brightness(smooth_grad(*args)),
}
