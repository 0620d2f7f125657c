"""Which files are read, what is said of the others, and what one image may cost."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import files, formats, images
from jaxvit.data.images import open_image
from jaxvit.errors import UserError


def encoded(image_format, size=(32, 24), mode="RGB", **options):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)
    picture.save(buffer := io.BytesIO(), image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded("GIF"), "a GIF file, which is not read; convert it"),
        (encoded("BMP"), "a BMP file, which is not read; convert it"),
        (encoded("TIFF"), "a TIFF file, which is not read; convert it"),
        (encoded("TIFF", big_tiff=True), "a BigTIFF file"),
        (encoded("JPEG2000"), "a JPEG 2000 file"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL file"),
        (b"<!doctype html><p>Not found", "an HTML file, which is not read; .*download"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"%PDF-1.7", "a PDF file"),
        (b"RIFF\0\0\0\0AVI LIST", "no image data"),
        (b"", "an empty file"),
        (b"hello", "no image data; expected JPEG, PNG, WebP"),
        (b"\x89PNG\r\n\x1a\n", "damaged: its header cannot be read"),
        (b"\xff\xd8\xff", "damaged: its header cannot be read|broken data stream"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_the_way_out(tmp_path, content, message):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UserError, match=f"x.jpg: not a readable image: .*{message}") as caught:
        open_image(tmp_path / "x.jpg")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("brands", "kind"),
    [
        (b"heic\0\0\0\0mif1heic", "HEIF"), (b"mif1\0\0\0\0mif1heic", "HEIF"), (b"mif1\0\0\0\0mif1avif", "AVIF"),
        (b"avif\0\0\0\0mif1miaf", "AVIF"), (b"avis\0\0\0\0msf1miaf", "AVIF"), (b"hevc\0\0\0\0msf1hevc", "HEIF"),
        (b"isom\0\0\0\0isommp42", None), (b"qt  \0\0\0\0qt  qt  ", None),
    ],
)  # fmt: skip
def test_photos_and_films_in_boxes_are_told_apart(brands, kind):
    assert formats.identify((8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + bytes(40)) == kind


def test_heic_says_which_extra_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "has_heif", lambda: False)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(UserError, match=r"a HEIC file; pip install 'jaxvit\[heic\]' to read it, or convert it to JPEG"):
        open_image(tmp_path / "IMG_1.HEIC")


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF"])
def test_avif_and_heic_photos_are_read_upright(tmp_path, image_format):
    if image_format == "HEIF":
        pytest.importorskip("pillow_heif")
    if not {"AVIF": formats.has_avif, "HEIF": formats.has_heif}[image_format]():
        pytest.skip(f"this Pillow does not read {image_format}")
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:, :32] = 255  # turned by 90 degrees clockwise the white half is at the top
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    picture = Image.fromarray(stored)
    picture.info["exif"] = exif.tobytes()  # where HEIC's writer looks for it
    picture.save(tmp_path / "photo", image_format, quality=95, **({"exif": exif} if image_format == "AVIF" else {}))
    found = np.asarray(open_image(tmp_path / "photo"), int)
    assert found.shape == (64, 32, 3) and found[:28].min() > 240 and found[36:].max() < 15
    assert files.image_files(tmp_path) == [tmp_path / "photo"]  # by content, without an ending


def test_files_that_count_as_images_everywhere(tmp_path):
    for name in ("a.jpg", "b.JPE", "c.jfif", "d", "e.dat", "sub/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded("JPEG"))
    for name in ("._a.jpg", ".hidden.png", ".ipynb_checkpoints/g.png", "__MACOSX/h.jpg", "notes.txt", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded("PNG") if "." in name[1:] and name[-3:] in ("png", "jpg") else b"text")
    (tmp_path / "i.gif").write_bytes(encoded("GIF"))  # claims to be an image, so that it is missed
    found = [str(p.relative_to(tmp_path)) for p in files.image_files(tmp_path)]
    assert found == ["a.jpg", "b.JPE", "c.jfif", "d", "e.dat", "i.gif", "sub/f.png"]


def scans(content, more):
    """A progressive JPEG whose last scan stands `more` times more in the file."""
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * more + b"\xff\xd9"


def test_a_jpeg_of_thousands_of_scans_is_refused_before_decoding(tmp_path):
    content = encoded("JPEG", progressive=True)
    assert formats.count_scans(content) == content.count(b"\xff\xda") == 10
    file = tmp_path / "x.jpg"
    file.write_bytes(scans(content, formats.MAX_SCANS - 10))
    assert open_image(file).size == (32, 24)
    for read in (open_image, lambda file: images.check(file, full=True)):
        file.write_bytes(scans(content, 9_990))
        with pytest.raises(ValueError, match="10,000 scans of 32x24 pixels, more than 100"):
            read(file)


def test_the_quick_check_of_many_files_reads_no_scans(tmp_path):
    """It would read all of ImageNet; such a file is refused when it is decoded."""
    file = tmp_path / "a.jpg"
    file.write_bytes(scans(encoded("JPEG", progressive=True), 9_990))
    assert images.check(file, full=False) == (24, 32)
    for read in (images.decode, lambda path: images.check(path, full=True)):
        with pytest.raises(ValueError, match="10,000 scans"):
            read(file)
    file.write_bytes(file.read_bytes()[:-2])  # a file without its end is decoded
    with pytest.raises(ValueError, match="scans"):
        images.check(file, full=False)


def test_scans_are_not_counted_in_segments_and_behind_the_end(tmp_path):
    """A thumbnail, a maker's note and the film behind a phone's photo may hold the same two bytes."""
    content = encoded("JPEG", progressive=True)
    note = b"\xff\xda" * 2000
    segment = b"\xff\xeb" + (len(note) + 2).to_bytes(2, "big") + note
    content = content[:2] + segment + content[2:] + note
    assert formats.count_scans(content) == 10
    (tmp_path / "x.jpg").write_bytes(content)
    assert open_image(tmp_path / "x.jpg").size == (32, 24)


def test_a_baseline_jpeg_has_one_scan():
    assert formats.count_scans(encoded("JPEG", size=(200, 200), quality=100)) == 1


def test_a_file_of_too_many_bytes_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "x.png", "wb") as file:
        file.write(encoded("PNG"))
        file.truncate(formats.MAX_BYTES + 1)  # a hole, which takes no room
    with pytest.raises(UserError, match="268,435,457 bytes, more than 268,435,456"):
        open_image(tmp_path / "x.png")


@pytest.mark.parametrize(("image_format", "mode"), [("WEBP", "RGB"), ("PNG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK")])
def test_too_many_pixels_for_a_format(tmp_path, monkeypatch, image_format, mode):
    (tmp_path / "x").write_bytes(encoded(image_format, mode=mode))
    monkeypatch.setitem(formats.MAX_PIXELS, "CMYK" if mode == "CMYK" else image_format, 32 * 24)
    assert open_image(tmp_path / "x").size == (32, 24)
    monkeypatch.setitem(formats.MAX_PIXELS, "CMYK" if mode == "CMYK" else image_format, 32 * 24 - 1)
    with pytest.raises(UserError, match="32x24 pixels, more than 767"):
        open_image(tmp_path / "x")


MEASURE = """
import io, resource, sys
import numpy as np
from PIL import Image
from jaxvit.data import images, preprocess
mode, kind = sys.argv[1:]
def peak(side):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new(mode, (side, side), None if mode == "I;16" else 1)
    picture.save(buffer := io.BytesIO(), kind, **({"compress_level": 1} if kind == "PNG" else {}), exif=exif)
    del picture
    buffer.seek(0)
    rgb = images.decode(buffer)
    preprocess(rgb, {"image_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak(16)
print(1024 * (peak(4000) - before) / 4000**2)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory as Linux gives it")
@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("RGBA", "PNG")])
def test_no_image_takes_a_gigabyte(mode, kind):
    """Bytes per pixel, over 16 megapixels: at the limit of 89 megapixels that must stay below 10^9 bytes."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, mode, kind], capture_output=True, text=True, check=True, timeout=300
    )
    assert float(done.stdout) * formats.MAX_PIXELS[kind] < 1e9


def test_a_line_of_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_SIDE", 100)
    Image.new("L", (1, 101)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="1x101 pixels, a side of more than 100"):
        open_image(tmp_path / "x.png")
