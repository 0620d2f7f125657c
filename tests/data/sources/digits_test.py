"""The digits of scikit-learn."""

import numpy as np

from jaxvit.data import load_dataset


def test_digits_are_the_scans_with_a_fixed_test_split():
    data = load_dataset("digits")
    assert (len(data.train), len(data.val), len(data.test)) == (1212, 135, 450)
    assert data.image_size == (8, 8) and data.in_channels == 1 and data.num_classes == 10
    assert data.train.images is not None and data.train.images.dtype == np.uint8
    assert data.train.images.max() == 255 and data.train.images.min() == 0
    np.testing.assert_allclose(np.bincount(data.test.labels), 45, atol=1.5)
    assert not set(data.train.index) & set(data.test.index) and not set(data.train.index) & set(data.val.index)
    assert (np.diff(data.test.index) > 0).all()
    other = load_dataset("digits", seed=1)
    np.testing.assert_array_equal(other.test.index, data.test.index)
    assert set(other.val.index) != set(data.val.index)
    again = load_dataset("digits", seed=1)
    np.testing.assert_array_equal(again.val.index, other.val.index)


def test_digits_index_is_that_of_scikit_learn():
    from sklearn.datasets import load_digits

    raw, data = load_digits(), load_dataset("digits")
    assert data.test.images is not None
    np.testing.assert_array_equal(data.test.labels, raw.target[data.test.index])
    expected = np.round(raw.images[data.test.index] * 255 / 16)
    np.testing.assert_array_equal(data.test.images[..., 0], expected)
