"""Attention maps: rollout and distances by hand, Swin's windows on the image by brute force, mistakes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import explain
from jaxvit.errors import UserError
from jaxvit.explain import attention, windows
from tests.helpers.explained import DEIT, RESNET, SWIN, VIT, make


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


@pytest.mark.parametrize("name, rows, prefix", [(VIT, [0], 1), (DEIT, [0, 1], 2)])
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


def test_windows_are_stitched_where_their_tokens_lie():
    """Attention that says only "key number k of window w" must land on the token that came from there."""
    place = windows.Windows(map_size=(5, 7), window=(3, 4), shift=(1, 2), cell=(4, 4))
    (h, w), (wh, ww), (sh, sw) = place.map_size, place.window, place.shift
    assert place.padded == (6, 8)
    down, across = 2, 2
    mark = np.arange(down * across * wh * ww, dtype=np.float32).reshape(1, down * across, 1, 1, wh * ww)
    weights = np.broadcast_to(mark, (1, down * across, 1, wh * ww, wh * ww))
    found = np.asarray(windows.received(jnp.asarray(weights), place))
    for y in range(h):
        for x in range(w):
            ry, rx = (y - sh) % h, (x - sw) % w  # where the roll puts it
            window, token = ry // wh * across + rx // ww, ry % wh * ww + rx % ww
            rows = min(wh, h - ry // wh * wh) * min(ww, w - rx // ww * ww)  # queries that are no padding
            np.testing.assert_allclose(found[0, 0, y, x], mark[0, window, 0, 0, token] * rows)


def test_swin_with_equal_attention_receives_one_everywhere_and_its_distance_is_the_mean():
    model, variables, images = make(SWIN)
    flat = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if {"qkv"} & {p.key for p in path} or "table" in path[-1].key else x,
        variables,
    )
    weights = explain.attention_weights(model, flat, images)
    places = windows.block_windows(model, (32, 48))
    assert [(p.map_size, p.window, p.shift) for p in places] == [
        ((8, 12), (3, 3), (0, 0)),
        ((8, 12), (3, 3), (1, 1)),
        ((4, 6), (3, 3), (0, 0)),
    ]
    whole = windows.Windows((9, 12), (3, 3), (0, 0), (4, 4))
    equal = jnp.full((1, 12, 2, 9, 9), 1 / 9)
    chex.assert_trees_all_close(windows.received(equal, whole), jnp.ones((1, 2, 9, 12)), atol=1e-6)
    gap = windows.gaps((3, 3), (4, 4))
    chex.assert_trees_all_close(windows.distance(equal, whole), jnp.full(2, gap.mean()), atol=1e-4)
    full = np.asarray(windows.received(weights[0], places[0]))  # 8 rows: the last windows hold a row of padding
    np.testing.assert_allclose(full[:, :, :6], 1.0, atol=1e-5)
    np.testing.assert_allclose(full[:, :, 6:], 2 / 3, atol=1e-5)


def test_swin_maps_have_the_images_size_for_every_block():
    model, variables, images = make(SWIN)
    for block, heads in ((1, 2), (2, 4)):
        found = explain.attention_maps(model, variables, images, block=block)
        chex.assert_shape(found, (3, heads, 32, 48))
        assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert [len(d) for d in explain.attention_distance(model, variables, images)] == [2, 2, 4]


def test_distance_by_hand():
    model, variables, images = make(VIT)
    found = explain.attention_distance(model, variables, images)
    weights = sown(model, variables, images, 2)
    at = np.array([(y * 8, x * 8) for y in range(4) for x in range(6)], float)
    gap = np.sqrt(((at[:, None] - at[None]) ** 2).sum(-1))
    for block, distances in zip(weights, found, strict=True):
        patches = block[:, :, 1:, 1:]
        patches = patches / patches.sum(-1, keepdims=True)
        np.testing.assert_allclose(distances, (patches * gap).sum(-1).mean((0, 2)), rtol=1e-4)
    identity = jnp.broadcast_to(jnp.eye(9), (1, 12, 2, 9, 9))
    assert not windows.distance(identity, windows.Windows((9, 12), (3, 3), (0, 0), (4, 4))).any()


@pytest.mark.parametrize(
    "name, call, message",
    [
        (RESNET, explain.attention_rollout, "ResNet has no such attention; .*see grad_cam"),
        (SWIN, explain.attention_rollout, "SwinTransformer has no such attention; .*see attention_maps"),
        (RESNET, explain.attention_maps, "ResNet has no such attention"),
        (VIT, lambda *a: explain.attention_rollout(*a, head_fusion="men"), "Did you mean 'mean'"),
        (VIT, lambda *a: explain.attention_rollout(*a, discard_ratio=1.0), r"discard_ratio=1.0 is not in \[0, 1\)"),
        (VIT, lambda *a: explain.attention_maps(*a, block=2), "block 2 is out of range.* 0 to 1"),
    ],
)
def test_mistakes_are_named(name, call, message):
    with pytest.raises(UserError, match=message):
        call(*make(name))
