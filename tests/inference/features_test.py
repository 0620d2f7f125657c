"""Features of data sets: in file order, on from where they stopped, with a key that tells them apart."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvit import config, data, explain, inference, models
from jaxvit.data.splits import IMAGENET_MEAN, IMAGENET_STD
from jaxvit.errors import UserError
from jaxvit.inference import feature_file, features
from tests.helpers import write_npz

READING = {"image_size": (8, 8), "in_channels": 3, "crop_pct": 1.0, "interpolation": "bicubic"}
READING |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def reading():
    """A config with these words."""
    words = config.default()
    with words.unlocked(), words.ignore_type():
        words.data.update({k: v for k, v in READING.items() if k in words.data})
    return words


@pytest.fixture(scope="module")
def classifier():
    model = models.create_model(
        "vit_tiny_patch16_224", num_classes=3, image_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2
    )
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    return inference.Classifier("vit_tiny_patch16_224", model, variables, ["a", "b", "c"], READING)


def test_a_stopped_run_goes_on_where_it_was(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_file, "SAVE_SECS", 0.0)
    images = features.open_images(classifier, write_npz(tmp_path / "data", num_train=21, num_test=6))
    opened, asked = images.open("train"), []

    class Feed:
        """Batches until the process is stopped."""

        def __init__(self, most):
            self.most, self.image_shape = most, opened.feed.image_shape

        def batches(self, order, size, *, start=0, pad=False):
            for i, batch in enumerate(opened.feed.batches(order, size, start=start, pad=pad), start):
                if i == self.most:
                    raise KeyboardInterrupt
                asked.append(i)
                yield batch

    key = features.make_key(classifier, images)
    with pytest.raises(KeyboardInterrupt), feature_file.store(tmp_path / "f.npz", key) as store:
        features.extract(classifier, opened._replace(feed=Feed(3)), store, batch_size=4)
    assert not (tmp_path / "f.npz").exists()
    with feature_file.store(tmp_path / "f.npz", key) as store:
        found = np.array(features.extract(classifier, opened._replace(feed=Feed(99)), store, batch_size=4).features)
    assert asked == [0, 1, 2, 2, 3, 4, 5]  # the third batch was on its way
    pixels = opened.pixels.normalise(opened.pixels.to_float(opened.split.images))
    np.testing.assert_allclose(found, explain.features(classifier.model, classifier.variables, pixels), atol=1e-6)


def test_features_of_a_split_in_memory_are_those_of_the_file(classifier, tmp_path):
    images = features.open_images(classifier, write_npz(tmp_path / "data", num_train=21, num_test=6))
    with feature_file.store(tmp_path / "f.npz", {}) as store:
        wanted = np.array(features.extract(classifier, images.open("train"), store, batch_size=4).features)
    found, labels = features.of_split(classifier, images, "train", batch_size=4)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(labels, images.splits["train"].labels)


def test_rows_are_in_file_order_whatever_the_splits():
    def split(name, index, stored):
        return data.Split(name, np.zeros(len(index), np.int32), np.array(index), lambda i: None, stored=stored)

    drawn = [split("train", [0, 2, 5], "train"), split("val", [1], "train"), split("test", [0, 1], "test")]
    which, position = features._file_order(drawn)
    assert list(zip(which.tolist(), position.tolist(), strict=True)) == [(0, 0), (1, 0), (0, 1), (0, 2), (2, 0), (2, 1)]


def test_a_photo_that_cannot_be_read_has_no_row(classifier, tmp_path, capsys):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)

    def read(i):
        if i == 2:  # it went away after it had been checked
            raise OSError("gone")
        return Image.fromarray(pixels[i])

    split = data.Split("test", np.arange(5, dtype=np.int32), np.arange(5), read, names=list("abcde"))
    images = features.Images(
        "photos", {"test": split}, list("vwxyz"),
        lambda name: inference.ready(classifier, reading(), split, name, 5, stream=True),
    )  # fmt: skip
    with feature_file.store(tmp_path / "f.npz", {}) as store:
        features.write(tmp_path / "f.npz", classifier, images, store, {}, batch_size=2)
    found = feature_file.read(tmp_path / "f.npz")
    assert found["names"].tolist() == list("abde") and found["labels"].tolist() == [0, 1, 3, 4]
    wanted = explain.features(
        classifier.model,
        classifier.variables,
        np.stack([data.preprocess(Image.fromarray(pixels[i]), READING) for i in (0, 1, 3, 4)]),
    )
    np.testing.assert_allclose(found["features"], wanted, atol=1e-5)
    assert "skipped c: it cannot be read" in capsys.readouterr().err


def test_the_key_knows_weights_pixels_and_labels(classifier, tmp_path):
    images = features.open_images(classifier, write_npz(tmp_path / "data", num_train=6, num_test=6))
    key = features.make_key(classifier, images)
    assert key == features.make_key(classifier, images)
    other = jax.tree.map(lambda x: x + 1e-6, classifier.variables)
    train = images.splits["train"]
    changed = [
        features.make_key(dataclasses.replace(classifier, variables=other), images),
        features.make_key(dataclasses.replace(classifier, data_config={**classifier.data_config, "std": (1,)}), images),
    ]
    for new in (
        dataclasses.replace(train, labels=train.labels[::-1]),
        dataclasses.replace(train, images=train.images ^ 1),
        dataclasses.replace(train, images=None, within=[tmp_path / "data/train.npz"]),
        dataclasses.replace(train, images=None, within=[tmp_path / "data/test.npz"]),
    ):
        splits = {**images.splits, "train": new}
        changed.append(features.make_key(classifier, dataclasses.replace(images, splits=splits)))
    keys = [json.dumps(of, sort_keys=True) for of in (key, *changed)]
    assert len(set(keys)) == len(keys)
    with pytest.raises(UserError, match="has no images in its val split; it has train, test"):
        images.named("val")
