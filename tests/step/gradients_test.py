"""Gradients of a step: accumulated, of parts, of SAM's two passes."""

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxvit.errors import UserError
from jaxvit.step import gradients
from tests.helpers.tiny_steps import batch, build, resnet


@pytest.mark.parametrize(
    "words",
    [
        pytest.param({}, id="plain"),
        pytest.param({"rho": 0.5, "adaptive": True}, id="asam"),
        pytest.param({"rho": 0.1, "method": "gsam"}, id="gsam", marks=pytest.mark.slow),  # compiles for half a minute
    ],
)
def test_accumulation_equals_the_large_batch(words):
    images = batch(8) | {"mask": jnp.arange(8) != 5}  # one unreadable: the parts have different weights
    state, step, _, _ = build("one block", augment=False, **words)
    whole, whole_metrics = jax.jit(step)(state, images)
    state, step, _, _ = build("one block", augment=False, accum_steps=4, **words)
    parts, parts_metrics = jax.jit(step)(state, images)
    chex.assert_trees_all_close(whole.params, parts.params, atol=1e-6)
    chex.assert_trees_all_close(whole_metrics, parts_metrics, rtol=1e-4)
    if words:
        plain, _ = jax.jit(build("one block", augment=False, accum_steps=4)[1])(state, images)
        assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), plain.params, parts.params))) > 1e-5


def test_m_sharpness_perturbs_each_part_alone():
    """Against the same by hand: the mean of the ASAM gradients of every second example."""
    images = batch(8)
    words = {"rho": 0.5, "adaptive": True}
    state, step, _, _ = build("one block", augment=False, perturbations=2, **words)
    got, _ = jax.jit(step)(state, images)
    alone = jax.jit(build("one block", augment=False, **words)[1])
    halves = [alone(state, {k: v[i::2] for k, v in images.items()})[0].params for i in range(2)]
    chex.assert_trees_all_close(got.params, jax.tree.map(lambda a, b: (a + b) / 2, *halves), atol=1e-6)
    whole, _ = alone(state, images)
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), got.params, whole.params))) > 1e-5
    state, step, _, _ = build("one block", augment=False, perturbations=2, accum_steps=4, **words)
    chex.assert_trees_all_close(jax.jit(step)(state, images)[0].params, got.params, atol=1e-6)
    with pytest.raises(UserError, match="do not divide"):
        gradients.make_gradient(accum_steps=2, perturbations=3, rho=0.1)


def test_statistics_and_metrics_of_sam_come_from_the_clean_pass():
    state, plain, _ = resnet()
    state, sharp, _ = resnet(rho=0.5)
    a, a_metrics = plain(state, batch())
    b, b_metrics = sharp(state, batch())
    chex.assert_trees_all_close(a.batch_stats, b.batch_stats, rtol=1e-6)
    assert float(a_metrics["loss"]) == pytest.approx(float(b_metrics["loss"]), rel=1e-6)
    assert float(a_metrics["accuracy"]) == float(b_metrics["accuracy"])
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), a.params, b.params))) > 1e-4


def test_both_passes_of_sam_have_the_same_draws():
    """With dropout and flips, a perturbation of almost nothing changes nothing."""
    rates = {"drop_rate": 0.5, "proj_drop_rate": 0.5}
    state, plain, _, _ = build(**rates)
    state, null, _, _ = build(rho=1e-30, **rates)
    chex.assert_trees_all_close(jax.jit(plain)(state, batch())[0], jax.jit(null)(state, batch())[0], atol=1e-6)
