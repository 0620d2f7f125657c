"""Two images into one, and none in a box: mixup, CutMix, random erasing; images [b, h, w, c], targets [b, k]."""

import jax
import jax.numpy as jnp

from jaxvit.data.augment.colour import per_image, where_any
from jaxvit.data.augment.geometry import draw_boxes, first_box, in_box

Array = jax.Array
ERASED_AREA = (0.02, 1 / 3)  # timm's shares of the image, and sides' ratios
ERASED_RATIO = (0.3, 1 / 0.3)
NOISE_STD = 0.25  # of pixels in [0, 1]: about that of photographs


def mix(
    key: Array,
    images: Array,
    targets: Array,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    prob: float = 1.0,
    switch_prob: float = 0.5,
) -> tuple[Array, Array]:
    """Mixes each image with the one as far from the end of the batch, by mixup or by CutMix; timm's mode "elem".

    The share of the own image is drawn per image from Beta(alpha, alpha). The targets are mixed with the same share;
    that of CutMix is the area that stays. (Zhang et al. 2018; Yun et al. 2019)

    Args:
      key: a JAX key.
      images: [b, h, w, c].
      targets: [b, k], sums of 1, or 0 for an image that is to be mixed into no other.
      mixup_alpha: 0 for no mixup.
      cutmix_alpha: 0 for no CutMix.
      prob: probability that an image is mixed at all.
      switch_prob: probability of CutMix where both are on.
    """
    b = images.shape[0]
    apply_key, switch_key, share_key, place_key = jax.random.split(key, 4)
    switch = 0.0 if not cutmix_alpha else switch_prob if mixup_alpha else 1.0
    cut = jax.random.bernoulli(switch_key, switch, (b,))
    alpha = jnp.where(cut, cutmix_alpha or 1.0, mixup_alpha or 1.0)
    share = symmetric_beta(share_key, alpha)
    good = jnp.sum(targets, axis=-1)[::-1] > 0
    share = jnp.where(jax.random.bernoulli(apply_key, prob, (b,)) & good, share, 1.0)

    box, area = cutmix_boxes(place_key, share, images.shape[1:3])
    share = jnp.where(cut, 1.0 - area, share)

    def mixed(images: Array) -> Array:
        other = images[::-1]
        pasted = jnp.where(in_box(box, (images.shape[1], images.shape[2])), other, images)
        blended = per_image(share) * images + per_image(1.0 - share) * other
        return jnp.where(per_image(cut), pasted, blended)

    images = where_any(share < 1.0, mixed, images)
    return images, share[:, None] * targets + (1.0 - share)[:, None] * targets[::-1]


def symmetric_beta(key: Array, alpha: Array) -> Array:
    """Draws from Beta(alpha, alpha), one for each of `alpha` [b], without a loop, from two uniform numbers each.

    Bailey (1994) draws Student's t as Box and Muller draw the normal distribution, T^2 = n (U^(-2/n) - 1) cos^2(2 pi V)
    with the sign of the cosine; (1 + T / sqrt(n + T^2)) / 2 with n = 2 alpha is then Beta(alpha, alpha).
    `jax.random.beta` rejects in loops, whose ends a GPU reads on the host.
    """
    radius_key, angle_key = jax.random.split(key)
    r = jax.random.uniform(radius_key, alpha.shape, minval=jnp.finfo(jnp.float32).tiny) ** (1.0 / alpha)
    cosine = jnp.cos(2 * jnp.pi * jax.random.uniform(angle_key, alpha.shape))
    tangent = jnp.sqrt((1.0 - r) / jnp.maximum(r + (1.0 - r) * jnp.square(cosine), 1e-30))
    return jnp.clip(0.5 * (1.0 + cosine * tangent), 0.0, 1.0)


def cutmix_boxes(key: Array, share: Array, size: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns boxes int32 [b, 4] (top, left, height, width) of about 1 - share of the area, and their exact area [b].

    Their centre is anywhere in the image, and they are cut off at its border.
    """
    h, w = size
    side = jnp.sqrt(1.0 - share)
    edges = []
    for axis_key, length in zip(jax.random.split(key), (h, w), strict=True):
        centre = jax.random.randint(axis_key, share.shape, 0, length)
        cut = jnp.floor(length * side).astype(jnp.int32)
        edges.append((jnp.clip(centre - cut // 2, 0, length), jnp.clip(centre + (cut + 1) // 2, 0, length)))
    (top, bottom), (left, right) = edges
    box = jnp.stack([top, left, bottom - top, right - left], -1)
    return box, (bottom - top) * (right - left) / (h * w)


def random_erasing(key: Array, images: Array, prob: float, mode: str = "pixel", fill: float = 0.5) -> Array:
    """Erases one random box in each image with probability `prob` (Zhong et al. 2020), boxes as timm's.

    `mode` "const" fills with `fill`, "pixel" with normal noise about it; timm does the same about the data's mean.
    """
    b, h, w, _ = images.shape
    apply_key, box_key, noise_key = jax.random.split(key, 3)
    height, width, place = draw_boxes(box_key, b, (h, w), ERASED_AREA, ERASED_RATIO)
    fits = (height < h) & (width < w)
    erase = jax.random.bernoulli(apply_key, prob, (b,)) & fits.any(-1)
    inside = in_box(first_box(height, width, place, fits, (h, w)), (h, w))

    def erased(images: Array) -> Array:
        new = jnp.full_like(images, fill)
        if mode == "pixel":
            new = jnp.clip(new + NOISE_STD * jax.random.normal(noise_key, images.shape, images.dtype), 0.0, 1.0)
        return jnp.where(inside, new, images)

    return where_any(erase, erased, images)
