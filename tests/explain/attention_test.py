"""Attention maps: rollout and distances by hand, Swin's windows on the image by brute force, mistakes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import explain
from jaxvit.errors import UserError
from jaxvit.explain import attention
from tests.helpers.explained import CONVNEXT, DEIT, EVA, RESNET, SWIN, SWIN_V2, VIT, make


def sown(model, variables, images, depth):
    _, seen = jax.jit(lambda v, x: model.apply(v, x, mutable=["intermediates"]))(variables, images)
    return [np.asarray(seen["intermediates"][f"blocks_{i}"]["attn"]["attn_weights"][0]) for i in range(depth)]


def rollout_by_hand(weights, rows, prefix, grid, fuse=np.mean):
    """Abnar and Zuidema: product of (A + I) / 2, the last block on the left; mean of `rows`."""
    joint = np.eye(weights[0].shape[-1])
    for block in weights:
        a = fuse(block, axis=1)
        joint = (a / a.sum(-1, keepdims=True) + np.eye(a.shape[-1])) / 2 @ joint
    return joint[:, rows, prefix:].mean(1).reshape(-1, *grid)


@pytest.mark.parametrize("name, rows, prefix", [(VIT, [0], 1), (DEIT, [0, 1], 2), (EVA, list(range(3, 27)), 3)])
def test_rollout_by_hand(name, rows, prefix):
    model, variables, images = make(name)
    expected = rollout_by_hand(sown(model, variables, images, 2), rows, prefix, (4, 6))
    found = np.asarray(explain.attention_rollout(model, variables, images))
    chex.assert_shape(found, (3, 32, 48))
    # linear interpolation leaves the order of the cells; compare where cells of 8 pixels have their centre
    centres = (found[:, 3::8, 3::8] + found[:, 4::8, 4::8]) / 2
    for a, b in zip(centres, expected, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97
        assert np.unravel_index(a.argmax(), a.shape) == np.unravel_index(b.argmax(), b.shape)


def test_rollout_before_enlargement_is_exact(monkeypatch):
    model, variables, images = make(VIT, mlp_ratio=1.0)
    monkeypatch.setattr(attention.taps, "to_pixels", lambda model, maps, size: maps)
    monkeypatch.setattr(attention.taps, "to_unit", lambda maps: maps)
    for fusion, fuse in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        expected = rollout_by_hand(sown(model, variables, images, 2), [0], 1, (4, 6), fuse)
        found = explain.attention_rollout(model, variables, images, head_fusion=fusion)
        chex.assert_trees_all_close(found, expected.astype(np.float32), atol=1e-5)


def test_discarding_drops_the_smallest_weights_between_patches_and_keeps_the_prefix():
    weights = np.random.default_rng(0).uniform(0.1, 1, (2, 5, 5)).astype(np.float32)
    weights[:, :, 0] = 0.01
    found = np.asarray(attention._discard(jnp.asarray(weights), 0.5, 1))
    for a, b in zip(found, weights, strict=True):
        chex.assert_trees_all_equal(a[:, 0], b[:, 0])
        kept = np.sort(b[:, 1:].ravel())[10:]
        np.testing.assert_array_equal(np.sort(a[:, 1:][a[:, 1:] > 0]), kept)
    chex.assert_trees_all_equal(attention._discard(jnp.asarray(weights), 0.0, 1), weights)


def test_rollout_follows_pools_without_a_class_token():
    for pool in ("avg", "map"):
        model, variables, images = make(VIT, global_pool=pool, class_token=False)
        found = explain.attention_rollout(model, variables, images, discard_ratio=0.3)
        chex.assert_shape(found, (3, 32, 48))
        chex.assert_tree_all_finite(found)


def test_rollout_ends_in_a_pool_that_reads_all_tokens(monkeypatch):
    model, variables, images = make(EVA, global_pool="map", dynamic_img_pad=True)
    images = images[:, :27, :44]  # filled up to patches again
    monkeypatch.setattr(attention.taps, "to_pixels", lambda model, maps, size: maps)
    monkeypatch.setattr(attention.taps, "to_unit", lambda maps: maps)
    _, seen = model.apply(variables, images, mutable=["intermediates"])
    (pool,) = seen["intermediates"]["attn_pool"]["attn_weights"]
    joint = np.eye(27)
    for block in sown(model, variables, images, 2):
        joint = (block.mean(1) + np.eye(27)) / 2 @ joint
    expected = np.einsum("bn,bnm->bm", pool[:, :, 0].mean(1), joint)[:, 3:].reshape(3, 4, 6)
    chex.assert_trees_all_close(explain.attention_rollout(model, variables, images), expected, atol=1e-5)


def test_class_token_maps_are_the_first_rows_of_a_block():
    model, variables, images = make(VIT)
    weights = sown(model, variables, images, 2)
    for block in (0, -1):
        found = np.asarray(explain.attention_maps(model, variables, images, block=block))
        chex.assert_shape(found, (3, 2, 32, 48))
        rows = weights[block][:, :, 0, 1:].reshape(3, 2, 4, 6)
        centres = (found[..., 3::8, 3::8] + found[..., 4::8, 4::8]) / 2
        for a, b in zip(centres.reshape(6, -1), rows.reshape(6, -1), strict=True):
            assert np.corrcoef(a, b)[0, 1] > 0.95
    chex.assert_shape(explain.attention_maps(model, variables, images, head_fusion="mean"), (3, 32, 48))


@pytest.mark.parametrize(
    "name, call, message",
    [
        (RESNET, explain.attention_rollout, "ResNet has no such attention; .*see grad_cam"),
        (SWIN, explain.attention_rollout, "SwinTransformer has no such attention; .*see attention_maps"),
        (SWIN_V2, explain.attention_rollout, "SwinTransformerV2 has no such attention; .*see attention_maps"),
        (CONVNEXT, explain.attention_rollout, "ConvNeXt has no such attention; .*see grad_cam"),
        (RESNET, explain.attention_maps, "ResNet has no such attention"),
        (VIT, lambda *a: explain.attention_rollout(*a, head_fusion="men"), "Did you mean 'mean'"),
        (VIT, lambda *a: explain.attention_rollout(*a, discard_ratio=1.0), r"discard_ratio=1.0 is not in \[0, 1\)"),
        (VIT, lambda *a: explain.attention_maps(*a, block=2), "block 2 is out of range.* 0 to 1"),
    ],
)
def test_mistakes_are_named(name, call, message):
    with pytest.raises(UserError, match=message):
        call(*make(name))
