"""Gradients of a logit with respect to pixels: integrated gradients and SmoothGrad."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.explain import taps
from jaxvit.models.layers import Array
from jaxvit.ops import loops

PERCENTILE = 99.0  # brighter pixels count as this bright (Smilkov et al., 2017)


@partial(jax.jit, static_argnames=("model",))
def _predicted(variables: Any, images: Array, *, model: Any) -> Array:
    return jnp.argmax(model.apply(variables, images), axis=-1).astype(jnp.int32)


@partial(jax.jit, static_argnames=("model",))
def _gradient(variables: Any, images: Array, class_index: Array, *, model: Any) -> Array:
    def score(images: Array) -> Array:
        return jnp.sum(taps.pick_logits(model.apply(variables, images), class_index))

    return jax.grad(score)(images).astype(jnp.float32)


@jax.jit
def _brightness(attributions: Array) -> Array:
    maps = jnp.sum(jnp.abs(attributions), axis=-1)
    most = jnp.percentile(maps, PERCENTILE, axis=(1, 2), keepdims=True)
    return taps.to_unit(jnp.where(most > 0, jnp.minimum(maps, most), maps))


def _prepare(model: nn.Module, variables: Any, images: Any, class_index: Any) -> tuple[nn.Module, Array, Array]:
    model, images = taps.plain(model), taps.check_images(model, images)
    index = taps.check_classes(model, class_index, images.shape[0])
    # The class of the image itself, not of the points on the way to it.
    return model, images, index if class_index is not None else _predicted(variables, images, model=model)


def integrated_gradients(
    model: nn.Module, variables: Any, images: Any, class_index: Any = None, *, steps: int = 32, baseline: Any = 0.0
) -> Array:
    """Attributions [b, h, w, c] whose sum is the logit's rise from `baseline` to the image (Sundararajan et al., 2017).

    The path is straight, with `steps` midpoints; a baseline of 0 is the mean colour of the training images.
    """
    model, images, index = _prepare(model, variables, images, class_index)
    base = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)

    def add(total: Array, i: int) -> Array:
        return total + _gradient(variables, base + (i + 0.5) / steps * (images - base), index, model=model)

    total = loops.fold(add, jnp.zeros(images.shape, jnp.float32), steps)
    return total / steps * (images - base)


def smooth_grad(
    model: nn.Module,
    variables: Any,
    images: Any,
    class_index: Any = None,
    *,
    samples: int = 16,
    noise: float = 0.15,
    key: Array | None = None,
) -> Array:
    """Mean gradient [b, h, w, c] over noisy copies of each image (Smilkov et al., 2017).

    `noise` is the standard deviation as a share of the image's range; the same key gives the same map.
    """
    model, images, index = _prepare(model, variables, images, class_index)
    key = jax.random.key(0) if key is None else key
    axes = (1, 2, 3)
    sigma = noise * (jnp.max(images, axes, keepdims=True) - jnp.min(images, axes, keepdims=True))

    def add(total: Array, i: int) -> Array:
        draw = jax.random.normal(jax.random.fold_in(key, i), images.shape, images.dtype)
        return total + _gradient(variables, images + sigma * draw, index, model=model)

    return loops.fold(add, jnp.zeros(images.shape, jnp.float32), samples) / samples


# (model, variables, images, class_index) -> [b, h, w] in [0, 1]: the sum over channels of what is not signed
PIXEL_METHODS: dict[str, Callable[[nn.Module, Any, Array, Any], Array]] = {
    "integrated_gradients": lambda *args: _brightness(integrated_gradients(*args)),
    "smoothgrad": lambda *args: _brightness(smooth_grad(*args)),
}
