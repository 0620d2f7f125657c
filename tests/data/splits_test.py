"""Splits and limits: stratified, nested, deterministic in the seed, and safe for tiny classes."""

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import load_dataset, splits
from jaxvit.errors import UserError
from jaxvit.workdir import resume
from tests.helpers import write_npz


def _labels(*counts: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)


def test_shuffled_is_a_permutation_of_the_seeds_alone():
    first = splits.shuffled(100, 3, 1)
    assert sorted(first) == list(range(100))
    np.testing.assert_array_equal(first, splits.shuffled(100, 3, 1))
    assert (first != splits.shuffled(100, 3, 2)).any() and (first != splits.shuffled(100, 4, 1)).any()
    splits.shuffled(3, -1, 2**70)  # any whole number is a seed


def test_shuffled_does_not_change_between_versions():
    # np.argsort(np.random.PCG64(np.random.SeedSequence([1, 2])).random_raw(8)); numpy keeps these bits for ever.
    np.testing.assert_array_equal(splits.shuffled(8, 1, 2), [5, 6, 3, 2, 1, 0, 4, 7])


@pytest.mark.parametrize("count", [10, 37, 100])
def test_hold_out_is_stratified_and_disjoint(count):
    labels = _labels(100, 60, 40)
    kept, held_out = splits.hold_out(labels, count, 0)
    assert len(held_out) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(200))
    shares = np.bincount(labels[held_out], minlength=3)
    np.testing.assert_allclose(shares, np.array([100, 60, 40]) * count / 200, atol=1.0)


@pytest.mark.parametrize("counts", [(50, 1), (1, 1, 1), (2, 1, 30), (1, 40)])
def test_every_class_keeps_a_training_example(counts):
    labels = _labels(*counts)
    kept, held_out = splits.hold_out(labels, round(0.9 * len(labels)), 0)
    assert set(labels[kept]) == set(range(len(counts)))
    assert len(kept) + len(held_out) == len(labels)


def test_fractions_are_nested_stratified_and_hold_every_class():
    labels = _labels(200, 100, 9, 1)
    previous: set[int] = set()
    for fraction in (0.001, 0.01, 0.05, 0.1, 0.2, 0.21, 0.5, 1.0):
        chosen, _ = splits.limit(labels, fraction=fraction, per_class=None, seed=5)
        assert previous <= set(chosen.tolist())
        previous = set(chosen.tolist())
        assert set(labels[chosen]) == {0, 1, 2, 3}
        assert len(chosen) == max(round(fraction * 310), 4)
    chosen, _ = splits.limit(labels, fraction=0.1, per_class=None, seed=5)
    np.testing.assert_allclose(np.bincount(labels[chosen])[:2], [20, 10], atol=1)


def test_per_class_limits_are_nested_and_say_when_a_class_is_short():
    labels = _labels(20, 10, 3)
    five, note = splits.limit(labels, fraction=1.0, per_class=5, seed=1)
    np.testing.assert_array_equal(np.bincount(labels[five]), [5, 5, 3])
    assert note is not None and "1 of 3 classes" in note
    two, note = splits.limit(labels, fraction=1.0, per_class=2, seed=1)
    assert note is None and set(two) < set(five)
    other, _ = splits.limit(labels, fraction=1.0, per_class=2, seed=2)
    assert set(other) != set(two)


@pytest.mark.parametrize(
    "options",
    [
        {"fraction": 0.0},
        {"fraction": -0.5},
        {"fraction": 1.5},
        {"fraction": float("nan")},
        {"per_class": 0},
        {"per_class": -3},
        {"per_class": 2.5},
        {"val_fraction": 1.0},
        {"val_fraction": -0.1},
    ],
)
def test_bad_limits_are_refused_before_reading(options):
    with pytest.raises(UserError, match="expected a"):
        load_dataset("npz:/does/not/exist", **options)


def test_take_keeps_labels_index_names_and_images_together():
    labels = np.array([3, 1, 2, 0], np.int32)
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    arrays = splits.from_arrays("train", images, labels).take([2, 0], "val")
    assert arrays.name == "val" and arrays.images is not None
    np.testing.assert_array_equal(arrays.images.ravel(), [2, 0])
    np.testing.assert_array_equal(arrays.read(1), images[0])
    lazy = splits.Split("train", labels, np.arange(4), lambda i: images[i], names=list("abcd"))
    twice = lazy.take([3, 1, 0]).take([2, 1])
    np.testing.assert_array_equal(twice.index, [0, 1])
    np.testing.assert_array_equal(twice.labels, [3, 1])
    assert twice.names == ["a", "b"] and [int(twice.read(i)[0, 0, 0]) for i in range(2)] == [0, 1]


def test_channel_statistics_equal_numpy():
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), np.uint8)
    mean, std = splits.channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), atol=6e-5)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), atol=6e-5)


def test_every_example_can_be_found_again():
    """By its file's name, or by its place in what it is stored in, whatever was taken from whatever."""
    images, labels = np.zeros((6, 2, 2, 1), np.uint8), np.arange(6)
    arrays = splits.from_arrays("train", images, labels, stored="train.npz")
    held_out = arrays.take(np.array([5, 3]), "test").take(np.array([1, 0]))
    assert held_out.image_names().tolist() == ["train.npz[3]", "train.npz[5]"] and held_out.name == "test"
    files = splits.Split("train", labels, labels, lambda i: images[i], names=[f"{i}.jpg" for i in range(6)])
    assert files.take(np.array([4, 2]), "test").image_names([1]).tolist() == ["2.jpg"]
    named = splits.from_arrays("test", images, labels, names=list("abcdef")).take(np.array([2]))
    assert named.image_names().tolist() == ["c"]


def test_a_fingerprint_tells_that_pixels_in_memory_are_others(tmp_path):
    before, after = (load_dataset(write_npz(tmp_path / str(k), seed=k)).fingerprint() for k in (0, 1))
    assert resume.changed_data(before, after) == "different pixels"
    assert resume.changed_data({word: value for word, value in before.items() if word != "pixels"}, after) == ""


def test_a_fingerprint_tells_that_photos_were_renamed_to_another_place(tmp_path):
    """Of data without a test split: where the order of the photos changes, others are held out."""
    for path in (tmp_path / unit / f"{i}.png" for unit in "ab" for i in range(10)):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)

    def found():
        dataset = load_dataset(f"folder:{tmp_path}")
        return dataset.fingerprint(), set(dataset.test.image_names())

    before, tested = found()
    assert found() == (before, tested) and before["names"]
    (tmp_path / "a/0.png").rename(tmp_path / "a/z.png")
    after, now = found()
    assert now != tested  # though no photo has come or gone
    assert {word for word in before if before[word] != after[word]} == {"names"}
    with pytest.raises(UserError, match="different names"):
        resume.check_data(tmp_path, "photos", before, after)
    resume.check_data(tmp_path, "photos", {word: before[word] for word in before if word != "names"}, after)


def test_splits_together_keep_examples_labels_and_names():
    def make(name, values, lazy):
        images = np.array(values, np.uint8)[:, None, None, None]
        whole = splits.from_arrays(name, images, np.array(values))
        return splits.Split(name, whole.labels, whole.index, lambda i: images[i]) if lazy else whole

    for lazy in (False, True):
        whole = splits.together([make("train", [7, 8, 9], lazy), make("val", [], lazy), make("test", [1, 2], lazy)])
        assert (whole.name, whole.labels.tolist()) == ("all", [7, 8, 9, 1, 2])
        assert [int(whole.read(i)[0, 0, 0]) for i in range(5)] == [7, 8, 9, 1, 2]
        assert whole.image_names().tolist() == ["train[0]", "train[1]", "train[2]", "test[0]", "test[1]"]
