"""Arrays, files and PIL images through a classifier."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit.errors import UserError
from jaxvit.inference import batches
from jaxvit.inference.classifier import Classifier

WORDS = {"image_size": (8, 8), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0, "interpolation": "bilinear",
         "in_channels": 1}  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)


class Brightness:
    """Two classes, dark and bright."""

    def apply(self, variables, images):
        mean = jnp.mean(images, (1, 2, 3))
        return jnp.stack([-mean, mean], axis=1) * variables


CLASSIFIER = Classifier("brightness", Brightness(), jnp.float32(3.0), ["dark", "bright"], WORDS)


def test_arrays_files_and_pictures_give_the_same_at_any_batch_size(tmp_path):
    scaled = (IMAGES / 255.0 - 0.5).mean((1, 2, 3)) / 0.5
    expected = 1 / (1 + np.exp(-2 * 3 * scaled))
    pictures = [Image.fromarray(image[..., 0]) for image in IMAGES]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for images in (IMAGES, (IMAGES / 255.0).astype(np.float32), pictures, files):
        for size in (2, 32):
            found = CLASSIFIER.predict(images, size)
            np.testing.assert_allclose(found[:, 1], expected, atol=1e-5)
            np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(CLASSIFIER.predict(str(files[2]))[0, 1], expected[2], atol=1e-5)


def test_nothing_and_what_is_no_image():
    assert batches.probabilities(CLASSIFIER, []).shape == (0, 2)
    with pytest.raises(UserError, match="dict"):
        batches.probabilities(CLASSIFIER, [{"image": 1}])


def test_a_batch_is_filled_with_its_last_image():
    np.testing.assert_array_equal(batches.filled(np.arange(3)[:, None], 5)[:, 0], [0, 1, 2, 2, 2])
