"""The images that an exported file is compared on: of the model's size, as the graph reads them."""

import numpy as np
from PIL import Image

from jaxvit import data
from jaxvit.export import samples
from tests.helpers import pretrained as small

CONFIG = {"image_size": (32, 32), "mean": (0.5,) * 3, "std": (0.2,) * 3, "crop_pct": 0.9, "interpolation": "bicubic"}


def test_pixels_are_those_of_preprocess_and_fitting_ones_stay():
    convert = samples.to_pixels(small.make(small.VIT), CONFIG)
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (70, 50, 3), dtype=np.uint8))
    wanted = np.rint((data.preprocess(photo, CONFIG) * 0.2 + 0.5) * 255)  # normalised and back
    np.testing.assert_array_equal(convert(photo), wanted)
    fitting = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(convert(fitting), fitting)


def test_photos_for_a_model_without_data():
    grey = small.make(small.VIT, in_channels=1, image_size=(24, 40), patch_size=8)
    found = samples.of_photos(grey, {**CONFIG, "mean": (0.5,), "std": (0.2,)})
    assert found.images.shape == (samples.VIEWS, 24, 40, 1) and found.images.dtype == np.uint8
    assert len({image.tobytes() for image in found.images}) == samples.VIEWS  # no view twice


def test_parts_hold_each_image_once():
    images = np.arange(9)
    assert [list(p) for p in samples.parts(images, (1, 3))] == [[0], [1, 2, 3], [4, 5, 6, 7, 8]]
    assert [list(p) for p in samples.parts(images[:3], (1, 3))] == [[0], [1, 2]]


def test_classes_that_a_run_recorded(tmp_path):
    logits = np.eye(4, dtype=np.float32)
    np.savez(tmp_path / "predictions.npz", logits=logits, index=[3, 2, 1, 0], names=["7", "5", "9", "2"])
    np.testing.assert_array_equal(samples.recorded_classes(tmp_path, np.array(["5", "2", "8"])), [1, 3, -1])
    np.testing.assert_array_equal(samples.recorded_classes(tmp_path / "gone", np.array(["5"])), [-1])
