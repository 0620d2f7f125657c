"""Image operations inside the jitted step: pure, key first, any batch size; float images [b, h, w, c].

This module has the config options and the order of operations; geometry, colour, mix and policies have the operations.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import plugins
from jaxvit.data.augment.colour import luma, random_jitter
from jaxvit.data.augment.geometry import random_affine, random_crop, random_flip, random_resized_crop
from jaxvit.data.augment.mix import mix, random_erasing
from jaxvit.data.augment.policies import POLICIES
from jaxvit.data.crops import MODES
from jaxvit.errors import UserError, suggest

# timm's words -> jax.image's. Bicubic: Keys' a is -0.5 in both Pillow and jax.image.
RESIZE_METHODS = {"bicubic": "cubic", "bilinear": "linear", "nearest": "nearest", "lanczos": "lanczos3"}


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
        grey = luma(images.astype(jnp.float32))
        return jnp.rint(grey).astype(images.dtype) if images.dtype == jnp.uint8 else grey.astype(images.dtype)
    raise UserError(
        f"images have {channels} channels but the model takes {in_channels}; only 1 and 3 can be converted."
    )


Operation = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class Word(NamedTuple):
    """One option of `config.augment`: its default and its valid values."""

    default: Any
    holds: Callable[[Any], bool]
    expected: str


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _number_word(default: float | None, low: float, high: float, expected: str) -> Word:
    return Word(default, lambda v: _number(v) and low <= v <= high, expected)


def _pair(above: float, high: float) -> Callable[[Any], bool]:
    return lambda v: (
        v is None
        or isinstance(v, list | tuple) and len(v) == 2 and all(map(_number, v)) and above < v[0] <= v[1] <= high
    )  # fmt: skip


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda v: _number(v) and v == int(v) and v >= low


def _jitter_strengths(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 4 and all(_number(v) and v >= 0 for v in value)
        and value[3] <= 0.5
    )  # fmt: skip


_INF = math.inf
WORDS: dict[str, Word] = {
    "flip": Word(False, lambda v: isinstance(v, bool), "true or false"),
    "crop_padding": Word(0, _whole(0), "a whole number of pixels, 0 for none"),
    "random_resized_crop": Word(None, _pair(0, 1), "the least and greatest share of the area, such as (0.08, 1.0)"),
    "crop_ratio": Word((3 / 4, 4 / 3), _pair(0, _INF), "the least and greatest width / height, such as (0.75, 1.333)"),
    "train_crop_mode": Word(None, lambda v: v is None or v in MODES, f"one of {', '.join(MODES)}"),
    "train_interpolation": Word(
        None, lambda v: v is None or v in ("random", *RESIZE_METHODS), f"one of random, {', '.join(RESIZE_METHODS)}"
    ),
    "crop_from": Word("original", lambda v: v in ("original", "resized"), "original or resized"),
    "affine_degrees": _number_word(0.0, 0, 180, "0 to 180 degrees"),
    "affine_translate": _number_word(0.0, 0, 1, "0 to 1, a share of the side"),
    "affine_scale": Word((1.0, 1.0), _pair(0, _INF), "the least and greatest factor, such as (0.9, 1.1)"),
    "affine_shear": _number_word(0.0, 0, 89, "0 to 89 degrees"),
    "policy": Word(None, lambda v: v is None or isinstance(v, str) and v in POLICIES, f"one of {', '.join(POLICIES)}"),
    "randaug_num_ops": Word(2, _whole(1), "a whole number of at least 1"),
    "randaug_magnitude": _number_word(9.0, 0, 10, "0 to 10"),
    "color_jitter": Word(
        (0.0, 0.0, 0.0, 0.0), _jitter_strengths,
        "brightness, contrast, saturation (0 or more) and hue (at most 0.5), such as (0.4, 0.4, 0.4, 0.1)",
    ),
    "random_erasing_prob": _number_word(0.0, 0, 1, "a probability"),
    "random_erasing_mode": Word("pixel", lambda v: v in ("const", "pixel"), "const or pixel"),
    "fill": _number_word(0.5, 0, 1, "a grey value from 0 to 1"),
    "mixup_alpha": _number_word(0.0, 0, _INF, "0 (off) or more"),
    "cutmix_alpha": _number_word(0.0, 0, _INF, "0 (off) or more"),
    "mix_prob": _number_word(1.0, 0, 1, "a probability"),
    "mix_switch_prob": _number_word(0.5, 0, 1, "a probability"),
    "repeated": Word(1, _whole(1), "a whole number of copies of an image, 1 for none"),  # read by `epoch_order`
}  # fmt: skip


def check(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all of WORDS, and `options` of registered operations, with the defaults overridden by `options`.

    Raises UserError at the first bad one.
    """
    for name, value in options.items():
        if name == "options":
            _check_own(value)
            continue
        if name not in WORDS:
            raise UserError(f"no augmentation {name!r}; expected one of {', '.join(WORDS)}.{suggest(name, WORDS)}")
        if not WORDS[name].holds(value):
            near = suggest(value, POLICIES) if name == "policy" and isinstance(value, str) else ""
            raise UserError(f"augment.{name} is {value!r}; expected {WORDS[name].expected}.{near}")
    return {name: word.default for name, word in WORDS.items()} | {"options": {}} | dict(options)


def _check_own(values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in OWN:
            known = f"registered are {', '.join(OWN)}" if OWN else "none is registered"
            raise UserError(f"no augmentation {name!r} for augment.options; {known}.{suggest(name, OWN)}")


def _of_images(on: Any, operation: Callable[[jax.Array, jax.Array], jax.Array]) -> Operation | None:
    """An operation that leaves the targets alone; None where it is off."""
    return (lambda key, images, targets: (operation(key, images), targets)) if on else None


def _crop(o: dict) -> Operation | None:
    return _of_images(o["crop_padding"], lambda key, images: random_crop(key, images, int(o["crop_padding"])))


def _flip(o: dict) -> Operation | None:
    return _of_images(o["flip"], random_flip)


def _resized_crop(o: dict) -> Operation | None:
    scale = o["random_resized_crop"] or (0.08, 1.0)
    on = o["random_resized_crop"] or o["train_crop_mode"] == "rrc"
    return _of_images(on, lambda key, images: random_resized_crop(key, images, scale, o["crop_ratio"]))


def _affine(o: dict) -> Operation | None:
    degrees, translate, shear, scale = (o[f"affine_{w}"] for w in ("degrees", "translate", "shear", "scale"))
    on = degrees or translate or shear or tuple(scale) != (1.0, 1.0)
    return _of_images(on, lambda key, x: random_affine(key, x, degrees, translate, scale, shear, o["fill"]))


def _policy(o: dict) -> Operation | None:
    more = {}
    if o["policy"] == "randaugment":
        more = {"num_ops": int(o["randaug_num_ops"]), "magnitude": o["randaug_magnitude"]}
    return _of_images(o["policy"], lambda key, images: POLICIES[o["policy"]](key, images, fill=o["fill"], **more))


def _jitter(o: dict) -> Operation | None:
    return _of_images(any(o["color_jitter"]), lambda key, images: random_jitter(key, images, o["color_jitter"]))


def _erasing(o: dict) -> Operation | None:
    prob, mode = o["random_erasing_prob"], o["random_erasing_mode"]
    return _of_images(prob, lambda key, images: random_erasing(key, images, prob, mode, o["fill"]))


def _mix(o: dict) -> Operation | None:
    words = {"mixup_alpha": "mixup_alpha", "cutmix_alpha": "cutmix_alpha", "prob": "mix_prob"}
    kwargs = {name: o[word] for name, word in words.items()} | {"switch_prob": o["mix_switch_prob"]}
    on = (o["mixup_alpha"] or o["cutmix_alpha"]) and o["mix_prob"]
    return partial(mix, **kwargs) if on else None


# The one place where the order is defined, timm's: place, colour, erasing, mixing. From all of the checked options to
# the operation, or None for off. An operation's key comes from its place here: add new ones at the end of their kind
# only together with a note that equal seeds no longer give equal runs.
OPERATIONS: dict[str, Callable[[dict[str, Any]], Operation | None]] = {
    "crop": _crop,
    "flip": _flip,
    "random_resized_crop": _resized_crop,
    "affine": _affine,
    "policy": _policy,
    "color_jitter": _jitter,
    "random_erasing": _erasing,
    "mix": _mix,
}


# Of users: name -> (key, images [b, h, w, c], targets [b, k], strength) -> (images, targets).
OWN: dict[str, Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]]] = {}


def register_augmentation(name: str) -> Callable[[Any], Any]:
    """Adds an operation on training images: above a function (key, images, targets, strength) -> (images, targets).

    Images are float [b, h, w, c] in [0, 1], targets [b, num_classes]; it is traced. `augment.options.NAME=STRENGTH`
    switches it on, at any strength but None, False and 0. Own operations run after ours and before images are mixed, in
    the order of their names; each has its own key.

    Raises:
      UserError: a name that exists, or another kind of thing than such a function.
    """

    def register(name: str, operation: Callable[..., Any]) -> None:
        form = "(key, images, targets, strength) -> (images, targets)"
        plugins.options("augmentation", name, operation, 4, form)
        plugins.claim("augmentation", name, {*WORDS, *OPERATIONS, *OWN}, operation)
        OWN[name] = operation

    return plugins.decorator(register, name, '@register_augmentation("name")')


def _own(values: Mapping[str, Any]) -> Operation | None:
    """The users' operations that are on. A key is made of a name, so that it does not change with other names."""
    on = {name: values[name] for name in sorted(values) if values[name] not in (None, False, 0)}

    def operate(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        for name, strength in on.items():
            own = jax.random.fold_in(key, zlib.crc32(name.encode()))
            found, wanted = OWN[name](own, images, targets, strength), (images.shape, targets.shape)
            given = tuple(map(jnp.shape, found)) if isinstance(found, tuple | list) else type(found).__name__
            if given != wanted:
                raise UserError(
                    f"the augmentation {name!r} returned {given}; expected (images, targets) of shapes {wanted}"
                )
            images, targets = found
        return images, targets

    return operate if on else None


def make_augment(
    options: Mapping[str, Any], size: tuple[int, int] | None = None, interpolation: str = "bicubic"
) -> Operation:
    """Returns f(key, images [b, h, w, c] in [0, 1], targets [b, k]) -> (images, targets), what `options` ask for.

    `options` maps names of WORDS to their values; the rest have their defaults, which are off. Each operation draws
    from its own key, which does not change when another one is switched on or off.

    Images larger than `size` (h, w) are brought to it after crops and flips; the other operations, and noise, are then
    those of images of that size.
    """
    checked = check(options)
    made = {name: make(checked) for name, make in OPERATIONS.items()}
    own = _own(checked["options"])

    def augment(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        for i, (name, operation) in enumerate(made.items()):
            if name == "mix" and own is not None:
                images, targets = own(key, images, targets)
            if operation is not None:
                images, targets = operation(jax.random.fold_in(key, i), images, targets)
            if name == "random_resized_crop" and size is not None:
                images = _at_most(images, size, interpolation)
        return images, targets

    return augment


def _at_most(images: jax.Array, size: tuple[int, int], interpolation: str) -> jax.Array:
    h, w = (min(have, most) for have, most in zip(images.shape[1:3], size, strict=True))
    return jnp.clip(resize(images, (h, w), interpolation), 0.0, 1.0)  # bicubic overshoots


def picture_grid(augment: Operation, key: jax.Array, images: jax.Array | np.ndarray, draws: int = 5) -> np.ndarray:
    """Returns uint8 [b, 1 + draws, h, w, c]: images uint8 [b, h, w, c] and what `augment` makes of each."""
    originals = jnp.asarray(images, jnp.float32) / 255.0
    targets = jnp.ones((len(images), 1))
    drawn = [jax.jit(augment)(jax.random.fold_in(key, i), originals, targets)[0] for i in range(draws)]
    cells = jnp.stack([originals, *drawn], axis=1)
    return np.asarray(jnp.round(jnp.clip(cells, 0.0, 1.0) * 255.0).astype(jnp.uint8))
