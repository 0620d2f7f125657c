"""JPEG files and crops by OpenCV, which shrinks four times as fast as Pillow; the `fast` extra installs it.

The decoder is libjpeg-turbo, as Pillow's, and gives the same pixels. Where an image shrinks, its resized version is an
average of pixels that differs from Pillow's bicubic by no more than Pillow's bilinear does, about 1 of 255 grey values
on photos.
"""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxvit.data.images import decode_reduced, opened, orientation
from jaxvit.errors import UserError

Box = tuple[float, float, float, float]


@functools.cache
def _cv2() -> Any:
    try:
        import cv2
    except ImportError:
        needed = "pip install 'jaxvit[fast]' installs it"
        raise UserError(f"data.decoder is opencv, which needs the package opencv-python-headless; {needed}") from None
    cv2.setNumThreads(1)  # the feed has threads already
    return cv2


def version() -> str:
    """Of OpenCV. Raises UserError where it is not installed."""
    return str(_cv2().__version__)


def decode(file: Path | str | IO[bytes], spare: Callable[[tuple[int, int]], float]) -> tuple[np.ndarray, int]:
    """As `images.decode_reduced`: uint8 [h, w, 3], and the divisor. Raises one of DECODE_ERRORS.

    Pillow decodes what OpenCV would not refuse as Pillow does, or would show otherwise: other formats than JPEG, CMYK,
    photos on their side, and files that are cut off.
    """
    cv2, encoded = _cv2(), Path(file).read_bytes() if isinstance(file, str | Path) else file.read()
    with opened(io.BytesIO(encoded)) as image:
        plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation(image) == 1
        size = (image.height, image.width)
    if not plain or not encoded.endswith(b"\xff\xd9"):
        photo, divisor = decode_reduced(io.BytesIO(encoded), spare)
        return np.asarray(photo), divisor
    most = spare(size)
    # one divisor less than for Pillow, which resizes boxes between pixels: `resize` rounds them
    divisor = next((d for d in (8, 4, 2) if 2 * d <= most), 1)
    flag = cv2.IMREAD_COLOR_RGB if divisor == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{divisor}")
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise OSError("damaged: OpenCV cannot decode it")
    return pixels if divisor == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), divisor


def resize(photo: np.ndarray, box: Box, size: tuple[int, int], method: str) -> np.ndarray:
    """Resizes the box (left, top, right, bottom) of a photo uint8 [h, w, c], rounded to pixels, to `size` (h, w).

    Where both sides grow, `method` is bilinear or bicubic. A side that shrinks by up to two is interpolated at twice
    its new size, and pairs are averaged, which takes half of the time of OpenCV's averages over areas and is nearer
    to Pillow's; what shrinks by more is averaged over areas.
    """
    cv2 = _cv2()
    left, top, right, bottom = (round(side) for side in box)
    inside = photo[top : max(bottom, top + 1), left : max(right, left + 1)]
    if inside.shape[:2] == size:
        return inside
    shrinks = [have / want for have, want in zip(inside.shape[:2], size, strict=True)]
    if max(shrinks) <= 1:
        how = cv2.INTER_LINEAR if method == "bilinear" else cv2.INTER_CUBIC
    elif max(shrinks) <= 2:
        h, w = (want * (2 if by > 1 else 1) for want, by in zip(size, shrinks, strict=True))
        inside, how = cv2.resize(inside, (w, h), interpolation=cv2.INTER_LINEAR), cv2.INTER_LINEAR
    else:
        how = cv2.INTER_AREA
    resized = cv2.resize(inside, size[::-1], interpolation=how)
    return resized.reshape(*size, photo.shape[2])


def to_grey(photo: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] -> [h, w, 1] (ITU-R 601-2 luma)."""
    return _cv2().cvtColor(np.ascontiguousarray(photo), _cv2().COLOR_RGB2GRAY)[..., None]
