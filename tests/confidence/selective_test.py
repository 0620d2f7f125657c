"""Risk against coverage, by hand."""

import itertools

import numpy as np
import pytest

from jaxvit.confidence import held_back, risk_coverage
from jaxvit.errors import UserError


def test_risk_and_coverage_by_hand():
    found = risk_coverage(np.array([0.6, 0.9, 0.8, 0.7]), np.array([False, True, False, True]))
    assert found.confidence.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert found.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found.best_aurc == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)  # two right, then two wrong
    assert found.coverage_at(1.0) == (0.25, 0.9)
    assert found.coverage_at(2 / 3) == (0.75, 0.7)
    assert found.coverage_at(0.5) == (1.0, 0.6)


def test_right_and_wrong_may_be_ones_and_zeros():
    confidence, correct = [0.6, 0.9, 0.8, 0.7], [0, 1, 0, 1]
    wanted = risk_coverage(np.array(confidence), np.array(correct, bool))
    for given in (correct, np.array(correct), np.array(correct, float)):
        np.testing.assert_array_equal(risk_coverage(confidence, given).risk, wanted.risk)
    with pytest.raises(UserError, match=r"\(4,\), correct \(3,\)"):
        risk_coverage(confidence, correct[:3])


def test_no_coverage_where_the_most_confident_answer_is_wrong():
    found = risk_coverage(np.array([0.9, 0.5]), np.array([False, True]))
    assert found.coverage_at(0.9)[0] == 0.0 and np.isnan(found.coverage_at(0.9)[1])


def test_equal_confidences_count_as_the_mean_over_their_orders():
    confidence, correct = np.array([0.9, 0.5, 0.5, 0.5, 0.2]), np.array([True, False, True, True, False])
    areas = []
    for order in itertools.permutations([1, 2, 3]):
        wrong = np.cumsum(~correct[[0, *order, 4]])
        areas.append(np.mean(wrong / np.arange(1, 6)))
    found = risk_coverage(confidence, correct)
    assert found.aurc == pytest.approx(np.mean(areas))
    assert found.coverage.tolist() == [0.2, 0.8, 1.0]


def test_what_is_held_back():
    probabilities = np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])
    assert held_back(probabilities, 0.6).tolist() == [False, False, True]
    assert not held_back(probabilities, 0.0).any() and held_back(probabilities, 1.0).all()
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="expected a probability from 0 to 1"):
            held_back(probabilities, wrong)
