"""Occlusion and LIME: on a linear model both have answers that are known."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import explain
from jaxvit.errors import UserError
from jaxvit.explain import perturbation
from tests.helpers.explained import RESNET, Linear, make


@pytest.fixture(scope="module")
def linear():
    """Returns (model, variables, images [2, 12, 20, 2], what each pixel adds to the logits [2, 12, 20, classes])."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(480, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    images = rng.normal(size=(2, 12, 20, 2)).astype(np.float32)
    parts = np.einsum("bhwc,hwck->bhwk", images, kernel.reshape(12, 20, 2, 3))
    return Linear(use_bias=True), {"params": {"head": {"kernel": kernel, "bias": bias}}}, images, parts


def test_occlusion_of_a_linear_model_is_the_sum_over_each_patch(linear):
    model, variables, images, parts = linear
    found = explain.occlusion(model, variables, images, [0, 2], patch=4, stride=4, batch=6)  # 15 windows: 6 + 6 + 3
    for i, k in enumerate((0, 2)):
        sums = parts[i, :, :, k].reshape(3, 4, 5, 4).sum((1, 3))
        np.testing.assert_allclose(found[i], sums.repeat(4, 0).repeat(4, 1), atol=1e-4)


def test_overlapping_windows_are_averaged_and_reach_the_border(linear):
    model, variables, images, _ = linear
    done = []
    found = explain.occlusion(model, variables, images, 1, patch=(5, 6), stride=(3, 4), fill=0.5, progress=done.append)
    kernel = np.asarray(variables["params"]["head"]["kernel"]).reshape(12, 20, 2, 3)[..., 1]
    falls = ((images - 0.5) * kernel).sum(-1)
    total, times = np.zeros_like(falls), np.zeros_like(falls)
    for top in (0, 3, 6, 7):
        for left in (0, 4, 8, 12, 14):
            there = np.s_[:, top : top + 5, left : left + 6]
            total[there] += falls[there].sum((1, 2), keepdims=True)
            times[there] += 1
    np.testing.assert_allclose(found, total / times, atol=1e-4)
    assert sum(done) == 2 * len(perturbation.occlusion_windows((12, 20), (5, 6), (3, 4))) == 40


def test_lime_of_a_linear_model_finds_the_sum_of_each_segment(linear):
    model, variables, images, parts = linear
    segments = perturbation.grid_segments((12, 20), 3)  # 4 x 4 pixels
    assert segments.max() == 14 and (segments[::4, ::4] == np.arange(15).reshape(3, 5)).all()
    found = explain.lime(model, variables, images, [2, 1], segments=segments, samples=60, penalty=1e-6, batch=16)
    for i, k in enumerate((2, 1)):
        sums = np.bincount(segments.ravel(), parts[i, :, :, k].ravel())
        np.testing.assert_allclose(found.weights[i], sums, atol=1e-3)
        np.testing.assert_allclose(found.maps[i], found.weights[i][segments])
    np.testing.assert_allclose(found.fit, 1, atol=1e-5)


def test_lime_is_a_weighted_ridge_regression_of_the_logits():
    """Beside the normal equations, solved by hand with an intercept that is not penalised."""
    model, variables, images = make(RESNET)
    halves = np.arange(48)[None].repeat(32, 0) // 12 * 10  # numbers with gaps
    found = explain.lime(model, variables, images[:1], 3, segments=halves, samples=20, kernel_width=0.4, seed=5)
    kept = np.random.default_rng(5).integers(0, 2, (20, 4), dtype=np.int8)
    kept[0] = 1
    hidden = np.where(kept.repeat(12, 1)[:, None, :, None], images[:1], 0)
    logits = np.asarray(model.apply(variables, jnp.asarray(hidden)))[:, 3].astype(np.float64)
    lengths = np.linalg.norm(kept.astype(float), axis=1)
    cosine = kept.sum(1) / np.maximum(lengths * 2, 1e-12)  # with the vector of ones, whose length is 2
    near = np.diag(np.exp(-((1 - cosine) ** 2) / 0.4**2))
    inputs = np.concatenate([kept, np.ones((20, 1))], axis=1)
    solved = np.linalg.solve(inputs.T @ near @ inputs + np.diag([1, 1, 1, 1, 0]), inputs.T @ near @ logits)
    np.testing.assert_allclose(found.weights[0], solved[:4], rtol=1e-3, atol=1e-4)
    assert 0 < found.fit[0] < 1


def test_lime_does_not_depend_on_the_batch_and_depends_on_the_seed(linear):
    model, variables, images, _ = linear
    whole = explain.lime(model, variables, images, samples=40)
    alone = explain.lime(model, variables, images[1:], samples=40)
    np.testing.assert_array_equal(whole.maps[1:], alone.maps)
    assert np.abs(whole.maps - explain.lime(model, variables, images, samples=40, seed=1).maps).max() > 0


def test_evidence_is_what_speaks_for_the_class():
    found = perturbation.evidence([[[-2.0, 0.0, 1.0, 4.0]], [[-1.0, -1.0, -3.0, 0.0]]])
    np.testing.assert_array_equal(found, [[[0, 0, 0.25, 1]], [[0, 0, 0, 0]]])


@pytest.mark.parametrize(
    "method, words, message",
    [
        ("occlusion", {"patch": 13}, r"patch=\(13, 13\) does not fit into images of 12x20"),
        ("occlusion", {"patch": 4, "stride": 5}, r"stride=\(5, 5\) is not between 1 and the patch"),
        ("occlusion", {"class_index": 3}, "class_index 3 is out of range"),
        ("lime", {"samples": 1}, "samples is 1; expected a whole number of 2 or more"),
        ("lime", {"segments": np.zeros((3, 3), int)}, r"segments are int64 \[3, 3\]; .* \[12, 20\]"),
        ("lime", {"segments": np.zeros((12, 20))}, "segments are float64"),
    ],
)
def test_mistakes_are_named(linear, method, words, message):
    model, variables, images, _ = linear
    with pytest.raises(UserError, match=message):
        getattr(explain, method)(model, variables, images, **words)


def test_a_patch_over_the_whole_image_takes_everything(linear):
    model, variables, images, parts = linear
    found = explain.occlusion(model, variables, images, 0, patch=(12, 20))
    chex.assert_shape(found, (2, 12, 20))
    np.testing.assert_allclose(found[:, 0, 0], parts[..., 0].sum((1, 2)), atol=1e-4)
    assert np.ptp(found, axis=(1, 2)).max() == 0
