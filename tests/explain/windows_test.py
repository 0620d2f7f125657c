"""Swin's attention, stitched where its tokens lie."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import explain
from jaxvit.explain import windows
from tests.helpers.explained import SWIN, SWIN_V2, VIT, make


def sown(model, variables, images, depth):
    _, seen = jax.jit(lambda v, x: model.apply(v, x, mutable=["intermediates"]))(variables, images)
    return [np.asarray(seen["intermediates"][f"blocks_{i}"]["attn"]["attn_weights"][0]) for i in range(depth)]


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


@pytest.mark.parametrize("name", [SWIN, SWIN_V2])
def test_swin_maps_have_the_images_size_for_every_block(name):
    model, variables, images = make(name)
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
