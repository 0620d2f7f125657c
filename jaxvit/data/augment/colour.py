"""What pixels become: tone and colour operations on float images [b, h, w, c] in [0, 1], with one strength per image.

They follow Pillow's ImageOps and ImageEnhance, without the rounding to bytes except where bytes are what the operation
is about (posterise, solarise, equalise). Operations on colour leave images alone that have not three channels.
dm-pix has the hue. Its brightness adds instead of scaling, its contrast works about the mean of each channel and its
saturation in HSV, which is not what timm's and torchvision's recipes mean.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601-2, as Pillow's "L"
MOST_BLUR = 2.0  # pixels


def per_image(values: Array) -> Array:
    """[b] -> [b, 1, 1, 1]."""
    return values[:, None, None, None]


def where_any(chosen: Array, operation: Callable[[Array], Array], images: Array) -> Array:
    """Applies `operation` to the images where `chosen` [b] holds.

    On a CPU it costs nothing if that is none, and the result is kept in memory, where XLA would compute it anew for
    each of its readers. Elsewhere it is computed in any case: of a large batch some image is nearly always chosen, and
    a GPU would wait for the host to read the condition.
    """

    def always(chosen: Array, images: Array) -> Array:
        return jnp.where(per_image(chosen), operation(images), images)

    def if_any(chosen: Array, images: Array) -> Array:
        return jax.lax.cond(chosen.any(), always, lambda _, images: images, chosen, images)

    return jax.lax.platform_dependent(chosen, images, cpu=if_any, default=always)


def luma(images: Array) -> Array:
    """Returns the grey image, [..., h, w, 1]; images of another depth than 3 are returned as they are."""
    if images.shape[-1] != 3:
        return images
    return LUMA[0] * images[..., :1] + LUMA[1] * images[..., 1:2] + LUMA[2] * images[..., 2:]


def blend(images: Array, other: Array, factor: Array) -> Array:
    """Returns other + factor (images - other), clipped to [0, 1]; factor [b], 1 = the images."""
    return jnp.clip(other + per_image(factor) * (images - other), 0.0, 1.0)


def brightness(images: Array, factor: Array) -> Array:
    """Blends with black; factor [b] of 0 or more."""
    return blend(images, jnp.zeros_like(images), factor)


def contrast(images: Array, factor: Array) -> Array:
    """Blends with the mean of the grey image; factor [b]."""
    return blend(images, luma(images.mean((1, 2), keepdims=True)).mean(-1, keepdims=True), factor)


def saturation(images: Array, factor: Array) -> Array:
    """Blends with the grey image; factor [b]."""
    return blend(images, luma(images), factor) if images.shape[-1] == 3 else images


def sharpness(images: Array, factor: Array) -> Array:
    """Blends with the smoothed image (weights 1, in the middle 5, of 13; the border as it is); factor [b]."""
    return blend(images, smooth(images), factor)


def smooth(images: Array) -> Array:
    """Pillow's SMOOTH filter by shifted sums: a convolution with one channel per group is slow on the CPU."""
    if min(images.shape[1:3]) < 3:
        return images
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = (box + 4.0 * images[:, 1:-1, 1:-1]) / 13.0
    return images.at[:, 1:-1, 1:-1].set(inner)


def gaussian_blur(images: Array, sigma: Array) -> Array:
    """Blurs with a Gaussian of standard deviation sigma [b] pixels, at most MOST_BLUR; the border is repeated."""
    reach = math.ceil(3.0 * MOST_BLUR)
    steps = jnp.arange(-reach, reach + 1)[None, :]
    weights = jnp.exp(-0.5 * (steps / sigma[:, None]) ** 2)
    weights = weights / weights.sum(-1, keepdims=True)  # [b, 2 reach + 1]
    for axis in (1, 2):  # shifted sums: a convolution with one channel per group is slow on the CPU
        side, around = images.shape[axis], [(0, 0)] * 4
        around[axis] = (reach, reach)
        padded = jnp.pad(images, around, mode="edge")
        images = jnp.zeros_like(images)
        for i in range(2 * reach + 1):
            images += per_image(weights[:, i]) * jax.lax.slice_in_dim(padded, i, i + side, axis=axis)
    return images


def hue(images: Array, delta: Array) -> Array:
    """Turns the hue by delta [b] of a full circle."""
    if images.shape[-1] != 3:
        return images
    import dm_pix

    turn: Any = dm_pix.adjust_hue
    return jax.vmap(turn)(images, delta)


def posterize(images: Array, bits: Array) -> Array:
    """Keeps the `bits` [b] most significant bits of eight, 0 to 8."""
    step = per_image(jnp.asarray(2.0 ** (8 - np.arange(9)), jnp.float32)[bits.astype(jnp.int32)])
    return jnp.floor(_bytes(images) / step) * step / 255.0


def solarize(images: Array, threshold: Array) -> Array:
    """Inverts what is at least `threshold` [b], of 255."""
    return jnp.where(_bytes(images) >= per_image(threshold), 1.0 - images, images)


def solarize_add(images: Array, amount: Array) -> Array:
    """Adds `amount` [b], of 255, to what is darker than 128."""
    return jnp.where(_bytes(images) < 128, jnp.minimum(images + per_image(amount) / 255.0, 1.0), images)


def invert(images: Array) -> Array:
    """Returns the negative."""
    return 1.0 - images


def autocontrast(images: Array) -> Array:
    """Stretches each channel of each image to [0, 1]; a constant channel stays."""
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    flat = high <= low
    return jnp.where(flat, images, (images - low) / jnp.where(flat, 1.0, high - low))


def equalize(images: Array) -> Array:
    """Flattens the histogram of each channel of each image, by Pillow's integer formula."""
    b, h, w, c = images.shape
    values = _bytes(images).astype(jnp.int32).reshape(b, h * w, c)
    places = values * c + jnp.arange(c)[None, None]  # in a table [256, c] laid out flat
    empty = jnp.zeros(256 * c, jnp.int32)
    counts = jax.vmap(lambda at: empty.at[at].add(1, mode="promise_in_bounds"))(places.reshape(b, -1))
    # Whole numbers below 2^20 as floats: their division is a hundred times faster than that of integers. The half keeps
    # quotients off the border between two whole numbers.
    counts = counts.reshape(b, 256, c).astype(jnp.float32)
    last = jnp.take_along_axis(counts, values.max(1, keepdims=True), axis=1)  # [b, 1, c]
    step = jnp.floor((h * w - last + 0.5) / 255.0)
    # The sum of what is darker, as a matmul: XLA on the CPU would repeat a cumsum for every pixel that reads the table.
    darker = jnp.asarray(np.tri(256, k=-1), jnp.float32)
    below = jnp.einsum("ij,bjc->bic", darker, counts, precision="highest")
    table = jnp.floor((below + jnp.floor(step / 2.0) + 0.5) / jnp.maximum(step, 1.0))
    table = jnp.where(step > 0, jnp.clip(table, 0.0, 255.0), jnp.arange(256.0)[None, :, None]) / 255.0
    read = jax.vmap(lambda row, at: row.at[at].get(mode="promise_in_bounds"))
    return read(table.reshape(b, -1), places).reshape(images.shape)


def random_jitter(key: Array, images: Array, strengths: tuple[float, float, float, float]) -> Array:
    """Changes brightness, contrast, saturation and hue of each image, in random order; torchvision's ColorJitter.

    Args:
      key: a JAX key.
      images: [b, h, w, c].
      strengths: of the four: factors are uniform in [max(0, 1 - s), 1 + s], the hue turns by up to ±s (at most 0.5).
    """
    b = images.shape[0]
    factor_key, hue_key, order_key = jax.random.split(key, 3)
    s = jnp.asarray(strengths[:3], jnp.float32)[None]
    unit = jax.random.uniform(factor_key, (b, 3))
    low, high = jnp.maximum(0.0, 1.0 - s), 1.0 + s
    factors = low + unit * (high - low)
    turn = jax.random.uniform(hue_key, (b,), minval=-strengths[3], maxval=strengths[3])
    on = [i for i, strength in enumerate(strengths) if strength]
    order = jax.random.permutation(order_key, jnp.tile(jnp.asarray(on)[None], (b, 1)), axis=1, independent=True)
    for slot in range(len(on)):
        now = order[:, slot]
        if strengths[3]:
            turned = jnp.where(now == 3, turn, 0.0)
            images = where_any(now == 3, lambda x, turned=turned: hue(x, turned), images)
        grey = luma(images)
        other = jnp.where(per_image(now == 1), grey.mean((1, 2, 3), keepdims=True), grey)
        other = jnp.where(per_image(now == 0), 0.0, other)
        factor = jnp.where(now < 3, jnp.take_along_axis(factors, jnp.minimum(now, 2)[:, None], axis=1)[:, 0], 1.0)
        images = blend(images, other, factor)
    return images


def _bytes(images: Array) -> Array:
    """The nearest of 0 ... 255, as floats."""
    return jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0)
