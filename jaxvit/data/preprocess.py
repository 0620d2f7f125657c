"""timm's evaluation transform on the host: resize and crop with Pillow, then normalise."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from jaxvit.data.images import to_rgb, upright
from jaxvit.errors import UserError, check_number, shown, suggest

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
CROP_MODES = ("center", "squash", "border")
DEFAULT_CROP_PCT = 0.875  # timm's, where a model names none
MAX_ASPECT = 32  # of what is resized, to the crop's own: a line of 60,000 x 1 pixels would become 15 million x 256


def preprocess(image: Image.Image, data_config: Mapping[str, Any]) -> np.ndarray:
    """Returns float32 [h, w, c], ready for the model: timm's evaluation transform, to the rounding.

    An image with an EXIF orientation, as phones write it, is turned upright first, as everywhere in jaxvit (timm
    leaves it on its side). If you rotate an image yourself, remove its EXIF orientation.

    `data_config` has image_size, mean, std and, optionally, in_channels, crop_pct, interpolation, crop_mode. Raises
    UserError if one of these is missing, and for anything that is not an image.
    """
    given: Any = data_config
    if not isinstance(given, Mapping) or not given.keys() >= {"image_size", "mean", "std"}:
        raise UserError(
            f"data_config is {str(data_config)[:60]!r}; expected image_size, mean and std, as of jaxvit.data_config"
        )
    mean, std = (_channels(key, data_config[key]) for key in ("mean", "std"))
    transform = make_transform(
        data_config["image_size"],
        data_config.get("in_channels", 3),
        data_config.get("crop_pct"),
        data_config.get("interpolation", "bicubic"),
        data_config.get("crop_mode", "center"),
        fill=tuple(round(255 * float(v)) for v in np.atleast_1d(mean)),
    )
    return (transform(image).astype(np.float32) / np.float32(255) - mean) / std


def make_transform(
    image_size: int | tuple[int, int],
    in_channels: int = 3,
    crop_pct: float | None = None,
    interpolation: str = "bicubic",
    crop_mode: str = "center",
    *,
    fill: tuple[int, ...] = (0, 0, 0),
) -> Callable[[Any], np.ndarray]:
    """Returns f(PIL image of any mode, or uint8 [h, w, c]) -> uint8 [*image_size, in_channels].

    PIL images are turned upright by their EXIF orientation first.
    "center" brings the shorter side to floor(size / crop_pct) and cuts the centre; "squash" brings both sides
    there; "border" brings the longer side there and fills up with `fill`. crop_pct None means 0.875, as in timm.
    """
    h, w = size = _size(image_size)
    if interpolation not in tuple(INTERPOLATIONS):  # of a tuple, as what is given may not hash
        raise UserError(
            f"no interpolation {interpolation!r}; expected one of {', '.join(INTERPOLATIONS)}."
            + suggest(str(interpolation), INTERPOLATIONS)
        )
    crop_mode = crop_mode or "center"
    if crop_mode not in CROP_MODES:
        raise UserError(f"no crop_mode {crop_mode!r}; expected one of {', '.join(CROP_MODES)}.")
    crop_pct = DEFAULT_CROP_PCT if crop_pct is None else crop_pct
    check_number("crop_pct", crop_pct)
    if not 0 < crop_pct <= 1e3:
        raise UserError(f"crop_pct is {crop_pct}; expected a number above 0.")
    if in_channels not in (1, 3):
        raise UserError(f"in_channels is {in_channels}; images become grey (1) or RGB (3).")
    scale = (math.floor(h / crop_pct), math.floor(w / crop_pct))
    border = fill if crop_mode == "border" else (0, 0, 0)
    return functools.partial(
        _transformed,
        size=size,
        scale=scale,
        mode="L" if in_channels == 1 else "RGB",
        method=INTERPOLATIONS[interpolation],
        crop_mode=crop_mode,
        border=border,
    )


def _transformed(
    example: Image.Image | np.ndarray,
    size: tuple[int, int],
    scale: tuple[int, int],
    mode: str,
    method: Image.Resampling,
    crop_mode: str,
    border: tuple[int, ...],
) -> np.ndarray:
    image = _as_image(example)
    image = image if image.mode == mode else image.convert(mode)
    if crop_mode == "center":
        image = _middle(image, MAX_ASPECT * max(scale) / max(min(scale), 1))
    new_h, new_w = _resized(image.height, image.width, scale, crop_mode)
    if (new_h, new_w) != (image.height, image.width):
        image = image.resize((new_w, new_h), method)
    return _center_crop(np.atleast_3d(np.asarray(image)), size, border)


def _channels(word: str, values: Any) -> np.ndarray:
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape not in ((), (1,), (3,)) or not np.isfinite(found).all():
        raise UserError(f"{word} is {shown(values)}; expected a number for each channel")
    return found


def _size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    several = isinstance(image_size, tuple | list | np.ndarray)
    pair: Any = tuple(image_size) if several else (image_size, image_size)  # type: ignore[arg-type]
    good = len(pair) == 2 and all(isinstance(side, int | float | np.number) for side in pair)
    if not good or not all(1 <= side < 2**31 and int(side) == side for side in pair):
        raise UserError(f"image_size is {image_size}; expected a number of pixels, or height and width.")
    return int(pair[0]), int(pair[1])


def _as_image(example: Image.Image | np.ndarray) -> Image.Image:
    given: Any = example  # what a caller hands over may be anything
    if isinstance(example, np.ndarray):
        if example.ndim != 3 or example.dtype != np.uint8:
            raise UserError(
                f"the image is {example.dtype} {list(example.shape)}; expected uint8 [h, w, c], or a PIL image"
            )
        return Image.fromarray(example[..., 0] if example.shape[-1] == 1 else example)
    if not isinstance(given, Image.Image):
        raise UserError(f"the image is {given!r:.60}; expected a PIL image, as PIL.Image.open(path) returns it")
    return to_rgb(upright(example))


def _middle(image: Image.Image, aspect: float) -> Image.Image:
    """Returns the image, or the middle of one that is longer than `aspect` times its shorter side."""
    w, h = image.size
    longest = math.ceil(aspect * min(w, h))
    if max(w, h) <= longest:
        return image
    left, top = (max(side - longest, 0) // 2 for side in (w, h))
    return image.crop((left, top, left + min(w, longest), top + min(h, longest)))


def _resized(h: int, w: int, scale: tuple[int, int], crop_mode: str) -> tuple[int, int]:
    """Returns (h, w) after the resize, rounded as torchvision (square targets) and timm (all others) do."""
    if crop_mode == "squash":
        return scale
    if crop_mode == "center" and scale[0] == scale[1]:
        short = scale[0]
        return (int(short * h / w), short) if w <= h else (short, int(short * w / h))
    ratios = (h / scale[0], w / scale[1])
    ratio = max(ratios) if crop_mode == "border" else min(ratios)
    return max(round(h / ratio), 1), max(round(w / ratio), 1)


def _center_crop(image: np.ndarray, size: tuple[int, int], fill: tuple[int, ...]) -> np.ndarray:
    """Cuts [*size, c] from the centre of uint8 [h, w, c]; a side that is too short is filled up first.

    The odd pixel of padding goes to the right and below; offsets round half to even, as Python's `round`.
    """
    missing = [max(want - have, 0) for want, have in zip(size, image.shape[:2], strict=True)]
    if any(missing):
        canvas = np.empty((*(np.add(image.shape[:2], missing)), image.shape[2]), np.uint8)
        canvas[:] = np.asarray(fill[: image.shape[2]], np.uint8)
        top, left = missing[0] // 2, missing[1] // 2
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        image = canvas
    top, left = (round((have - want) / 2.0) for have, want in zip(image.shape[:2], size, strict=True))
    return image[top : top + size[0], left : left + size[1]]
