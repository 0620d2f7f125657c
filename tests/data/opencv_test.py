"""OpenCV against Pillow: the same pixels of a JPEG, nearly the same crops, and the same files refused."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from jaxvit.data import Crop, crops
from jaxvit.data.images import DECODE_ERRORS, decode
from tests.helpers.photos import detailed, jpeg

cv2 = pytest.importorskip("cv2")

from jaxvit.data import opencv  # noqa: E402

OPTIONS = {
    "train_crop_mode": "rrc", "random_resized_crop": None, "crop_ratio": (3 / 4, 4 / 3), "train_interpolation": None,
}  # fmt: skip


def by(decoder, size=(48, 48), in_channels=3, **options):
    return Crop(crops.make_draw(OPTIONS | options, size, "bicubic"), size, in_channels, decoder)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 60, "subsampling": 2}])
def test_a_jpeg_has_the_pixels_that_pillow_decodes(mode, options):
    file = jpeg(detailed(100, 130).convert(mode), **options)
    pixels, divisor = opencv.decode(io.BytesIO(file), lambda size: 1.9)
    assert divisor == 1
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))


@pytest.mark.parametrize(("size", "limit"), [(224, 1.0), (48, 1.7)])
def test_crops_are_nearly_those_of_pillow(size, limit):
    """The measure is how much Pillow's bilinear and bicubic differ from each other; a pixel's shift is far more.

    A small crop comes from a JPEG that was decoded at a fraction of its size, and its box is rounded to such pixels.
    """
    files = [jpeg(Image.fromarray(photo)) for photo in load_sample_images().images]
    wanted = (("opencv", "bicubic"), ("pillow", "bicubic"), ("pillow", "bilinear"))
    crop = [by(decoder, size=(size, size), train_interpolation=method) for decoder, method in wanted]
    differences = []
    for i in range(12):
        found = [one.of_file(crops.generator(0, 0, i), io.BytesIO(files[i % 2])).astype(int) for one in crop]
        others = (found[0], found[2], np.roll(found[1], 1, axis=1))
        differences.append([np.abs(pixels - found[1]).mean() for pixels in others])
    near, methods, shifted = np.mean(differences, axis=0)
    assert near < limit * methods < shifted / 3


@pytest.mark.parametrize("mode", crops.MODES)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_mode_and_channel_is_that_of_pillow(mode, in_channels):
    file = jpeg(detailed(90, 120, detail=30))
    ours, theirs = (by(decoder, in_channels=in_channels, train_crop_mode=mode) for decoder in ("opencv", "pillow"))
    for i in range(4):
        a, b = (crop.of_file(crops.generator(0, 0, i), io.BytesIO(file)).astype(int) for crop in (ours, theirs))
        assert a.shape == b.shape == (48, 48, in_channels) and np.abs(a - b).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "CMYK", "turned"])
def test_other_photos_are_decoded_by_pillow(kind):
    image, file = detailed(200, 260), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    image.convert("CMYK" if kind == "CMYK" else "RGB").save(file, "PNG" if kind == "PNG" else "JPEG", exif=exif)
    pixels, _ = opencv.decode(io.BytesIO(file.getvalue()), lambda size: 1.0)
    np.testing.assert_array_equal(pixels, np.asarray(decode(io.BytesIO(file.getvalue()))))
    assert pixels.shape == ((260, 200, 3) if kind == "turned" else (200, 260, 3))


@pytest.mark.parametrize("spoil", [lambda f: f[: len(f) // 2], lambda f: b"GIF8" + f, lambda f: f[:30], lambda f: b""])
def test_files_that_pillow_refuses_are_refused(spoil):
    with pytest.raises(DECODE_ERRORS):
        by("opencv").of_file(crops.generator(0, 0, 0), io.BytesIO(spoil(jpeg(detailed(60, 80)))))
