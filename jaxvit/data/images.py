"""Image files of any mode and make to RGB, without trusting them."""

import contextlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxvit.errors import UserError
from jaxvit.runtime import escape

FORMATS = ("JPEG", "PNG", "WEBP")  # the only decoders a file may reach
MAX_PIXELS = 89_478_485  # Pillow's own limit: larger ones are taken for decompression bombs
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")

# All that Pillow raises on files that are damaged, hostile or no images at all.
DECODE_ERRORS = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    IndexError,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the image in mode RGB: transparency on white, 16-bit and float scaled to 8 bits, first frame only."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _deep_to_grey(image)
    if image.mode == "La":  # premultiplied: Pillow goes to RGBA only by way of LA
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
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


def decode(path: str | Path | IO[bytes], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Returns the file's first frame, decoded in full, upright (EXIF orientation) and in mode RGB.

    The format is taken from the content, never from the name. Raises one of DECODE_ERRORS.
    """
    with _opened(path, max_pixels) as image:
        image.load()
        with contextlib.suppress(*DECODE_ERRORS):  # damaged EXIF does not make a damaged image
            image = ImageOps.exif_transpose(image)
        return to_rgb(image)


def check(path: str | Path, *, full: bool, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Returns (h, w) as stored; raises one of DECODE_ERRORS where the file would not decode.

    Decodes all of the file, or, with `full=False`, only where its end is not what its format asks for.
    """
    with _opened(path, max_pixels) as image:
        size = image.height, image.width
        if full or not _ends_well(Path(path), image.format):
            image.draft(None, (1, 1))  # JPEG at an eighth of the size: all bytes are read, little is computed
            image.load()
    return size


def has_image_signature(path: Path) -> bool:
    """Returns whether the first bytes are those of a JPEG, PNG or WebP file; False for what is no plain file."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def _opened(path: str | Path | IO[bytes], max_pixels: int) -> Image.Image:
    """Reads the header only, of the allowed formats, and refuses what is too large to decode."""
    if isinstance(path, str | Path) and os.path.exists(path) and not os.path.isfile(path):
        raise OSError("not a plain file")  # opening a pipe would wait for ever
    image = Image.open(path, formats=FORMATS)
    if image.width * image.height > max_pixels:
        pixels = f"{image.width}x{image.height} pixels"
        image.close()
        raise ValueError(f"{pixels}, more than {max_pixels:,}")
    return image


def _ends_well(path: Path, image_format: str | None) -> bool:
    """Returns whether the file's end is the one its format prescribes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(max(size - 12, 0))
        tail = file.read()
    if image_format == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 == size
    return tail.endswith(b"\xff\xd9" if image_format == "JPEG" else b"IEND\xaeB`\x82")


def open_image(path: str | Path) -> Image.Image:
    """Returns an image file as upright RGB; raises UserError where it is missing, broken or no image."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file.")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; expected an image file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF is no reason to stop
            return decode(path)
    except DECODE_ERRORS as error:
        raise UserError(f"{path}: not a readable image: {reason(error)}; expected JPEG, PNG or WebP.") from None


def reason(error: BaseException) -> str:
    """Returns why a file could not be decoded, in a few plain words on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "no JPEG, PNG or WebP data"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return escape.message(error, 120)


def in_threads(
    work: Callable[[int], None],
    n: int,
    title: str,
    *,
    threads: int | None = None,
    per_task: int = 64,
    show_from: int = 20_000,
) -> None:
    """Calls work(0) ... work(n - 1) from threads: Pillow decodes without the GIL.

    From `show_from` calls on, a bar on stderr. A task is `per_task` calls: futures by the million fill the memory.
    """
    from rich.console import Console
    from rich.progress import Progress

    def block(first: int) -> None:
        for i in range(first, min(first + per_task, n)):
            work(i)

    with (
        warnings.catch_warnings(),  # entered here and not by the threads: filters belong to the process
        Progress(console=Console(stderr=True), transient=True, disable=n < show_from) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):
        warnings.simplefilter("ignore")
        task = bar.add_task(title, total=n)
        try:
            for _ in pool.map(block, range(0, n, per_task)):
                bar.advance(task, per_task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
