"""Image files of any mode and make to RGB, without trusting them."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxvit.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP")  # the only decoders a file may reach
MAX_PIXELS = 200_000_000  # larger ones are taken for decompression bombs

# All that Pillow raises on files that are damaged, hostile or no images at all.
DECODE_ERRORS = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    IndexError,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the image in mode RGB: transparency on white, 16-bit and float scaled to 8 bits, first frame only."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _deep_to_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_to_grey(image: Image.Image) -> Image.Image:
    """Returns 16-bit, 32-bit and float grey as 8-bit grey; the range is that of the format, not of the image."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
    else:  # "I" holds 16-bit files in most readers
        scale = 255.0 / 65535.0 if image.mode != "I" or values.max(initial=0.0) > 255 else 1.0
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))


def decode(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Returns the file's first frame, decoded in full, upright (EXIF orientation) and in mode RGB.

    The format is taken from the content, never from the name. Raises one of DECODE_ERRORS.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # our own limit replaces Pillow's; odd EXIF is no reason to stop
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {max_pixels:,}")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))


def open_image(path: str | Path) -> Image.Image:
    """Returns an image file as upright RGB; raises UserError where it is missing, broken or no image."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file.")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; expected an image file.")
    try:
        return decode(path)
    except DECODE_ERRORS as error:
        raise UserError(f"{path}: not a readable image: {reason(error)}; expected JPEG, PNG or WebP.") from None


def reason(error: BaseException) -> str:
    """Returns why a file could not be decoded, in a few plain words on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "no JPEG, PNG or WebP data"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    text = (str(error).splitlines() or [""])[0].strip()
    return text[:120] or type(error).__name__
