"""Patches and the loss of masked ones, against loops."""

import numpy as np
import pytest

from jaxvit.step import reconstruction as rec

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((2, 6, 8, 3)).astype(np.float32)
PATCH = (3, 2)


def cut():
    """The patches row by row, [2, 8, 18]."""
    rows = [[x[3 * r : 3 * r + 3, 2 * c : 2 * c + 2].reshape(-1) for r in range(2) for c in range(4)] for x in IMAGES]
    return np.asarray(rows)


def test_patches_are_cut_row_by_row_and_put_back():
    patches = rec.patchify(IMAGES, PATCH)
    np.testing.assert_array_equal(patches, cut())
    np.testing.assert_array_equal(rec.unpatchify(patches, PATCH, (2, 4)), IMAGES)
    np.testing.assert_array_equal(rec.patchify(np.pad(IMAGES, ((0, 0), (0, 2), (0, 1), (0, 0))), PATCH), cut())


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_loss_is_the_mean_over_masked_patches(norm_pix):
    predicted = RNG.standard_normal((2, 8, 18)).astype(np.float32)
    masked = np.array([[1, 0, 1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 1, 0, 0]], bool)
    wanted = []
    for i in range(2):
        errors = []
        for j in np.flatnonzero(masked[i]):
            target = cut()[i, j]
            if norm_pix:
                variance = np.sum((target - target.mean()) ** 2) / (len(target) - 1)
                target = (target - target.mean()) / (variance + 1e-6) ** 0.5
            errors.append(np.mean((predicted[i, j] - target) ** 2))
        wanted.append(np.mean(errors))
    objective = rec.make_objective(PATCH, norm_pix=norm_pix)
    losses, logits = objective((predicted, masked), {"images": IMAGES})
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    assert logits is None


def test_a_right_prediction_paints_the_image_itself():
    patches = cut()
    normalised = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    masked = np.tile([True, False], (2, 4))
    np.testing.assert_allclose(rec.painted(normalised, IMAGES, masked, PATCH, norm_pix=True), IMAGES, atol=1e-5)
    grey = np.asarray(rec.painted(np.zeros_like(patches), IMAGES, masked, PATCH, norm_pix=False))
    np.testing.assert_array_equal(rec.patchify(grey, PATCH)[:, ::2], 0)
    np.testing.assert_array_equal(rec.patchify(grey, PATCH)[:, 1::2], patches[:, 1::2])
