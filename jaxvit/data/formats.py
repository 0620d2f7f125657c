"""Which image files are read: their format by the first bytes, and what one image may cost."""

import functools
import re
from pathlib import Path
from typing import IO

from PIL import features

MAX_BYTES = 256 * 2**20  # of a file
# Pixels. The first two are Pillow's own limit; the others decode by way of several copies. None takes 1 GB of memory.
MAX_PIXELS = {"JPEG": 89_478_485, "PNG": 89_478_485, "CMYK": 75_000_000, "WEBP": 50_000_000, "AVIF": 50_000_000,
              "HEIF": 50_000_000}  # fmt: skip
MAX_SIDE = 2**20  # pixels; Pillow keeps an address for each row, 640 MB for 80 million rows of one pixel
MAX_SCANS = 100  # of a JPEG; encoders write about 10 into a progressive one
MAX_SCANNED = 2_000_000_000  # scans times pixels: each scan goes over the whole image

HEAD = 64  # bytes that tell the format
# Format, where its mark stands and the mark, and what to do with a file of a format that is not read.
CONVERT = "convert it to PNG or JPEG"
MARKS: tuple[tuple[str, int, bytes, str], ...] = (
    ("JPEG", 0, b"\xff\xd8\xff", ""),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n", ""),
    ("WEBP", 8, b"WEBP", ""),
    ("GIF", 0, b"GIF8", CONVERT),
    ("BMP", 0, b"BM", CONVERT),
    ("TIFF", 0, b"II*\0", CONVERT),
    ("TIFF", 0, b"MM\0*", CONVERT),
    ("BigTIFF", 0, b"II+\0", CONVERT),
    ("JPEG XL", 0, b"\xff\x0a", CONVERT),
    ("JPEG XL", 4, b"JXL ", CONVERT),
    ("JPEG 2000", 4, b"jP  ", CONVERT),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51", CONVERT),
    ("Photoshop", 0, b"8BPS", CONVERT),
    ("PDF", 0, b"%PDF", CONVERT),
    ("SVG", 0, b"<svg", CONVERT),
    ("HTML", 0, b"<!DOCTYPE html", "perhaps from a failed download"),
    ("HTML", 0, b"<html", "perhaps from a failed download"),
    ("Git LFS", 0, b"version https://git-lfs", "fetch the files with 'git lfs pull'"),
)
IMAGES = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")  # what counts as an image whatever the file is called


class NotReadable(ValueError):
    """A file of a format that is not read, or one that costs too much; the text is for a person."""


@functools.cache
def has_avif() -> bool:
    """Whether this Pillow decodes AVIF, as its own wheels do."""
    return bool(features.check("avif"))


@functools.cache
def has_heif() -> bool:
    """Whether pillow-heif is installed (the extra `heic`); registers it with Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def read_formats() -> str:
    """Returns "JPEG, PNG or WebP", with AVIF and HEIC where they are read, for messages."""
    names = ["JPEG", "PNG", "WebP", *(["AVIF"] if has_avif() else []), *(["HEIC"] if has_heif() else [])]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def identify(head: bytes) -> str | None:
    """Returns the format that a file's first bytes tell ("JPEG", "HEIF", "GIF", ...), or None."""
    if head[4:8] == b"ftyp":  # the box of AVIF and HEIC: its brands tell which
        length = int.from_bytes(head[:4], "big")
        brands = [head[i : i + 4] for i in (8, *range(16, min(length, len(head)), 4))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand[:3] in (b"hei", b"hev") or brand in (b"mif1", b"msf1") for brand in brands):
            return "HEIF"
    if head[8:12] == b"WEBP" and head[:4] != b"RIFF":
        return None
    return next((name for name, at, mark, _ in MARKS if head[at : at + len(mark)].lower() == mark.lower()), None)


def decoder(head: bytes) -> str:
    """Returns the one Pillow decoder that a file with these first bytes may reach; raises NotReadable for others."""
    name = identify(head)
    if name == "AVIF" and not has_avif():
        raise NotReadable("an AVIF file, which this Pillow does not read; convert it to PNG or JPEG")
    if name == "HEIF" and not has_heif():
        raise NotReadable("a HEIC file; pip install 'jaxvit[heic]' to read it, or convert it to JPEG")
    if name in IMAGES:
        return name
    if name is not None:
        way_out = next(way for other, _, _, way in MARKS if other == name)
        raise NotReadable(f"{'an' if name in ('HTML', 'SVG') else 'a'} {name} file, which is not read; {way_out}")
    raise NotReadable("an empty file" if not head else f"no image data; expected {read_formats()}")


def is_image(path: Path) -> bool:
    """Returns whether the first bytes are those of an image that can be read; False for what is not a plain file."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return identify(file.read(HEAD)) in IMAGES
    except OSError:
        return False


def check_bytes(num_bytes: int) -> None:
    """Raises NotReadable for a file that is too large."""
    if num_bytes > MAX_BYTES:
        raise NotReadable(f"{num_bytes:,} bytes, more than {MAX_BYTES:,}")


def check_pixels(name: str, mode: str, width: int, height: int) -> None:
    """Raises NotReadable for an image that would take too much memory, before anything of it is decoded."""
    most = min(MAX_PIXELS[name], MAX_PIXELS.get(mode, MAX_PIXELS[name]))
    if width * height > most:
        raise NotReadable(f"{width}x{height} pixels, more than {most:,}")
    if max(width, height) > MAX_SIDE:
        raise NotReadable(f"{width}x{height} pixels, a side of more than {MAX_SIDE:,}")


def check_scans(file: IO[bytes], width: int, height: int) -> None:
    """Raises NotReadable for a JPEG with so many scans that decoding it would take minutes.

    Progressive files hold the image in about ten scans; a hostile one has thousands.
    """
    most = min(MAX_SCANS, MAX_SCANNED // max(width * height, 1))
    position = file.tell()
    try:
        file.seek(0)
        if _marks(file) <= most:
            return
        file.seek(0)
        scans = count_scans(file.read(MAX_BYTES))
    finally:
        file.seek(position)
    if scans > most:
        raise NotReadable(f"{scans:,} scans of {width}x{height} pixels, more than {most}")


def _marks(file: IO[bytes]) -> int:
    """How often the mark of a scan stands in the file: at least as often as there are scans, and quick to count."""
    found, last = 0, b""
    while block := file.read(2**20):
        found += (last + block).count(b"\xff\xda")
        last = block[-1:]
    return found


_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # within a scan a byte 0xff is followed by 0, or restarts it


def count_scans(content: bytes) -> int:
    """Returns the number of scans of a JPEG file, without those of thumbnails within its segments."""
    at, scans = 2, 0
    while (found := _MARKER.search(content, at)) and found.group() != b"\xff\xd9":
        at = found.start() + 2
        scans += found.group() == b"\xff\xda"
        at += int.from_bytes(content[at : at + 2], "big")  # of the segment, or of the head of the scan
    return scans
