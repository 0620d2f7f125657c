"""Losses and metrics against numpy; padding counts for nothing."""

import warnings

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.step import losses, metrics


def reference_loss(logits, targets):
    shifted = logits - logits.max(-1, keepdims=True)
    return -(targets * (shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))).sum(-1)


def test_label_smoothing_by_hand():
    chex.assert_trees_all_close(
        losses.one_hot(jnp.array([2]), 4, 0.1), np.array([[0.025, 0.025, 0.925, 0.025]], np.float32), rtol=1e-6
    )


def test_cross_entropy_equals_float64():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(5, 7)) * 30, rng.dirichlet(np.ones(7), 5)
    got = losses.softmax_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(targets, jnp.float32))
    chex.assert_trees_all_close(got, reference_loss(logits, targets).astype(np.float32), rtol=2e-6)


def test_cross_entropy_of_bfloat16_logits_is_float32():
    logits = jnp.asarray([[1.0, 2.0, 3.0]], jnp.bfloat16)
    loss = losses.softmax_cross_entropy(logits, losses.one_hot(jnp.array([0]), 3))
    assert loss.dtype == jnp.float32
    chex.assert_trees_all_close(loss, np.array([2.4076059], np.float32), rtol=1e-6)


def test_cross_entropy_refuses_to_broadcast():
    with pytest.raises(ValueError, match="differ in shape"):
        losses.softmax_cross_entropy(jnp.zeros((4, 3)), jnp.zeros((1, 3)))


def test_sums_ignore_padding_even_if_it_is_not_finite():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(6, 8)).astype(np.float32)
    labels = rng.integers(0, 8, 6)
    whole = metrics.batch_sums(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(6, bool))
    padded = np.concatenate([logits, np.full((2, 8), np.nan, np.float32)])
    mask = np.array([True] * 6 + [False] * 2)
    chex.assert_trees_all_close(
        metrics.batch_sums(jnp.asarray(padded), jnp.asarray(np.r_[labels, 0, 0]), jnp.asarray(mask)), whole, rtol=1e-6
    )
    order = np.argsort(-logits, axis=1)
    assert whole["count"] == 6
    assert whole["accuracy"] == np.sum(order[:, 0] == labels)
    assert whole["top5_accuracy"] == np.sum((order[:, :5] == labels[:, None]).any(1))


PADDED = np.zeros(7, int), np.full((7, 6), np.nan, np.float32)  # labels and logits that the mask leaves out


@pytest.mark.parametrize("case", ["all classes", "one without images", "one predicted alone", "one never seen"])
def test_means_over_classes_are_scikit_learns(case):
    """Over batches of which the last is padded. Class 5 has no images, or is not predicted, or neither."""
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    labels = rng.choice(6, 40, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    logits = rng.normal(size=(40, 6)).astype(np.float32) + 2 * np.eye(6, dtype=np.float32)[labels]
    if case in ("one without images", "one predicted alone"):
        labels[labels == 5] = 0
        logits[:3, 5] = 9 if case == "one predicted alone" else 0
    if case == "one never seen":
        labels, logits[:, 5] = np.where(labels == 5, 0, labels), -9
    totals = {}
    for start in range(0, 40, 9):
        part = slice(start, start + 9)
        fill = 9 - len(labels[part])
        sums = metrics.batch_sums(
            jnp.asarray(np.concatenate([logits[part], PADDED[1][:fill]])),
            jnp.asarray(np.concatenate([labels[part], PADDED[0][:fill]])),
            jnp.arange(9) < 9 - fill,
        )
        totals = {name: totals.get(name, 0.0) + np.asarray(value, np.float64) for name, value in sums.items()}
    found, said = metrics.divide(totals), logits.argmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of y_pred with classes that y_true has not
        assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(labels, said), abs=1e-12)
    wanted = sklearn.f1_score(labels, said, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(wanted, abs=1e-12)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, said), abs=1e-12)
    p = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
    p /= p.sum(1, keepdims=True)
    assert found["nll"] == pytest.approx(sklearn.log_loss(labels, p, labels=np.arange(6)), rel=1e-6)


def test_top5_of_three_classes_is_top3():
    sums = metrics.batch_sums(jnp.eye(3), jnp.array([1, 2, 0]), jnp.ones(3, bool))
    assert metrics.divide(sums)["top5_accuracy"] == 1.0
    assert metrics.divide(sums)["accuracy"] == 0.0
