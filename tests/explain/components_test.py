"""Principal components beside scikit-learn's, and their pictures for every family."""

import chex
import numpy as np
import pytest
from sklearn.decomposition import PCA

from jaxvit import explain
from jaxvit.errors import UserError
from jaxvit.explain import components
from tests.helpers.explained import CONVNEXT, EVA, RESNET, SWIN, SWIN_V2, VIT, make


@pytest.mark.parametrize("channels", (7, 90))  # fewer than cells, and more
def test_components_are_those_of_scikit_learn(channels):
    maps = np.random.default_rng(0).normal(size=(2, 6, 8, channels)) * np.linspace(1, 3, channels)
    for together in (False, True):
        found = explain.principal_components(maps, together=together)
        groups = [maps.reshape(-1, channels)] if together else list(maps.reshape(2, -1, channels))
        peers = [PCA(3, svd_solver="full").fit(x) for x in groups]
        expected = np.concatenate([peer.transform(x) for peer, x in zip(peers, groups, strict=True)])
        values = found.values.reshape(-1, 3)
        rows = [slice(None)] if together else [slice(0, 48), slice(48, 96)]
        for at in rows:  # scikit-learn before 1.5 chose signs by the values, not by the loadings
            signs = np.sign((values[at] * expected[at]).sum(0))
            np.testing.assert_allclose(values[at], expected[at] * signs, atol=1e-4)
        shares = np.resize([peer.explained_variance_ratio_ for peer in peers], (2, 3))
        np.testing.assert_allclose(found.shares, shares, rtol=1e-6)


def test_the_largest_loading_is_positive():
    cells = np.random.default_rng(1).normal(size=(1, 5, 5, 4)) * (1, 9, 2, 4)
    found = explain.principal_components(cells)
    for k, channel in enumerate((1, 3, 2)):
        assert np.corrcoef(found.values[..., k].ravel(), cells[..., channel].ravel())[0, 1] > 0.9


def test_components_beyond_the_rank_are_zero_and_grey():
    line = np.linspace(-1, 1, 24).reshape(1, 4, 6, 1) * np.ones(5)
    found = explain.principal_components(line)
    np.testing.assert_allclose(found.shares, [[1, 0, 0]], atol=1e-9)
    assert not found.values[..., 1:].any()
    pictures = components.component_pictures(make(VIT)[0], found, (32, 48))
    np.testing.assert_array_equal(pictures[..., 1:], 0.5)
    assert pictures[..., 0].min() == 0 and pictures[..., 0].max() == 1


@pytest.mark.parametrize(
    "name, layer",
    [(RESNET, None), (VIT, None), (SWIN, "layers_0/blocks_0"), (EVA, None), (SWIN_V2, "layers_0"), (CONVNEXT, None)],
)
def test_convolutions_tokens_and_windows_give_pictures(name, layer):
    model, variables, images = make(name)
    pictures = explain.pca(model, variables, images, layer)
    chex.assert_shape(pictures, images.shape)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert np.ptp(pictures[..., 0], axis=(1, 2)).min() > 0.5  # cells span the range, points between them less


def test_tokens_of_a_layer_lie_where_their_patches_do():
    model, variables, images = make(VIT)
    found = explain.layer_maps(model, variables, images, "patch_embed/proj")
    kernel, bias = (np.asarray(variables["params"]["patch_embed"]["proj"][word]) for word in ("kernel", "bias"))
    patch = images[1, 8:16, 40:48]
    np.testing.assert_allclose(found[1, 1, 5], np.tensordot(patch, kernel, 3) + bias, atol=1e-4)


def test_mistakes_are_named():
    model, variables, images = make(VIT)
    with pytest.raises(UserError, match="no layer 'head'"):
        explain.pca(model, variables, images, "head")
    with pytest.raises(UserError, match="expected \\[b, h, w, c\\]"):
        explain.principal_components(np.zeros((4, 4, 3)))
