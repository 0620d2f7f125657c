"""Scores of unknown images, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from jaxvit.confidence import unknown
from jaxvit.errors import UserError


def test_probability_and_energy_by_hand():
    logits = np.log(np.array([[8.0, 1.0, 1.0], [1.0, 1.0, 2.0]]))
    np.testing.assert_allclose(unknown.max_probability(logits), [0.8, 0.5])
    np.testing.assert_allclose(unknown.energy(logits), np.log([10.0, 4.0]))
    several = np.log(np.array([[3.0, 1.0]]))
    np.testing.assert_allclose(unknown.max_probability(several, several=True), [0.75])
    np.testing.assert_allclose(unknown.energy(several, several=True), [np.log(4) + np.log(2)])
    huge = unknown.energy(np.array([[1000.0, 1000.0]], np.float32))
    np.testing.assert_allclose(huge, [1000 + np.log(2)])


def test_neighbours_by_hand():
    rng = np.random.default_rng(0)
    train, images = rng.normal(size=(30, 6)), rng.normal(size=(5, 6))
    unit = [x / np.sqrt((x**2).sum(axis=1, keepdims=True)) for x in (train, images)]
    distances = np.sqrt(((unit[1][:, None] - unit[0][None]) ** 2).sum(axis=-1))
    done = []
    for k in (1, 4, 30):
        wanted = -np.sort(distances, axis=1)[:, k - 1]
        np.testing.assert_allclose(unknown.knn(images, train, k, done.append), wanted, rtol=1e-9)
        np.testing.assert_allclose(unknown.knn(7 * images, train, k), wanted, rtol=1e-9)  # only directions count
    assert sum(done) == 15
    assert np.isfinite(unknown.knn(np.zeros((1, 6), np.float32), train.astype(np.float32), 1)).all()
    with pytest.raises(UserError, match="31th nearest of 30 training images"):
        unknown.knn(images, train, 31)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (97, 40), (3, 5)])
def test_detection_is_scikit_learns(n, m):
    rng = np.random.default_rng(n)
    known, other = rng.normal(1, 1, n).round(1), rng.normal(0, 1, m).round(1)  # with equal ones
    truth, scores = np.repeat([1, 0], [n, m]), np.concatenate([known, other])
    fpr, tpr, thresholds = metrics.roc_curve(truth, scores, drop_intermediate=False)
    at = np.flatnonzero(tpr >= 0.95)[0]
    found = unknown.detect(known, other)
    assert found.auroc == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert (found.fpr, found.threshold) == (pytest.approx(fpr[at]), pytest.approx(thresholds[at]))
