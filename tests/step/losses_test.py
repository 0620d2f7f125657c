"""Weighted, focal and adjusted losses against PyTorch and against their formulas in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.step import distillation, losses

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(12, 5)) * 3).astype(np.float32)
SOFT = RNG.dirichlet(np.ones(5), 12).astype(np.float32)
LABELS = np.arange(12) % 5
HARD = np.eye(5, dtype=np.float32)[LABELS]
WEIGHTS = np.array([0.2, 1.0, 3.0, 0.0, 1.7], np.float32)


def options(**words):
    return {"name": "cross_entropy", "focal_gamma": 2.0, "logit_adjustment": 0.0, **words}


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_without_options_it_is_cross_entropy_bit_for_bit():
    got = losses.make_loss(options())(jnp.asarray(LOGITS), jnp.asarray(SOFT))
    chex.assert_trees_all_equal(got, losses.softmax_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(SOFT)))


@pytest.mark.torch
def test_weighted_soft_targets_are_torchs():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.CrossEntropyLoss(weight=torch.from_numpy(WEIGHTS))(
        torch.from_numpy(LOGITS), torch.from_numpy(SOFT)
    )
    got = losses.make_loss(options(), WEIGHTS)(jnp.asarray(LOGITS), jnp.asarray(SOFT)).mean()
    assert float(got) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.torch
def test_weights_of_mean_one_over_all_images_are_torchs_for_labels():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.CrossEntropyLoss(weight=torch.from_numpy(WEIGHTS))(
        torch.from_numpy(LOGITS), torch.from_numpy(LABELS)
    )
    scaled = WEIGHTS / WEIGHTS[LABELS].mean()
    got = losses.make_loss(options(), scaled)(jnp.asarray(LOGITS), jnp.asarray(HARD)).mean()
    assert float(got) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_focal_loss_by_its_formula(gamma, weights):
    log_p = log_softmax(LOGITS)
    w = np.ones(5) if weights is None else weights
    wanted = -(w * SOFT * (1 - np.exp(log_p)) ** gamma * log_p).sum(-1)
    got = losses.make_loss(options(name="focal", focal_gamma=gamma), weights)(jnp.asarray(LOGITS), jnp.asarray(SOFT))
    np.testing.assert_allclose(got, wanted, rtol=2e-5)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_the_gradient_of_focal_loss_is_finite_where_p_is_1_and_right_elsewhere(gamma):
    def total(x):
        return losses.focal(x, jnp.eye(3)[:1], gamma=gamma).sum()

    assert np.isfinite(jax.grad(total)(jnp.array([[200.0, 0.0, -200.0]]))).all()
    with jax.enable_x64(True):
        x, h = jnp.array([[0.3, -0.2, 0.7]], jnp.float64), 1e-6
        for k, slope in enumerate(jax.grad(total)(x)[0]):
            step = h * jnp.eye(3)[k][None]
            assert float(slope) == pytest.approx(float(total(x + step) - total(x - step)) / (2 * h), rel=1e-6)


def test_logit_adjustment_by_its_formula():
    prior = np.array([0.6, 0.2, 0.1, 0.07, 0.03])
    wanted = -(SOFT * log_softmax(LOGITS + 1.5 * np.log(prior))).sum(-1)
    loss = losses.make_loss(options(logit_adjustment=1.5), log_prior=np.log(prior))
    np.testing.assert_allclose(loss(jnp.asarray(LOGITS), jnp.asarray(SOFT)), wanted, rtol=1e-5)
    _, seen = losses.make_objective(loss)(jnp.asarray(LOGITS), {"targets": jnp.asarray(SOFT)})
    np.testing.assert_array_equal(seen, LOGITS)  # the model itself is not adjusted


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_a_taught_model_weighs_its_labels_and_not_its_teacher(mode):
    taught = {"targets": jnp.asarray(HARD), "teacher_logits": jnp.asarray(LOGITS[::-1])}
    plain = distillation.make_objective(mode, alpha=0.3, temperature=2.0)
    weighted = distillation.make_objective(mode, alpha=0.3, temperature=2.0, loss=losses.make_loss(options(), WEIGHTS))
    of_labels = -(HARD * log_softmax(LOGITS)).sum(-1)
    gap = np.asarray(weighted(jnp.asarray(LOGITS), taught)[0] - plain(jnp.asarray(LOGITS), taught)[0])
    np.testing.assert_allclose(gap, 0.7 * (WEIGHTS[LABELS] - 1) * of_labels, rtol=1e-4, atol=1e-5)
