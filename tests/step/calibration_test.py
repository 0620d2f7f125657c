"""Reliability by hand; the temperature against scikit-learn's and against a grid."""

import chex
import numpy as np
import pytest
from sklearn import metrics as sk_metrics

from jaxvit.errors import UserError
from jaxvit.step import calibration


def drawn(n=400, k=5, sharpness=2.5, seed=0):
    """Logits that claim `sharpness` times what is true, and labels that are drawn from the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, k))
    p = np.exp(truth) / np.exp(truth).sum(-1, keepdims=True)
    return sharpness * truth, np.array([rng.choice(k, p=row) for row in p])


def drawn_several(n=300, k=4, sharpness=2.5, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, k))
    return sharpness * truth, (rng.random((n, k)) < 1 / (1 + np.exp(-truth))).astype(np.uint8)


def test_calibration_error_by_hand():
    # two bins of [0, 1]: 0.4 is never right; 0.6, 0.8, 1.0 are right twice in three
    found = calibration.reliability(np.array([0.4, 0.6, 0.8, 1.0]), np.array([0, 1, 1, 0], bool), bins=2)
    chex.assert_trees_all_close(found.confidence, np.array([0.4, 0.8]))
    chex.assert_trees_all_close(found.accuracy, np.array([0.0, 2 / 3]))
    assert found.count.tolist() == [1, 3]
    assert found.ece == pytest.approx(0.25 * 0.4 + 0.75 * (0.8 - 2 / 3))
    assert found.mce == pytest.approx(0.4)


def test_calibration_bins_are_closed_above_and_may_be_empty():
    found = calibration.reliability(np.array([0.5, 1.0]), np.array([True, True]), bins=4)
    assert found.count.tolist() == [0, 1, 0, 1]
    assert np.isnan(found.accuracy[[0, 2]]).all()
    assert found.ece == pytest.approx(0.25)


def test_answers_of_one_label_and_of_several():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]))
    confidence, correct = calibration.answers(logits, np.array([0, 1]))
    np.testing.assert_allclose(confidence, [0.7, 0.4])
    assert correct.tolist() == [True, False]
    halves = np.sqrt([0.7, 0.2, 0.1]) / np.sqrt([0.7, 0.2, 0.1]).sum()
    np.testing.assert_allclose(calibration.answers(logits, np.array([0, 1]), 2.0)[0][0], halves[0])
    confidence, correct = calibration.answers(np.array([[0.0, np.log(3)]]), np.array([[1, 0]]))
    np.testing.assert_allclose(confidence, [0.5, 0.75])
    assert correct.tolist() == [True, False]


def test_nll_is_scikit_learns_log_loss():
    logits, labels = drawn()
    for t in (0.5, 1.0, 3.0):
        p = np.exp(logits / t) / np.exp(logits / t).sum(-1, keepdims=True)
        assert calibration.nll(logits, labels, t) == pytest.approx(sk_metrics.log_loss(labels, p), rel=1e-12)
    logits, labels = drawn_several()
    p = 1 / (1 + np.exp(-logits / 2))
    wanted = sk_metrics.log_loss(labels.ravel(), p.ravel())
    assert calibration.nll(logits, labels, 2.0) == pytest.approx(wanted, rel=1e-12)


def test_labels_are_those_of_the_logits():
    logits, labels = drawn(n=40)
    for figure in (calibration.nll, calibration.ece, calibration.fit_temperature):
        assert figure(logits.tolist(), labels.tolist()) == figure(logits, labels)
        for wrong in (labels[:, None], labels[:30], labels - 1, labels + 1, logits[0]):
            with pytest.raises(UserError):
                figure(logits, wrong)


def test_the_temperature_is_scikit_learns():
    sklearn_calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(sklearn_calibration, "_TemperatureScaling"):
        pytest.skip("this scikit-learn has no temperature scaling")
    for seed, sharpness in ((0, 2.5), (1, 0.3)):
        logits, labels = drawn(sharpness=sharpness, seed=seed)
        wanted = 1 / sklearn_calibration._TemperatureScaling().fit(logits, labels).beta_
        assert calibration.fit_temperature(logits, labels) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("make", [drawn, drawn_several])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_the_temperature_has_the_least_nll_of_a_grid(make, scale):
    logits, labels = make()
    found = calibration.fit_temperature(scale * logits, labels)
    grid = scale * np.exp(np.linspace(-3, 3, 601))
    best = grid[np.argmin([calibration.nll(scale * logits, labels, t) for t in grid])]
    assert abs(np.log(found / best)) <= 0.01  # the step of the grid
    assert found / scale == pytest.approx(2.5, rel=0.25)  # what the logits were multiplied by
    if scale >= 1:  # logits near 0 say 1/2 everywhere, which may be as true
        assert calibration.ece(scale * logits, labels, found) < calibration.ece(scale * logits, labels)


def test_no_temperature_without_a_minimum():
    for logits, labels, said in (
        (np.eye(3), np.arange(3), "gets all 3 images right"),
        (np.zeros((4, 3)), np.arange(4) % 3, "gets all 4 images right"),  # equally probable: no mistake either
        (-np.eye(3), np.arange(3), "on the 3 images equal probabilities have a lower"),
        (np.array([[1.0, -1.0]]), np.array([[1, 0]]), "gets all 1 images right"),
        (np.array([[1.0, -1.0]]), np.array([[0, 1]]), "on the 1 images probabilities of 1/2 have a lower"),
        (np.array([[np.nan, 0.0]]), np.array([0]), "not finite"),
        (np.zeros((0, 3)), np.zeros(0, int), "split is empty"),
    ):
        with pytest.raises(UserError, match=said):
            calibration.fit_temperature(logits, labels)


def test_thresholds_say_the_same_classes_at_any_temperature():
    logits, _ = drawn_several()
    thresholds = np.array([0.0, 0.2, 0.5, 1.0])
    for t in (0.3, 4.0):
        moved = calibration.at_temperature(thresholds, t)
        said = 1 / (1 + np.exp(-logits)) >= thresholds
        np.testing.assert_array_equal(1 / (1 + np.exp(-logits / t)) >= moved, said)
        assert moved[[0, 2, 3]].tolist() == [0.0, 0.5, 1.0]
