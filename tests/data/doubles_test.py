"""Doubles are found whatever the file format, size, brightness and compression; other pictures are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxvit.data import doubles, load_dataset
from jaxvit.data.splits import from_arrays
from jaxvit.train import leaks
from tests.helpers.photos import photos


def as_jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def cosine(a, b):
    splits = [from_arrays("x", image[None], np.zeros(1)) for image in (a, b)]
    return float((doubles.describe(splits[0])[1] @ doubles.describe(splits[1])[1].T)[0, 0])


@pytest.mark.parametrize("name", ["jpeg", "half", "darker", "contrast", "crop"])
def test_a_changed_copy_is_near(name):
    image = photos(2, 100, 90)[0]
    picture = Image.fromarray(image)
    changed = {
        "jpeg": lambda: as_jpeg(image, 30),
        "half": lambda: np.asarray(picture.resize((45, 50), Image.Resampling.BICUBIC)),
        "darker": lambda: np.asarray(ImageEnhance.Brightness(picture).enhance(0.7)),
        "contrast": lambda: np.asarray(ImageEnhance.Contrast(picture).enhance(0.7)),
        "crop": lambda: image[1:-1, 1:-1],
    }[name]()
    assert cosine(image, changed) > doubles.NEAR


def test_the_nearest_is_that_of_a_product_by_hand():
    """In blocks whose last one overlaps, and among images of other labels alone."""
    rng = np.random.default_rng(0)
    known, labels = rng.normal(size=(doubles.BLOCK + 70, 5)).astype(np.float32), rng.integers(0, 3, doubles.BLOCK + 70)
    cosines, at = doubles.nearest(known, known, labels)
    product = known @ known.T
    product[labels[:, None] == labels[None]] = -np.inf
    assert (at == product.argmax(1)).all()
    np.testing.assert_allclose(cosines, product.max(1), rtol=1e-5)


def test_pairs_between_splits_and_within_train():
    """Exact before near; same labels within train are no fault; blank and unreadable images are like no other."""
    images = np.array(photos(12, 40, 40))
    images[5] = 0  # blank
    train = from_arrays("train", images[[0, 1, 2, 3, 1, 2, 5]], np.array([0, 1, 2, 0, 1, 0, 1]))
    test = from_arrays("test", np.stack([images[3], as_jpeg(images[0], 90), images[8]]), np.array([0, 1, 2]))
    found = doubles.find({"train": train, "val": train.take(np.arange(0), "val"), "test": test})
    assert [(d.kind, d.a, d.i, d.b, d.j) for d in found] == [
        ("exact", "test", 0, "train", 3), ("near", "test", 1, "train", 0), ("exact", "train", 2, "train", 5),
    ]  # fmt: skip


def test_several_labels_per_image():
    images = np.array(photos(3, 40, 40))
    train = from_arrays("train", images[[0, 1, 0, 1]], np.array([[1, 0], [0, 1], [1, 1], [0, 1]], np.uint8))
    assert [(d.i, d.j) for d in doubles.find({"train": train})] == [(0, 2)]


def test_digits_have_none_that_are_the_same():
    """Scikit-learn's digits: by a set of their bytes, no scan stands in two splits."""
    dataset = load_dataset("digits")
    train, test = ({image.tobytes() for image in split.images} for split in (dataset.train, dataset.test))
    found = doubles.find({"train": dataset.train, "test": dataset.test})
    assert sum(d.kind == "exact" for d in found) == len(train & test) == 0
    assert "common for drawings" in leaks.lines(dataset, found)[-1]
