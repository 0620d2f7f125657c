"""Image files of any mode and make to RGB, without trusting them."""

import contextlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxvit.data import formats
from jaxvit.errors import UserError
from jaxvit.runtime import console, escape
from jaxvit.runtime.paths import near

ORIENTATION = 0x0112  # EXIF's
TILE = 2**20  # pixels that are converted at once: large images must not be copied several times

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
        scale = _scale(image)
        return _in_tiles(image, lambda tile: _deep_to_grey(tile, scale))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _in_tiles(image, _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_tiles(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Returns the image in mode RGB, converted piece by piece."""
    w, h = image.size
    across = max(min(w, TILE), 1)
    down = max(TILE // across, 1)
    if w <= across and h <= down:
        return convert(image).convert("RGB")
    out = Image.new("RGB", image.size)
    for top in range(0, h, down):
        for left in range(0, w, across):
            tile = image.crop((left, top, min(left + across, w), min(top + down, h)))
            out.paste(convert(tile), (left, top))
    return out


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied: Pillow goes to RGBA only by way of LA
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)


def _scale(image: Image.Image) -> float:
    """The factor from deep grey values to 8 bits: by the range of the format, not of the image."""
    if image.mode.startswith("I;"):
        return 255.0 / 65535.0
    extrema: Any = image.getextrema()
    if image.mode == "F":
        return 255.0 if extrema[1] <= 1.0 else 1.0
    return 255.0 / 65535.0 if extrema[1] > 255 else 1.0  # "I" holds 16-bit files in most readers


def _deep_to_grey(image: Image.Image, scale: float) -> Image.Image:
    """Returns 16-bit, 32-bit and float grey as 8-bit grey."""
    values = np.asarray(image).astype(np.float64)
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))


def upright(image: Image.Image, *, in_place: bool = False) -> Image.Image:
    """Returns the image turned as its EXIF orientation says, or itself where that says nothing or is damaged."""
    with contextlib.suppress(*DECODE_ERRORS):  # damaged EXIF does not make a damaged image
        if image.getexif().get(ORIENTATION, 1) != 1:
            turned = ImageOps.exif_transpose(image, in_place=in_place)
            return image if turned is None else turned
    return image


def decode(path: str | Path | IO[bytes]) -> Image.Image:
    """Returns the file's first frame, decoded in full, upright (EXIF orientation) and in mode RGB.

    The format is taken from the content, never from the name. Raises one of DECODE_ERRORS.
    """
    with opened(path) as image:
        image.load()
        return to_rgb(upright(image, in_place=True))


def decode_reduced(path: str | Path | IO[bytes], spare: Callable[[tuple[int, int]], float]) -> tuple[Image.Image, int]:
    """As `decode`, but a JPEG at a half, a quarter or an eighth of its size where that is enough; and the divisor.

    `spare` gets (h, w) of the upright image, once, and returns by how much it may shrink. The decoder of a JPEG then
    computes fewer coefficients of each block. Raises one of DECODE_ERRORS.
    """
    with opened(path) as image:
        known, divisor = image.format in ("JPEG", "MPO"), 1
        if known:
            w, h = image.size
            most = spare((w, h) if orientation(image) in (5, 6, 7, 8) else (h, w))
            wanted = next((d for d in (8, 4, 2) if d <= most), 1)
            drafted = image.draft(None, (max(w // wanted, 1), max(h // wanted, 1))) if wanted > 1 else None
            if drafted is not None:
                divisor = round(w / drafted[1][2])
        image.load()
        image = to_rgb(upright(image, in_place=True))
    if not known:
        spare((image.height, image.width))
    return image, divisor


def orientation(image: Image.Image) -> int:
    with contextlib.suppress(*DECODE_ERRORS):
        return image.getexif().get(ORIENTATION, 1)
    return 1


def check(path: str | Path | IO[bytes], *, full: bool) -> tuple[int, int]:
    """Returns (h, w) as stored; raises one of DECODE_ERRORS where the file would not decode.

    Decodes all of the file, or, with `full=False`, only where its end is not what its format asks for. What is already
    open is decoded in any case.
    """
    if not full and isinstance(path, str | Path):
        with opened(path, scans=False) as image:
            if _ends_well(Path(path), image.format):
                return image.height, image.width
    with opened(path) as image:
        size = image.height, image.width
        image.draft(None, (1, 1))  # JPEG at an eighth of the size: all bytes are read, little is computed
        image.load()
    return size


def opened(path: str | Path | IO[bytes], *, scans: bool = True) -> Image.Image:
    """Opens the image, by the decoder of the content, and refuses what would take too much memory or time.

    The scans of a JPEG are counted in all of the file; without `scans` only the header is read.
    """
    if isinstance(path, str | Path):
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("not a plain file")  # opening a pipe would wait for ever
        with open(path, "rb") as file:
            name = _format(file)
    else:
        name = _format(path)
    image = Image.open(path, formats=(name,))
    try:
        formats.check_pixels(name, image.mode, image.width, image.height)
        if scans and name == "JPEG" and image.fp is not None:
            formats.check_scans(image.fp, image.width, image.height)
    except ValueError:
        image.close()
        raise
    return image


def _format(file: IO[bytes]) -> str:
    """Returns the decoder for a file; raises NotReadable if there is none or the file is too large."""
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    name = formats.decoder(file.read(formats.HEAD))
    file.seek(0)
    formats.check_bytes(num_bytes)
    return name


def _ends_well(path: Path, image_format: str | None) -> bool:
    """Returns whether the file's end is the one its format prescribes; False where it prescribes none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(max(size - 12, 0))
        tail = file.read()
    if image_format == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 == size
    ends = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    return image_format in ends and tail.endswith(ends[image_format])


def open_image(path: str | Path) -> Image.Image:
    """Returns an image file as upright RGB; raises UserError where it is missing, broken or no image."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file.{near(path)}")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; expected an image file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF does not stop the run
            return decode(path)
    except DECODE_ERRORS as error:
        raise UserError(f"{path}: not a readable image: {reason(error)}.") from None


def reason(error: BaseException) -> str:
    """Returns why a file could not be decoded, in a few plain words on one line."""
    if isinstance(error, UnidentifiedImageError):  # the format is right, and nothing after it
        return "damaged: its header cannot be read"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, OSError) and error.strerror:  # the name stands before it
        return error.strerror.lower()
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

    From `show_from` calls on, a bar. A task is `per_task` calls: futures by the million fill the memory.
    """

    def block(first: int) -> None:
        for i in range(first, min(first + per_task, n)):
            work(i)

    with (
        warnings.catch_warnings(),  # entered here and not by the threads: filters belong to the process
        console.bar(title, n, "") if n >= show_from else contextlib.nullcontext() as bar,
        ThreadPoolExecutor(threads) as pool,
    ):
        warnings.simplefilter("ignore")
        try:
            for first, _ in enumerate(pool.map(block, range(0, n, per_task))):
                if bar is not None:
                    bar.advance(min(per_task, n - first * per_task))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
