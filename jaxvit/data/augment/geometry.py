"""Where pixels come from: crops, flips and one shared affine warp; float images [b, h, w, c], key first.

Coordinates are Pillow's: x to the right, y down, the centre of the first pixel at (0.5, 0.5). A matrix [b, 2, 3] leads
from a place in the output to the place in the input that is read there.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
_ATTEMPTS = 10  # draws of a box before the fallback, as in torchvision and timm


def warp(images: Array, matrices: Array, fill: float = 0.0, box: Array | None = None) -> Array:
    """Reads the images at affine places, bilinear, as Pillow's `transform`.

    Args:
      images: [b, h, w, c].
      matrices: [b, 2, 3], (x, y, 1) in the output -> (x, y) in the input.
      fill: what lies outside the image.
      box: int32 [b, 4] (top, left, height, width), beyond which nothing is read: its edge is repeated by
        interpolation, and `fill` lies outside. The whole image where None.
    """
    b, h, w, c = images.shape
    box = jnp.tile(jnp.array([[0, 0, h, w]]), (b, 1)) if box is None else box
    top, left, bottom, right = (
        v[:, None, None] for v in (box[:, 0], box[:, 1], box[:, 0] + box[:, 2], box[:, 1] + box[:, 3])
    )
    x_out, y_out = (jnp.arange(w) + 0.5)[None, None, :], (jnp.arange(h) + 0.5)[None, :, None]
    x, y = (
        m[:, 0, None, None] * x_out + m[:, 1, None, None] * y_out + m[:, 2, None, None]
        for m in (matrices[:, 0], matrices[:, 1])
    )
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    x0, y0 = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
    dx, dy = (x - 0.5 - x0)[..., None], (y - 0.5 - y0)[..., None]
    # A gather within each image, not one over the flat batch: XLA can then split it over devices by images.
    pixels = images.reshape(b, h * w, c)

    def read(step_y: int, step_x: int) -> Array:
        row = jnp.clip(y0.astype(jnp.int32) + step_y, top, bottom - 1)
        column = jnp.clip(x0.astype(jnp.int32) + step_x, left, right - 1)
        return jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(pixels, row * w + column)

    upper = read(0, 0) * (1 - dx) + read(0, 1) * dx
    lower = read(1, 0) * (1 - dx) + read(1, 1) * dx
    return jnp.where(inside[..., None], upper * (1 - dy) + lower * dy, jnp.asarray(fill, images.dtype))


def inverse_affine(size: tuple[int, int], angle: Array, translate: Array, scale: Array, shear: Array) -> Array:
    """Returns matrices [b, 2, 3] that undo a rotation, scaling, shear and shift about the centre of `size` (h, w).

    The forward map is T C R(angle) S(scale) SHx(shear) C^-1, as in torchvision's `affine`: `angle` [b] and `shear` [b]
    in degrees (angle clockwise), `translate` [b, 2] in pixels (x, y), `scale` [b].
    """
    a, tan = jnp.deg2rad(angle), jnp.tan(jnp.deg2rad(shear))
    cos, sin = jnp.cos(a), jnp.sin(a)
    # R(a) SHx = [[cos, -cos tan - sin], [sin, cos - sin tan]], of determinant 1.
    linear = (
        jnp.stack([jnp.stack([cos - sin * tan, cos * tan + sin], -1), jnp.stack([-sin, cos], -1)], -2)
        / scale[:, None, None]
    )
    centre = jnp.array([[size[1] / 2, size[0] / 2]])
    offset = centre - jnp.einsum("bij,bj->bi", linear, centre + translate, precision="highest")
    return jnp.concatenate([linear, offset[..., None]], -1)


def random_crop(key: Array, images: Array, padding: int) -> Array:
    """Pads every side by `padding` zeros and cuts [h, w] at a random place, one per image; [b, h, w, c]."""
    b, h, w, c = images.shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    offsets = jax.random.randint(key, (b, 2), 0, 2 * padding + 1)

    def cut(image, offset):
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], jnp.zeros_like(offset[0])), (h, w, c))

    return jax.vmap(cut)(padded, offsets)


def random_flip(key: Array, images: Array) -> Array:
    """Mirrors each image left to right with probability 1/2; [b, h, w, c]."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def random_affine(
    key: Array, images: Array, degrees: float, translate: float, scale: tuple[float, float], shear: float, fill: float
) -> Array:
    """Rotates, shifts, scales and shears each image at random about its centre, as torchvision's `RandomAffine`.

    Uniform in ±degrees; in ±translate x side, whole pixels; in `scale` (min, max); in ±shear degrees along x.
    """
    b, h, w, _ = images.shape
    angle, shift, factor, slant = jax.random.split(key, 4)
    shifts = jax.random.uniform(shift, (b, 2), minval=-translate, maxval=translate) * jnp.array([[w, h]])
    matrices = inverse_affine(
        (h, w),
        jax.random.uniform(angle, (b,), minval=-degrees, maxval=degrees),
        jnp.round(shifts),
        jax.random.uniform(factor, (b,), minval=scale[0], maxval=scale[1]),
        jax.random.uniform(slant, (b,), minval=-shear, maxval=shear),
    )
    return warp(images, matrices, fill)


def random_resized_crop(
    key: Array, images: Array, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Array:
    """Cuts a random box out of each image and resizes it to [h, w], bilinear, as torchvision's `RandomResizedCrop`.

    Args:
      key: a JAX key.
      images: [b, h, w, c].
      scale: least and greatest share of the area; uniform.
      ratio: least and greatest width / height of the box; uniform in the logarithm.
    """
    h, w = images.shape[1:3]
    box = crop_boxes(key, images.shape[0], (h, w), scale, ratio)
    top, left, height, width = (box[:, i].astype(jnp.float32) for i in range(4))
    zero = jnp.zeros_like(top)
    rows = [jnp.stack([width / w, zero, left], -1), jnp.stack([zero, height / h, top], -1)]
    return warp(images, jnp.stack(rows, -2), box=box)


def crop_boxes(
    key: Array, b: int, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> Array:
    """Returns int32 [b, 4] (top, left, height, width): the first of ten draws to fit, else a centred box."""
    h, w = size
    height, width, place = draw_boxes(key, b, size, scale, ratio)
    fits = (height > 0) & (height <= h) & (width > 0) & (width <= w)
    box = first_box(height, width, place, fits, size)
    return jnp.where(fits.any(-1)[:, None], box, jnp.asarray(_centre_box(size, ratio))[None])


def draw_boxes(
    key: Array, b: int, size: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Array, Array, Array]:
    """Returns ten boxes per image: heights [b, 10], widths [b, 10] and their places in [0, 1), [b, 10, 2]."""
    h, w = size
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    areas = h * w * jax.random.uniform(area_key, (b, _ATTEMPTS), minval=area[0], maxval=area[1])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = jnp.exp(jax.random.uniform(ratio_key, (b, _ATTEMPTS), minval=low, maxval=high))
    height, width = (jnp.round(jnp.sqrt(v)).astype(jnp.int32) for v in (areas / ratios, areas * ratios))
    return height, width, jax.random.uniform(place_key, (b, _ATTEMPTS, 2))


def first_box(height: Array, width: Array, place: Array, fits: Array, size: tuple[int, int]) -> Array:
    """Returns int32 [b, 4] (top, left, height, width): the first draw for which `fits` [b, 10] holds."""
    h, w = size
    top = jnp.floor(place[..., 0] * (h - height + 1)).astype(jnp.int32)
    left = jnp.floor(place[..., 1] * (w - width + 1)).astype(jnp.int32)
    boxes = jnp.stack([top, left, height, width], -1)
    return jnp.take_along_axis(boxes, jnp.argmax(fits, -1)[:, None, None], axis=1)[:, 0]


def in_box(box: Array, size: tuple[int, int]) -> Array:
    """Returns bool [b, h, w, 1], True inside `box` int32 [b, 4] (top, left, height, width)."""
    top, left, height, width = (box[:, i, None, None] for i in range(4))
    y, x = jnp.arange(size[0])[None, :, None], jnp.arange(size[1])[None, None, :]
    return ((y >= top) & (y < top + height) & (x >= left) & (x < left + width))[..., None]


def _centre_box(size: tuple[int, int], ratio: tuple[float, float]) -> np.ndarray:
    h, w = size
    if w / h < ratio[0]:
        height, width = round(w / ratio[0]), w
    elif w / h > ratio[1]:
        height, width = h, round(h * ratio[1])
    else:
        height, width = h, w
    return np.array([(h - height) // 2, (w - width) // 2, height, width], np.int32)
