"""The evaluation transform: against timm itself, and by hand where timm is absent."""

import contextlib
import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import make_transform, open_image, preprocess
from jaxvit.errors import UserError
from tests.helpers.photos import photos

PHOTOS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "photos"
CONFIG = {"image_size": 224, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop_pct": 0.9}
CASES = [
    {},
    {"image_size": (160, 224)},
    {"image_size": (97, 65), "crop_pct": 0.875, "interpolation": "bilinear"},
    {"crop_pct": 1.0, "interpolation": "lanczos"},
    {"crop_mode": "squash", "crop_pct": 0.95},
    {"crop_mode": "squash", "image_size": (64, 97), "crop_pct": 1.0},
    {"crop_mode": "border", "crop_pct": 1.0},
    {"crop_mode": "border", "image_size": (120, 333), "crop_pct": 0.7, "interpolation": "bilinear"},
    {"crop_pct": 1.5, "image_size": 65},  # the crop is larger than what was resized: filled up
    {"crop_pct": None, "image_size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
]


def _pictures():
    rng = np.random.default_rng(0)
    for h, w in ((50, 70), (71, 33), (224, 224), (1, 9), (301, 300)):
        yield Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8))


@pytest.mark.torch
@pytest.mark.parametrize("case", range(len(CASES)))
def test_equals_timm(case):
    pytest.importorskip("torch")
    with contextlib.suppress(ImportError):
        import torchvision_cpu  # noqa: F401  # where only a CPU build of torch is installed
    timm_data = pytest.importorskip("timm.data")
    config = {**CONFIG, "interpolation": "bicubic", "crop_mode": "center", **CASES[case]}
    size = config["image_size"]
    theirs = timm_data.create_transform(
        input_size=(3, *((size, size) if isinstance(size, int) else size)),
        **{key: config[key] for key in ("mean", "std", "crop_pct", "interpolation", "crop_mode")},
    )
    photos = sorted(PHOTOS.glob("*.JPEG"))[: 12 if case == 0 else 3]
    for picture in [*_pictures(), *(Image.open(photo).convert("RGB") for photo in photos)]:
        expected = theirs(picture).permute(1, 2, 0).numpy()
        result = preprocess(picture, config)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_centre_of_a_known_picture():
    image = np.zeros((8, 12, 3), np.uint8)
    image[2:6, 4:8] = 255
    result = preprocess(Image.fromarray(image), {**CONFIG, "image_size": 4, "crop_pct": 0.5})
    expected = (1 - np.array(CONFIG["mean"])) / np.array(CONFIG["std"])
    np.testing.assert_allclose(result, np.broadcast_to(expected, (4, 4, 3)), atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_any_mode_and_size(mode):
    for size in ((1, 1), (3, 200), (40, 40)):
        assert preprocess(Image.new(mode, size), {**CONFIG, "image_size": (20, 30)}).shape == (20, 30, 3)


def test_grey_models_get_one_channel():
    config = {"image_size": 8, "in_channels": 1, "mean": (0.5,), "std": (0.5,)}
    result = preprocess(Image.new("RGB", (9, 9), (255, 255, 255)), config)
    np.testing.assert_array_equal(result, np.ones((8, 8, 1), np.float32))


def test_arrays_are_taken_as_pictures():
    transform = make_transform(4, in_channels=1, crop_pct=1.0)
    grey = np.random.default_rng(0).integers(0, 256, (4, 4, 1), np.uint8)
    np.testing.assert_array_equal(transform(grey), grey)
    np.testing.assert_array_equal(make_transform(4, crop_pct=1.0)(grey), np.repeat(grey, 3, -1))


@pytest.mark.parametrize(
    "options",
    [
        {"interpolation": "cubic"},
        {"crop_mode": "middle"},
        {"crop_pct": 0.0},
        {"image_size": 0},
        {"image_size": (4, 4, 3)},
        {"in_channels": 2},
    ],
)
def test_wrong_options_are_answered(options):
    with pytest.raises(UserError, match="expected|become"):
        make_transform(**{"image_size": 8, **options})


@pytest.mark.parametrize(
    ("image", "config", "said"),
    [
        ("photo.jpg", CONFIG | {"image_size": 8}, "expected a PIL image"),
        (np.zeros((8, 8, 3), np.float32), CONFIG | {"image_size": 8}, "float32.*expected uint8"),
        (np.zeros((8, 8), np.uint8), CONFIG | {"image_size": 8}, "expected uint8"),
        (Image.new("RGB", (8, 8)), "resnet18", "data_config"),
        (Image.new("RGB", (8, 8)), {"image_size": 8}, "mean and std"),
    ],
)
def test_what_is_not_an_image_or_its_preprocessing_is_answered(image, config, said):
    with pytest.raises(UserError, match=said):
        preprocess(image, config)


@pytest.mark.parametrize("size", [(40, 2000), (2000, 40)])
def test_of_a_very_long_image_the_middle_is_resized_alone(size, monkeypatch):
    ramp = np.linspace(0, 255, 2000).astype(np.uint8)
    values = np.broadcast_to(ramp[None] if size[0] == 40 else ramp[:, None], size)
    image = Image.fromarray(np.stack([values] * 3, -1))
    middle = make_transform(64)(image).astype(int)
    monkeypatch.setattr(importlib.import_module("jaxvit.data.preprocess"), "MAX_ASPECT", 1000)
    assert np.abs(middle - make_transform(64)(image)).max() <= 1


def test_a_line_of_pixels_takes_no_memory():
    sizes = []
    original = Image.Image.resize

    def resize(self, size, *args, **words):
        sizes.append(size)
        return original(self, size, *args, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", resize)
        for line in ((60_000, 1), (1, 60_000)):
            assert make_transform(224)(Image.new("RGB", line)).shape == (224, 224, 3)
    assert max(w * h for w, h in sizes) < 3_000_000


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_phone_photo_is_turned_upright_as_predict_turns_it(tmp_path, orientation, mode):
    """The same array from the opened file as from `open_image`, and as from the pixels turned by hand."""
    picture = Image.fromarray(photos(1, 48, 32)[0]).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "photo.png", exif=exif)
    words = {"image_size": (24, 24), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    stored = Image.open(tmp_path / "photo.png")
    by_hand = np.ascontiguousarray(np.rot90(np.asarray(picture), {1: 0, 3: 2, 6: -1, 8: 1}[orientation]))
    found = preprocess(stored, words)
    np.testing.assert_array_equal(found, preprocess(Image.fromarray(by_hand), words))
    np.testing.assert_array_equal(found, preprocess(open_image(tmp_path / "photo.png"), words))
    np.testing.assert_array_equal(found, preprocess(stored, words))  # the caller's image is left as it was
    assert orientation == 1 or stored.getexif()[0x0112] == orientation
