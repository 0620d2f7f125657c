"""Random crops of photos, cut on the host from the decoded original, so that a crop of 8 % of the area has all of its
detail; what comes after the crop runs on the device.

A crop is drawn from (seed, epoch, position in the epoch) alone: it does not depend on threads, processes or devices,
and a resumed run draws the same.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from jaxvit.data import opencv
from jaxvit.data.images import decode_reduced, to_rgb, upright
from jaxvit.data.preprocess import INTERPOLATIONS, MAX_ASPECT
from jaxvit.errors import UserError

ATTEMPTS = 10  # draws of a box before the fallback, as in torchvision and timm
PADDING = 4  # pixels around the resized photo in "src", as in DeiT III
ANY = ("bilinear", "bicubic")  # what timm's "random" interpolation draws from
USUAL_RATIO = (3 / 4, 4 / 3)

Pair = tuple[float, float]
Size = tuple[int, int]


class Cut(NamedTuple):
    """A part of a photo, how it is resized, and the part of that which is kept."""

    box: tuple[int, int, int, int]  # top, left, height, width in pixels of the upright original
    size: Size  # (h, w) that the box is resized to
    window: tuple[int, int] = (0, 0)  # top and left of the crop in the resized box; what lies outside is reflected
    method: str = "bicubic"


Draw = Callable[[np.random.Generator, Size], Cut]


class Draws(NamedTuple):
    """What fixes the crops of an epoch's examples."""

    seed: int
    epoch: int
    positions: np.ndarray  # int [n], of each example of the order within the epoch


def generator(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The numbers that one crop is drawn from."""
    return np.random.Generator(np.random.PCG64([seed, epoch, position]))


def resized_crop(rng: np.random.Generator, photo: Size, size: Size, scale: Pair, ratio: Pair) -> Cut:
    """A box of a random area and aspect, resized to `size`, as torchvision's `RandomResizedCrop`.

    The area is a share of the photo's, uniform in `scale`; width / height is uniform in the logarithm of `ratio`. If
    ten draws do not fit into the photo (h, w), the box is the largest one with an allowed aspect in its centre.
    """
    h, w = photo
    for _ in range(ATTEMPTS):
        area = rng.uniform(*scale) * h * w
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= w and 0 < height <= h:
            return Cut((int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1)), height, width), size)
    height, width = h, w
    if w / h < ratio[0]:
        height = max(round(w / ratio[0]), 1)
    elif w / h > ratio[1]:
        width = max(round(h * ratio[1]), 1)
    return Cut(((h - height) // 2, (w - width) // 2, height, width), size)


def simple_crop(rng: np.random.Generator, photo: Size, size: Size) -> Cut:
    """The photo resized until it covers `size`, four pixels reflected around it, cut at a random place.

    The "simple random crop" of DeiT III (Touvron et al. 2022).
    """
    box = _middle(photo, size)
    resized = _covering(box[2:], size)
    top, left = (int(rng.integers(n - want + 2 * PADDING + 1)) for n, want in zip(resized, size, strict=True))
    return Cut(box, resized, (top - PADDING, left - PADDING))


def keep_ratio(rng: np.random.Generator, photo: Size, size: Size, scale: Pair, ratio: Pair, *, centre: bool) -> Cut:
    """The photo resized until it covers `size`; half of the time by a random factor, and half of the time by an aspect.

    timm's `ResizeKeepRatio` before a crop in the centre ("rkrc") or at a random place ("rkrr"); what it lacks is
    reflected. `scale` and `ratio` are as in `resized_crop`: a share of the area, and a change of the aspect.
    """
    box = _middle(photo, size)
    (h, w), factor = box[2:], [1.0, 1.0]
    if rng.random() < 0.5:
        factor = [1 / math.sqrt(rng.uniform(*scale))] * 2
    if rng.random() < 0.5:
        aspect = math.sqrt(math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]))))
        factor = [factor[0] / aspect, factor[1] * aspect]
    over = min(h / size[0], w / size[1])
    resized = [max(round(side * f / over), 1) for side, f in zip((h, w), factor, strict=True)]
    left_over = [have - want for have, want in zip(resized, size, strict=True)]
    if centre:
        window = [round(n / 2) if n > 0 else -(-n // 2) for n in left_over]
    else:
        window = [int(math.copysign(rng.integers(abs(n) + 1), n)) for n in left_over]
    return Cut(box, (resized[0], resized[1]), (window[0], window[1]))


def _covering(photo: Size, size: Size) -> Size:
    """The smallest (h, w) with the photo's aspect that covers `size`, rounded as torchvision's `Resize`."""
    h, w = photo
    if size[0] == size[1]:
        return (int(size[0] * h / w), size[0]) if w <= h else (size[0], int(size[0] * w / h))
    over = min(h / size[0], w / size[1])
    return max(round(h / over), size[0]), max(round(w / over), size[1])


def _middle(photo: Size, size: Size) -> tuple[int, int, int, int]:
    """The photo, or the middle of one that is so long that it would take all memory when it is resized."""
    longest = math.ceil(MAX_ASPECT * max(size) / min(size) * min(photo))
    h, w = (min(side, longest) for side in photo)
    return (photo[0] - h) // 2, (photo[1] - w) // 2, h, w


MODES = ("rrc", "rkrc", "rkrr", "src")


def make_draw(options: Mapping[str, Any], size: Size, interpolation: str) -> Draw | None:
    """Returns what draws the crops of a photo; None where its centre is cut, as in evaluation.

    Args:
      options: those of `config.augment`: train_crop_mode, random_resized_crop, crop_ratio, train_interpolation.
      size: (h, w) of the images.
      interpolation: the one where `train_interpolation` is None.
    """
    scale, ratio = options["random_resized_crop"], tuple(options["crop_ratio"])
    mode = options["train_crop_mode"] or (None if scale is None else "rrc")
    if mode is None:
        return None
    near, gentle = scale or (0.8, 1.0), (0.9, 1 / 0.9) if ratio == USUAL_RATIO else ratio
    draws: dict[str, Draw] = {
        "rrc": functools.partial(resized_crop, size=size, scale=scale or (0.08, 1.0), ratio=ratio),
        "rkrc": functools.partial(keep_ratio, size=size, scale=near, ratio=gentle, centre=True),
        "rkrr": functools.partial(keep_ratio, size=size, scale=near, ratio=gentle, centre=False),
        "src": functools.partial(simple_crop, size=size),
    }
    methods = ANY if options["train_interpolation"] == "random" else (options["train_interpolation"] or interpolation,)
    if unknown := set(methods) - INTERPOLATIONS.keys():
        raise UserError(f"no interpolation {unknown.pop()!r}; expected one of {', '.join(INTERPOLATIONS)}, random.")
    return functools.partial(_drawn, draw=draws[mode], methods=methods)


def _drawn(rng: np.random.Generator, photo: Size, draw: Draw, methods: Sequence[str]) -> Cut:
    cut = draw(rng, photo)
    return cut._replace(method=methods[int(rng.integers(len(methods)))] if len(methods) > 1 else methods[0])


class Crop:
    """Cuts photos to uint8 [h, w, in_channels]. It can be pickled, as `make_transform`'s result: processes get it."""

    def __init__(self, draw: Draw, size: Size, in_channels: int, decoder: str = "pillow"):
        """`draw` and `size` as those of `make_draw`; `decoder`: pillow or opencv."""
        self._draw, self.shape, self._opencv = draw, (*size, in_channels), decoder == "opencv"

    def __call__(self, rng: np.random.Generator, photo: Any) -> np.ndarray:
        """Cuts a PIL image or an array uint8 [h, w, c]."""
        if isinstance(photo, np.ndarray):
            photo = Image.fromarray(photo[..., 0] if photo.shape[-1] == 1 else photo)
        photo = to_rgb(upright(photo))
        return self.cut(photo, self._draw(rng, (photo.height, photo.width)))

    def of_file(self, rng: np.random.Generator, file: Path | str | IO[bytes]) -> np.ndarray:
        """Cuts an image file, of which no more is decoded than the crop can show. Raises one of DECODE_ERRORS."""
        return self.cut(*self.decode(rng, file))

    def decode(self, rng: np.random.Generator, file: Path | str | IO[bytes]) -> tuple[Any, Cut, int]:
        """The first half of `of_file`: the photo, what will be cut from it, and the divisor of its size."""
        drawn: list[Cut] = []

        def spare(photo: Size) -> float:
            drawn.append(self._draw(rng, photo))
            (_, _, *box), size = drawn[0].box, drawn[0].size
            return min(have / want for have, want in zip(box, size, strict=True))

        photo, reduced = opencv.decode(file, spare) if self._opencv else decode_reduced(file, spare)
        return photo, drawn[0], reduced

    def cut(self, photo: Image.Image | np.ndarray, cut: Cut, reduced: int = 1) -> np.ndarray:
        """The second half: cuts an RGB photo that was decoded at one `reduced`-th of its size."""
        top, left, h, w = (side / reduced for side in cut.box)
        box, grey = (left, top, left + w, top + h), self.shape[2] == 1
        if self._opencv:
            pixels = opencv.resize(np.asarray(photo), box, cut.size, cut.method)
            pixels = opencv.to_grey(pixels) if grey else pixels
        else:
            pixels = np.atleast_3d(np.asarray(_resized(photo, box, cut.size, cut.method, "L" if grey else "RGB")))
        return _window(pixels, cut.window, self.shape[:2])


def _resized(photo: Any, box: tuple[float, ...], size: Size, method: str, mode: str) -> Image.Image:
    """Resizes the box (left, top, right, bottom) of a PIL image to `size` (h, w)."""
    # what lies beyond the box must not be read: the crop comes first, as in torchvision
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = min(math.ceil(box[2]), photo.width), min(math.ceil(box[3]), photo.height)
    if (left, top, right, bottom) != (0, 0, *photo.size):
        photo = photo.crop((left, top, right, bottom))
    photo = photo if photo.mode == mode else photo.convert(mode)
    inside = (box[0] - left, box[1] - top, min(box[2] - left, photo.width), min(box[3] - top, photo.height))
    if photo.size == size[::-1] and inside == (0, 0, *photo.size):
        return photo
    return photo.resize(size[::-1], INTERPOLATIONS[method], box=inside)


def _window(image: np.ndarray, at: tuple[int, int], size: Size) -> np.ndarray:
    """Cuts [*size, c] at (top, left) of [h, w, c]; what lies outside is reflected without its edge."""
    before = [max(-start, 0) for start in at]
    after = [max(start + want - have, 0) for start, want, have in zip(at, size, image.shape[:2], strict=True)]
    if any(before) or any(after):
        image = np.pad(image, [*zip(before, after, strict=True), (0, 0)], mode="reflect")
    top, left = (max(start, 0) for start in at)
    return image[top : top + size[0], left : left + size[1]]
