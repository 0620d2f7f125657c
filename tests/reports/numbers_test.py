"""The numbers of a report, by hand."""

import math

import chex
import numpy as np
import pytest

from jaxvit.reports import numbers


def test_mcnemar_is_the_sign_test_of_the_discordant():
    a = np.array([1] * 8 + [0] * 2 + [1] * 5 + [0] * 5, bool)
    b = np.array([0] * 8 + [1] * 2 + [1] * 5 + [0] * 5, bool)
    only_a, only_b, p = numbers.mcnemar(a, b)
    assert (only_a, only_b) == (8, 2)
    assert p == pytest.approx(2 * sum(math.comb(10, i) for i in range(3)) / 2**10)
    assert numbers.mcnemar(a, a)[2] == 1.0
    assert numbers.mcnemar(~b, ~a)[:2] == (8, 2)


def test_bootstrap_is_paired_and_deterministic():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.7, rng.random(400) < 0.8
    first = numbers.bootstrap_difference(a, b)
    assert first == numbers.bootstrap_difference(a, b)
    assert first != numbers.bootstrap_difference(a, b, seed=1)
    d, low, high = first
    assert d == pytest.approx(b.mean() - a.mean()) and low < d < high
    # against the normal interval of the paired difference
    half = 1.96 * (b.astype(float) - a).std() / math.sqrt(400)
    assert (low, high) == pytest.approx((d - half, d + half), abs=5e-3)
    assert numbers.bootstrap_difference(a, a) == (0.0, 0.0, 0.0)


def test_holm_by_hand():
    assert numbers.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert numbers.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_wilson_by_hand():
    low, high = numbers.wilson(5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert numbers.wilson(10, 10)[1] == pytest.approx(1.0) and numbers.wilson(0, 10)[0] == pytest.approx(0.0)


def test_classes_that_are_confused_become_neighbours():
    # 0-3, 1-4 and 2-5 are confused with each other, and nothing else is
    matrix = 50 * np.eye(6, dtype=int)
    for i in range(3):
        matrix[i, i + 3] = matrix[i + 3, i] = 20 + i
    order = numbers.similarity_order(matrix).tolist()
    assert sorted(order) == list(range(6))
    assert all(abs(order.index(i) - order.index(i + 3)) == 1 for i in range(3))


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_order_without_confusion_is_the_given_one(classes):
    assert numbers.similarity_order(3 * np.eye(classes, dtype=int)).tolist() == list(range(classes))


def test_confused_pairs_by_hand():
    matrix = np.array([[5, 1, 0], [4, 5, 0], [2, 0, 5]])
    assert numbers.confused_pairs(matrix) == [(1, 0, 4, 1), (2, 0, 2, 0)]
    assert numbers.confused_pairs(matrix, most=1) == [(1, 0, 4, 1)]


def test_per_class_by_hand():
    scores = numbers.per_class(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)
    chex.assert_trees_all_close(scores, np.array([[1, 2 / 3, 0.8, 3], [0.5, 1, 2 / 3, 1], [0, 0, 0, 0.0]]))


def test_confident_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    assert numbers.confident_mistakes(probabilities, np.array([0, 0, 0, 1])).tolist() == [2, 3, 1]


def test_top_k_and_loss_by_hand():
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32))
    labels = np.array([1, 2])
    assert numbers.top_k(logits, labels, 1) == 0.5
    assert numbers.top_k(logits, labels, 2) == 1.0
    assert numbers.log_loss(logits, labels) == pytest.approx(-(math.log(0.3) + math.log(0.7)) / 2, rel=1e-6)


@pytest.mark.parametrize("width", [3, 60])  # by features, and by images
def test_cka_ignores_rotation_and_scale(width):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, width))
    turn, _ = np.linalg.qr(rng.normal(size=(width, width)))
    assert numbers.linear_cka(x, 3 * x @ turn + 1) == pytest.approx(1.0)
    other = rng.normal(size=(40, width))
    xc, yc = x - x.mean(0), other - other.mean(0)
    cross, own, theirs = (np.linalg.norm(a.T @ b) ** 2 for a, b in ((xc, yc), (xc, xc), (yc, yc)))
    assert numbers.linear_cka(x, other) == pytest.approx(cross / math.sqrt(own * theirs))
    assert numbers.linear_cka(x, np.ones((40, 2))) == 0.0
