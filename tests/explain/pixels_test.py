"""Gradients on pixels."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import explain
from jaxvit.errors import UserError
from tests.helpers.explained import RESNET, VIT, make


def test_integrated_gradients_sum_to_the_rise_of_the_logit():
    model, variables, images = make(VIT)
    found = explain.integrated_gradients(model, variables, images, 1, steps=32)
    logits = [np.asarray(model.apply(variables, x))[:, 1] for x in (images, np.zeros_like(images))]
    chex.assert_shape(found, images.shape)
    np.testing.assert_allclose(found.sum((1, 2, 3)), logits[0] - logits[1], atol=0.02)
    assert np.abs(logits[0] - logits[1]).max() > 0.2


def test_smooth_grad_without_noise_is_the_gradient():
    model, variables, images = make(RESNET)
    expected = jax.grad(lambda x: model.apply(variables, x)[:, 2].sum())(jnp.asarray(images))
    found = explain.smooth_grad(model, variables, images, 2, samples=2, noise=0.0)
    chex.assert_trees_all_close(found, expected, atol=1e-5)
    noisy = [explain.smooth_grad(model, variables, images, 2, samples=2, key=jax.random.key(k)) for k in (0, 0, 1)]
    chex.assert_trees_all_equal(noisy[0], noisy[1])
    assert float(jnp.abs(noisy[0] - noisy[2]).max()) > 0


@pytest.mark.parametrize("method", ("integrated_gradients", "smoothgrad"))
def test_pixel_methods_give_unit_maps(method):
    model, variables, images = make(VIT)
    maps = explain.grad_cam(model, variables, images, method=method)
    chex.assert_shape(maps, images.shape[:3])
    chex.assert_trees_all_close((maps.min((1, 2)), maps.max((1, 2))), (jnp.zeros(3), jnp.ones(3)))


def test_completeness_says_how_near_the_sum_comes():
    model, variables, images = make(VIT)
    logits = [np.asarray(model.apply(variables, x))[:, 1] for x in (images, np.full_like(images, 0.3))]
    done = []
    gaps = []
    for steps in (1, 16):
        found = explain.integrated_gradients(
            model, variables, images, 1, steps=steps, baseline=0.3, progress=done.append
        )
        total, rise = explain.completeness(model, variables, images, found, 1, baseline=0.3)
        np.testing.assert_allclose(rise, logits[0] - logits[1], atol=1e-4)
        np.testing.assert_allclose(total, np.asarray(found).sum((1, 2, 3)), rtol=1e-4)
        gaps.append(float(jnp.abs(total - rise).max()))
    assert gaps[1] < 0.2 * gaps[0] and sum(done) == 3 * 17
    with pytest.raises(UserError, match="steps is 0; expected a whole number of 1 or more"):
        explain.integrated_gradients(model, variables, images, 1, steps=0)
