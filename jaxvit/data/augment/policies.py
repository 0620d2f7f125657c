"""Published policies as tables: RandAugment, AutoAugment, TrivialAugment, AugMix; and 3-Augment.

Images are float [b, h, w, c] in [0, 1].

A policy draws, for each image and slot, an operation and its strength; `apply` then carries out one slot for the whole
batch: one affine warp for everything geometric, one histogram, one filter, and one pass over the pixels for all else.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.data.augment import colour, geometry

Array = jax.Array

# Strengths: shear as a slope, translation in pixels, rotation in degrees, factors of 1 = unchanged, bits that stay,
# thresholds and sums of 255.
OPS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness", "posterize", "solarize", "solarize_add",
    "autocontrast", "equalize", "invert",
)  # fmt: skip


GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


class Range(NamedTuple):
    """What magnitudes in [0, 1] mean: base ± whole(start + magnitude (end - start)); if `share`, times the side."""

    start: float = 0.0
    end: float = 0.0
    signed: bool = False  # + or - with probability 1/2
    base: float = 0.0
    share: bool = False
    whole: str = "none"


_WHOLE: dict[str, Callable] = {"none": lambda x: x, "floor": jnp.floor, "ceil": jnp.ceil, "round": jnp.round}
_FACTOR, _FACTOR_WIDE = Range(0.0, 0.9, True, 1.0), Range(0.0, 0.99, True, 1.0)
_SHEAR, _ROTATE, _SOLARIZE = Range(0.0, 0.3, True), Range(0.0, 30.0, True), Range(255.0, 0.0)
_SHIFT = Range(0.0, 150 / 331, True, share=True, whole="floor")
_TONES = {"autocontrast": Range(), "equalize": Range()}
_FACTORS = ("brightness", "color", "contrast", "sharpness")

# timm's `rand-m9-mstd0.5-inc1`: every operation grows with the magnitude (Cubuk et al. 2020; DeiT's recipe).
RANDAUGMENT = {
    **_TONES, "invert": Range(), "rotate": _ROTATE,
    "posterize": Range(4, 0, whole="ceil"), "solarize": Range(256, 0, whole="ceil"),
    "solarize_add": Range(0, 110, whole="floor"), **dict.fromkeys(_FACTORS, _FACTOR),
    "shear_x": _SHEAR, "shear_y": _SHEAR,
    "translate_x": Range(0.0, 0.45, True, share=True), "translate_y": Range(0.0, 0.45, True, share=True),
}  # fmt: skip
# torchvision's spaces for the others.
AUTOAUGMENT = {
    **_TONES, "invert": Range(), "rotate": _ROTATE, "posterize": Range(8, 4, whole="round"), "solarize": _SOLARIZE,
    **dict.fromkeys(_FACTORS, _FACTOR), "shear_x": _SHEAR, "shear_y": _SHEAR,
    "translate_x": _SHIFT, "translate_y": _SHIFT,
}  # fmt: skip
TRIVIALAUGMENT = {
    **_TONES, "identity": Range(), "rotate": Range(0.0, 135.0, True), "posterize": Range(8, 2, whole="round"),
    "solarize": _SOLARIZE, **dict.fromkeys(_FACTORS, _FACTOR_WIDE),
    "shear_x": Range(0.0, 0.99, True), "shear_y": Range(0.0, 0.99, True),
    "translate_x": Range(0.0, 32.0, True, whole="floor"), "translate_y": Range(0.0, 32.0, True, whole="floor"),
}  # fmt: skip
AUGMIX = {
    **_TONES, "rotate": _ROTATE, "posterize": Range(4, 0, whole="round"), "solarize": _SOLARIZE,
    **dict.fromkeys(_FACTORS, _FACTOR), "shear_x": _SHEAR, "shear_y": _SHEAR,
    "translate_x": Range(0.0, 1 / 3, True, share=True, whole="floor"),
    "translate_y": Range(0.0, 1 / 3, True, share=True, whole="floor"),
}  # fmt: skip
MAGNITUDE_STD, OP_PROB = 0.5, 0.5  # of RandAugment, as timm's
LEAST_BLUR = 0.1  # pixels, of 3-Augment
AUGMIX_WIDTH, AUGMIX_DEPTH, AUGMIX_SEVERITY = 3, 3, 3

# Sub-policies (Cubuk et al. 2019): twice an operation, its probability and magnitude, 0 ... 9 (- where it has none).
CIFAR10 = """
invert .1 - contrast .2 6        rotate .7 2 translate_x .3 9      sharpness .8 1 sharpness .9 3
shear_y .5 8 translate_y .7 9    autocontrast .5 - equalize .9 -   shear_y .2 7 posterize .3 7
color .4 3 brightness .6 7       sharpness .3 9 brightness .7 9    equalize .6 - equalize .5 -
contrast .6 7 sharpness .6 5     color .7 7 translate_x .5 8       equalize .3 - autocontrast .4 -
translate_y .4 3 sharpness .2 6  brightness .9 6 color .2 8        solarize .5 2 invert 0 -
equalize .2 - autocontrast .6 -  equalize .2 - equalize .6 -       color .9 9 equalize .6 -
autocontrast .8 - solarize .2 8  brightness .1 3 color .7 0        solarize .4 5 autocontrast .9 -
translate_y .9 9 translate_y .7 9  autocontrast .9 - solarize .8 3 equalize .8 - invert .1 -
translate_y .7 9 autocontrast .9 -
"""
IMAGENET = """
posterize .4 8 rotate .6 9       solarize .6 5 autocontrast .6 -   equalize .8 - equalize .6 -
posterize .6 7 posterize .6 6    equalize .4 - solarize .2 4       equalize .4 - rotate .8 8
solarize .6 3 equalize .6 -      posterize .8 5 equalize 1 -       rotate .2 3 solarize .6 8
equalize .6 - posterize .4 6     rotate .8 8 color .4 0            rotate .4 9 equalize .6 -
equalize 0 - equalize .8 -       invert .6 - equalize 1 -          color .6 4 contrast 1 8
rotate .8 8 color 1 2            color .8 8 solarize .8 7          sharpness .4 7 invert .6 -
shear_x .6 5 equalize 1 -        color .4 0 equalize .6 -          equalize .4 - solarize .2 4
solarize .6 5 autocontrast .6 -  invert .6 - equalize 1 -          color .6 4 contrast 1 8
equalize .8 - equalize .6 -
"""


def apply(images: Array, op: Array, strength: Array, fill: float = 0.5) -> Array:
    """Returns each image after its operation: `op` int32 [b], an index of OPS, `strength` [b] in that one's unit."""
    is_ = lambda *names: jnp.isin(op, jnp.array([OPS.index(name) for name in names]))  # noqa: E731
    matrices = _matrices(op, strength, images.shape[1:3])
    images = colour.where_any(is_(*GEOMETRIC), lambda x: geometry.warp(x, matrices, fill), images)
    images = colour.where_any(is_("equalize"), colour.equalize, images)
    images = colour.where_any(is_("sharpness"), lambda x: colour.sharpness(x, strength), images)
    new = {
        "brightness": colour.brightness(images, strength),
        "color": colour.saturation(images, strength),
        "contrast": colour.contrast(images, strength),
        "posterize": colour.posterize(images, jnp.where(is_("posterize"), strength, 8)),
        "solarize": colour.solarize(images, strength),
        "solarize_add": colour.solarize_add(images, strength),
        "autocontrast": colour.autocontrast(images),
        "invert": colour.invert(images),
    }
    for name, changed in new.items():
        images = jnp.where(colour.per_image(is_(name)), changed, images)
    return images


def rand_augment(key: Array, images: Array, *, num_ops: int = 2, magnitude: float = 9.0, fill: float = 0.5) -> Array:
    """Applies `num_ops` operations, each with probability 1/2, at `magnitude` ± 0.5 (standard deviation) of 10."""
    keys = jax.random.split(key, 4)
    shape = (num_ops, images.shape[0])
    magnitudes = jnp.clip((magnitude + MAGNITUDE_STD * jax.random.normal(keys[0], shape)) / 10.0, 0.0, 1.0)
    op = _draw_op(keys[1], shape, RANDAUGMENT)
    op = jnp.where(jax.random.bernoulli(keys[2], OP_PROB, shape), op, 0)
    return _apply_all(keys[3], images, op, magnitudes, RANDAUGMENT, fill)


def trivial_augment(key: Array, images: Array, *, fill: float = 0.5) -> Array:
    """Applies one operation at one of 31 magnitudes, both uniform (Mueller and Hutter 2021, the wide space)."""
    keys = jax.random.split(key, 3)
    shape = (1, images.shape[0])
    magnitudes = jax.random.randint(keys[0], shape, 0, 31) / 30.0
    op = _draw_op(keys[1], shape, TRIVIALAUGMENT)
    return _apply_all(keys[2], images, op, magnitudes, TRIVIALAUGMENT, fill)


def auto_augment(key: Array, images: Array, *, table: str = CIFAR10, fill: float = 0.5) -> Array:
    """Applies a pair of operations drawn from `table`, each with its own probability and magnitude."""
    keys = jax.random.split(key, 3)
    ops, probs, magnitudes = read_table(table)
    b = images.shape[0]
    row = jax.random.randint(keys[0], (b,), 0, len(ops))
    chosen_op, prob, magnitude = (jnp.asarray(v)[row].T for v in (ops, probs, magnitudes))  # [2, b]
    op = jnp.where(jax.random.uniform(keys[1], (2, b)) < prob, chosen_op, 0)
    return _apply_all(keys[2], images, op, magnitude, AUTOAUGMENT, fill)


def aug_mix(key: Array, images: Array, *, fill: float = 0.5) -> Array:
    """Averages the image and three chains of one to three mild operations, weights random (Hendrycks et al. 2020)."""
    keys = jax.random.split(key, 6)
    b = images.shape[0]
    shape = (AUGMIX_DEPTH, AUGMIX_WIDTH * b)
    depth = jax.random.randint(keys[0], shape[1:], 1, AUGMIX_DEPTH + 1)
    magnitudes = jax.random.randint(keys[1], shape, 0, AUGMIX_SEVERITY) / 9.0
    op = _draw_op(keys[2], shape, AUGMIX)
    op = jnp.where(jnp.arange(AUGMIX_DEPTH)[:, None] < depth[None], op, 0)
    chains = jnp.tile(images, (AUGMIX_WIDTH, 1, 1, 1))
    chains = _apply_all(keys[3], chains, op, magnitudes, AUGMIX, fill).reshape(AUGMIX_WIDTH, *images.shape)
    mixed = jax.random.uniform(keys[4], (b,))  # Beta(1, 1)
    weights = jax.random.exponential(keys[5], (AUGMIX_WIDTH, b))  # over their sum: Dirichlet(1, 1, 1), without a loop
    weights = weights / weights.sum(0, keepdims=True)
    chain = (weights[..., None, None, None] * chains).sum(0)
    return colour.per_image(1.0 - mixed) * images + colour.per_image(mixed) * chain


def three_augment(key: Array, images: Array, *, fill: float = 0.5) -> Array:
    """One of greyscale, solarisation from 128 on, and a Gaussian blur of 0.1 to 2 pixels (Touvron et al. 2022)."""
    del fill  # nothing moves
    which, blur = jax.random.split(key)
    b = images.shape[0]
    op = jax.random.randint(which, (b,), 0, 3)
    sigma = jax.random.uniform(blur, (b,), minval=LEAST_BLUR, maxval=colour.MOST_BLUR)
    made = (
        jnp.broadcast_to(colour.luma(images), images.shape),
        colour.solarize(images, jnp.full((b,), 128.0)),
        colour.gaussian_blur(images, sigma),
    )
    for i, changed in enumerate(made):
        images = jnp.where(colour.per_image(op == i), changed, images)
    return images


POLICIES: dict[str, Callable] = {
    "randaugment": rand_augment,
    "autoaugment_cifar10": lambda key, images, fill: auto_augment(key, images, table=CIFAR10, fill=fill),
    "autoaugment_imagenet": lambda key, images, fill: auto_augment(key, images, table=IMAGENET, fill=fill),
    "trivialaugment": trivial_augment,
    "augmix": aug_mix,
    "three_augment": three_augment,
}


def read_table(table: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns operations int32, probabilities and magnitudes in [0, 1], each [n, 2], of a table of sub-policies."""
    words = np.array(table.split()).reshape(-1, 2, 3)
    ops = np.vectorize(OPS.index)(words[..., 0]).astype(np.int32)
    return ops, words[..., 1].astype(np.float32), np.char.replace(words[..., 2], "-", "0").astype(np.float32) / 9


def strengths(op: Array, magnitude: Array, positive: Array, space: Mapping[str, Range], size: tuple[int, int]) -> Array:
    """Returns the strengths that `space` gives to operations at magnitudes in [0, 1]; all of one shape.

    `positive` is the sign where the range has one; `size` is (h, w) of the images.
    """
    ranges = [space.get(name, Range()) for name in OPS]
    side = np.array([size[0] if name == "translate_y" else size[1] for name in OPS])
    scale = np.where([r.share for r in ranges], side, 1.0)
    start, end, base = (np.array([getattr(r, f) for r in ranges]) for f in ("start", "end", "base"))
    of_op = lambda values: jnp.asarray(values, jnp.float32)[op]  # noqa: E731
    value = of_op(start * scale) + magnitude * of_op((end - start) * scale)
    for name, rounded in _WHOLE.items():
        # The small number keeps 4 - 0.9 * 4 / 0.9 and its like on the right side of a whole number.
        nudge = {"floor": 1e-4, "ceil": -1e-4}.get(name, 0.0)
        value = jnp.where(jnp.asarray(np.array([r.whole == name for r in ranges]))[op], rounded(value + nudge), value)
    sign = jnp.where(positive | ~jnp.asarray(np.array([r.signed for r in ranges]))[op], 1.0, -1.0)
    return of_op(base) + sign * value


def _apply_all(
    key: Array, images: Array, op: Array, magnitude: Array, space: Mapping[str, Range], fill: float
) -> Array:
    """Applies the slots op [n, b] one after the other."""
    positive = jax.random.bernoulli(key, 0.5, op.shape)
    strength = strengths(op, magnitude, positive, space, (images.shape[1], images.shape[2]))
    for slot in range(op.shape[0]):
        images = apply(images, op[slot], strength[slot], fill)
    return images


def _draw_op(key: Array, shape: tuple[int, ...], space: Mapping[str, Range]) -> Array:
    return jax.random.choice(key, jnp.asarray([OPS.index(name) for name in space], jnp.int32), shape)


def _matrices(op: Array, strength: Array, size: tuple[int, ...]) -> Array:
    """The affine maps [b, 2, 3], output to input, of the geometric operations; the identity for the rest."""
    of = lambda name: jnp.where(op == OPS.index(name), strength, 0.0)  # noqa: E731
    h, w = size
    angle = jnp.deg2rad(of("rotate"))
    cos, sin = jnp.cos(angle), jnp.sin(angle)  # counter-clockwise, as Pillow's rotate
    row_x = [cos, of("shear_x") - sin, of("translate_x") + w / 2 - cos * (w / 2) + sin * (h / 2)]
    row_y = [of("shear_y") + sin, cos, of("translate_y") + h / 2 - sin * (w / 2) - cos * (h / 2)]
    return jnp.stack([jnp.stack(row_x, -1), jnp.stack(row_y, -1)], -2)
