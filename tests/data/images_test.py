"""Images of every mode and make to RGB; broken and hostile files refused in one line."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import images, open_image, to_rgb
from jaxvit.errors import UserError

GRADIENT = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (16, 1))  # [16, 32]


def _rgb(image) -> np.ndarray:
    converted = to_rgb(image)
    assert converted.mode == "RGB" and converted.size == image.size
    return np.asarray(converted)


def _grey_rgb(values) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr", "HSV", "P", "PA"])
def test_plain_modes_keep_the_picture(mode):
    picture = Image.fromarray(_grey_rgb(GRADIENT))
    changed = picture.quantize(64).convert(mode) if mode.startswith("P") else picture.convert(mode)
    np.testing.assert_allclose(_rgb(changed).astype(int), _grey_rgb(GRADIENT).astype(int), atol=6)


def test_bilevel_images_are_black_and_white():
    assert set(np.unique(_rgb(Image.fromarray(GRADIENT > 100)))) == {0, 255}


@pytest.mark.parametrize("mode", ["LA", "RGBA", "La", "RGBa"])
def test_transparency_becomes_white(mode):
    colour = np.full((4, 4, 4), 40, np.uint8)
    colour[..., 3] = [0, 255, 255, 51]
    picture = Image.fromarray(colour).convert("LA").convert(mode) if mode in ("LA", "La") else Image.fromarray(colour)
    result = _rgb(picture.convert(mode))
    np.testing.assert_allclose(result[0, :, 0].astype(int), [255, 40, 40, 212], atol=3)


def test_transparent_palette_and_colour_key_become_white():
    palette = Image.fromarray(GRADIENT % 3).convert("P")
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.info["transparency"] = 1
    assert {tuple(p) for p in _rgb(palette).reshape(-1, 3)} == {(200, 0, 0), (255, 255, 255), (0, 0, 200)}
    keyed = Image.new("RGB", (2, 2), (1, 2, 3))
    keyed.info["transparency"] = (1, 2, 3)
    assert (_rgb(keyed) == 255).all()


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_scale_to_eight(dtype, tmp_path):
    deep = (GRADIENT.astype(np.uint16) * 257).astype(dtype)
    np.testing.assert_array_equal(_rgb(Image.fromarray(deep)), _grey_rgb(GRADIENT))
    Image.fromarray(deep.astype("<u2")).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "deep.png")), _grey_rgb(GRADIENT))


def test_32_bit_and_float_images():
    np.testing.assert_array_equal(_rgb(Image.fromarray(GRADIENT.astype(np.int32))), _grey_rgb(GRADIENT))
    np.testing.assert_array_equal(_rgb(Image.fromarray(GRADIENT.astype(np.int32) * 257)), _grey_rgb(GRADIENT))
    np.testing.assert_array_equal(_rgb(Image.fromarray(GRADIENT.astype(np.float32))), _grey_rgb(GRADIENT))
    np.testing.assert_array_equal(_rgb(Image.fromarray(GRADIENT.astype(np.float32) / 255)), _grey_rgb(GRADIENT))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation, tmp_path):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # a white square, top left
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(turn[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=100, subsampling=0)
    np.testing.assert_allclose(np.asarray(open_image(tmp_path / "photo.jpg"), int), upright.astype(int), atol=3)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP"])
def test_animated_files_give_their_first_frame_or_are_refused(image_format, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / "x.png", image_format, save_all=True, append_images=frames[1:], lossless=True)
    if image_format == "GIF":
        with pytest.raises(UserError, match="a GIF file, which is not read"):
            open_image(tmp_path / "x.png")
    else:
        assert open_image(tmp_path / "x.png").getpixel((3, 3)) == (255, 0, 0)


def _noise(image_format: str) -> bytes:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8))
    picture.save(buffer := io.BytesIO(), image_format)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_truncated_files_are_found_by_the_full_and_the_quick_check(image_format, tmp_path):
    whole = _noise(image_format)
    file = tmp_path / "x.jpg"
    for full in (True, False):
        file.write_bytes(whole)
        assert images.check(file, full=full) == (60, 70)
        for length in (0, 1, 20, len(whole) // 2, len(whole) * 9 // 10):
            file.write_bytes(whole[:length])
            with pytest.raises(images.DECODE_ERRORS):
                images.check(file, full=full)
            with pytest.raises(UserError, match="x.jpg: not a readable image") as caught:
                open_image(file)
            assert len(str(caught.value).splitlines()) == 1


def test_what_the_check_passes_decodes(tmp_path):
    """Bytes flipped anywhere: a file either fails the check, or decodes in training."""
    rng = np.random.default_rng(0)
    file = tmp_path / "x.png"
    passed = failed = 0
    for image_format in ("JPEG", "PNG", "WEBP"):
        whole = _noise(image_format)
        for _ in range(60):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 3):
                damaged[at] = rng.integers(0, 256)
            file.write_bytes(damaged)
            try:
                images.check(file, full=True)
            except images.DECODE_ERRORS:
                failed += 1
                continue
            passed += 1
            assert images.decode(file).mode == "RGB"
    assert passed > 20 and failed > 20


def test_decompression_bombs_are_refused_before_decoding(tmp_path):
    Image.new("1", (20_000, 5_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="bomb.png"):
        open_image(tmp_path / "bomb.png")


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(UserError, match="directory"):
        open_image(tmp_path)
    (tmp_path / "note.jpg").write_text("hello")
    with pytest.raises(UserError, match="no image data; expected JPEG, PNG, WebP"):
        open_image(tmp_path / "note.jpg")


def test_damaged_exif_does_not_spoil_the_image(tmp_path):
    whole = _noise("JPEG")
    exif = b"Exif\0\0II*\0" + b"\xff" * 40
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "x.jpg").write_bytes(whole[:2] + segment + whole[2:])
    assert open_image(tmp_path / "x.jpg").size == (70, 60)


def test_in_threads_visits_each_once_and_passes_errors_on():
    seen = []
    images.in_threads(seen.append, 1000, "")
    assert sorted(seen) == list(range(1000))

    def fail(i):
        if i == 700:
            raise UserError("seven hundred")

    with pytest.raises(UserError, match="seven hundred"):
        images.in_threads(fail, 1000, "")
