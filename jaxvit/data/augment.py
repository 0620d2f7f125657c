"""Image operations inside the jitted step: pure, key first, any batch size; float images [b, h, w, c]."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError, suggest

# timm's words -> jax.image's. Bicubic: Keys' a is -0.5 in both Pillow and jax.image.
RESIZE_METHODS = {"bicubic": "cubic", "bilinear": "linear", "nearest": "nearest", "lanczos": "lanczos3"}
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601-2 luma, as Pillow's "L"


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Returns (images / 255 - mean) / std as float32; images uint8 [..., c], mean and std in [0, 1] units."""
    shape = (1,) * (images.ndim - 1) + (-1,)
    mean_, std_ = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - mean_) / std_


def resize(
    images: jax.Array, size: int | tuple[int, int], method: str = "bicubic", antialias: bool = True
) -> jax.Array:
    """Returns float images resized to `size` pixels (one side or (h, w)); [..., h, w, c], the aspect may change.

    uint8 in becomes float32 in [0, 255], rounded nowhere and clipped to that range (bicubic overshoots).
    """
    h, w = (size, size) if isinstance(size, int) else size
    if images.shape[-3:-1] == (h, w):
        return images.astype(jnp.float32) if images.dtype == jnp.uint8 else images
    if method not in RESIZE_METHODS:
        raise UserError(f"no interpolation {method!r}; expected one of {', '.join(RESIZE_METHODS)}.")
    from_bytes = images.dtype == jnp.uint8
    images = images.astype(jnp.float32) if from_bytes else images
    shape = (*images.shape[:-3], h, w, images.shape[-1])
    images = jax.image.resize(images, shape, RESIZE_METHODS[method], antialias=antialias)
    return jnp.clip(images, 0.0, 255.0) if from_bytes else images


def to_channels(images: jax.Array, in_channels: int) -> jax.Array:
    """Returns images [..., c] with `in_channels` channels: grey is repeated, colour becomes luma (ITU-R 601-2)."""
    channels = images.shape[-1]
    if channels == in_channels:
        return images
    if channels == 1:
        return jnp.repeat(images, in_channels, axis=-1)
    if channels == 3 and in_channels == 1:
        weights = _GREY.reshape((1,) * (images.ndim - 1) + (3,))
        grey = (images.astype(jnp.float32) * weights).sum(-1, keepdims=True)
        return jnp.rint(grey).astype(images.dtype) if images.dtype == jnp.uint8 else grey.astype(images.dtype)
    raise UserError(f"images have {channels} channels, the model takes {in_channels}; only 1 and 3 convert.")


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Pads every side by `padding` zeros and cuts [h, w] at a random place, one per image; [b, h, w, c]."""
    b, h, w, c = images.shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    offsets = jax.random.randint(key, (b, 2), 0, 2 * padding + 1)

    def cut(image, offset):
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], jnp.zeros_like(offset[0])), (h, w, c))

    return jax.vmap(cut)(padded, offsets)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability 1/2; [b, h, w, c]."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def _crop(padding: int) -> Callable | None:
    if isinstance(padding, bool) or padding != int(padding) or padding < 0:
        raise UserError(f"crop_padding is {padding}; expected a whole number of pixels, 0 for none.")
    return (lambda key, images, targets: (random_crop(key, images, int(padding)), targets)) if padding else None


def _flip(on: bool) -> Callable | None:
    return (lambda key, images, targets: (random_flip(key, images), targets)) if on else None


# In the order they are applied: name -> (value -> (key, images, targets) -> (images, targets), or None for off).
OPERATIONS: dict[str, Callable[[Any], Callable | None]] = {
    "crop_padding": _crop,
    "flip": _flip,
}


def make_augment(options: Mapping[str, Any]) -> Callable:
    """Returns f(key, images [b, h, w, c], targets [b, k]) -> (images, targets), the operations that `options` ask for.

    `options` maps names of OPERATIONS to their values; each operation draws from a key of its own, which does not
    change when another one is switched on or off.
    """
    for name in options:
        if name not in OPERATIONS:
            raise UserError(
                f"no augmentation {name!r}; expected one of {', '.join(OPERATIONS)}.{suggest(name, OPERATIONS)}"
            )
    made = [(i, make(options[name])) for i, (name, make) in enumerate(OPERATIONS.items()) if name in options]
    active = [(i, operation) for i, operation in made if operation is not None]

    def augment(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        for i, operation in active:
            images, targets = operation(jax.random.fold_in(key, i), images, targets)
        return images, targets

    return augment
