"""Rotary embeddings: rotations, that scores depend on differences of places alone, and timm's angles."""

import math

import jax
import numpy as np
import pytest

from jaxvit.models.rope import RotaryEmbedding, moved, turned

RNG = np.random.default_rng(0)


def angles_of(grid, **fields):
    """The angles [n, hd/2] of fixed frequencies."""
    return np.asarray(RotaryEmbedding(head_dim=8, **fields).apply({}, grid))[0, :, 0]


def turn(x, angles, halves):
    """Turns x [n, hd] by angles [n, hd/2]."""
    cos, sin = (f(angles)[None, :, None] for f in (np.cos, np.sin))
    return np.asarray(turned(x[None, :, None].astype(np.float32), cos, sin, halves=halves))[0, :, 0]


@pytest.mark.parametrize("halves", [False, True])
def test_turning_keeps_lengths_and_scores_depend_on_differences_alone(halves):
    angles = angles_of((5, 6))
    q, k = RNG.standard_normal((2, 8)).astype(np.float32)
    turned_q, turned_k = (turn(np.tile(a, (30, 1)), angles, halves) for a in (q, k))
    np.testing.assert_allclose(np.linalg.norm(turned_q, axis=-1), np.linalg.norm(q), rtol=1e-5)
    scores = (turned_q @ turned_k.T).reshape(5, 6, 5, 6)
    np.testing.assert_allclose(scores[0, 0, 2, 3], scores[2, 1, 4, 4], rtol=1e-4)
    np.testing.assert_allclose(scores[1, 4, 0, 2], scores[4, 5, 3, 3], rtol=1e-4)
    assert abs(scores[0, 0, 2, 3] - scores[0, 0, 3, 2]) > 1e-3
    np.testing.assert_allclose(turn(turned_q, -angles, halves), np.tile(q, (30, 1)), atol=1e-5)


def test_a_quarter_turn_by_hand():
    x, quarter = np.array([[1.0, 2, 3, 4]]), np.full((1, 2), math.pi / 2)
    np.testing.assert_allclose(turn(x, quarter, False), [[-2, 1, -4, 3]], atol=1e-6)
    np.testing.assert_allclose(turn(x, quarter, True), [[-3, -4, 1, 2]], atol=1e-6)


def test_places():
    place = {"temperature": 1.0}  # both frequencies of an axis are 1
    np.testing.assert_array_equal(angles_of((2, 3), **place)[4], [1, 1, 1, 1])
    np.testing.assert_array_equal(angles_of((2, 3), **place)[2], [0, 0, 2, 2])
    np.testing.assert_array_equal(angles_of((2, 3), indexing="xy", offset=1.0, **place)[2], [3, 3, 1, 1])
    np.testing.assert_allclose(angles_of((2, 3), reference=(4, 6), **place)[5], [2, 2, 4, 4])
    centred = angles_of((2, 4), kind="dinov3", **place) / (2 * math.pi)
    np.testing.assert_allclose(centred[0], [-0.5, -0.5, -0.75, -0.75])
    np.testing.assert_allclose(centred[7], [0.5, 0.5, 0.75, 0.75])


def test_learnt_frequencies_start_as_two_axes_at_a_right_angle():
    rope = RotaryEmbedding(head_dim=8, kind="mixed", temperature=100.0, depth=2, num_heads=3)
    angles, variables = rope.init_with_output(jax.random.key(0), (2, 3))
    assert angles.shape == (2, 6, 3, 4)
    x, y = np.asarray(variables["params"]["freqs"])
    np.testing.assert_allclose(np.hypot(x, y), np.broadcast_to([1, 0.1, 1, 0.1], (2, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(x[..., :2] * x[..., 2:] + y[..., :2] * y[..., 2:], 0, atol=1e-6)
    np.testing.assert_allclose(angles[1, 5, 2], x[1, 2] * 1 + y[1, 2] * 2, rtol=1e-5)  # row 1, column 2
    assert np.std(x[..., 0]) > 0.1  # each head has its own


def test_places_are_moved_together():
    places = np.array([[0.0, 0], [1, 1], [2, -1]], np.float32)
    draws = np.stack([moved(places, jax.random.key(i), 0.5, 2.0, 3.0) for i in range(40)])
    steps = draws[:, 1:] - draws[:, :1]
    scales = steps[:, 0]  # of both axes
    np.testing.assert_allclose(steps[:, 1], scales * [2, -1], rtol=1e-4)
    assert 1 / 6 <= scales.min() < 0.6 and 2 < scales.max() <= 6
    assert np.abs(draws[:, 0] / scales).max() <= 0.5
    np.testing.assert_array_equal(moved(places, jax.random.key(0), None, None, None), places)


@pytest.mark.torch
@pytest.mark.parametrize("grid", [(4, 4), (3, 7)])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"reference": (16, 16)},
        {"reference": (14, 12), "offset": 1.0, "indexing": "xy"},
        {"temperature": 100.0, "indexing": "xy"},
        {"kind": "dinov3", "temperature": 100.0},
        {"kind": "dinov3", "temperature": 100.0, "indexing": "xy", "offset": 0.25},
    ],
    ids=str,
)
def test_angles_equal_timms(grid, fields):
    layers = pytest.importorskip("timm.layers")
    words = {"reference": "ref_feat_shape", "indexing": "grid_indexing", "offset": "grid_offset", "kind": "rope_type"}
    given = {"rope_type": "cat", **{words.get(k, k): v for k, v in fields.items()}}
    given |= {"in_pixels": False} if given["rope_type"] == "cat" else {}
    theirs = layers.create_rope_embed(dim=32, num_heads=2, rotate_half=True, **given).get_embed(shape=list(grid))
    sin, cos = theirs.numpy()[:, :8], theirs.numpy()[:, 16:24]
    ours = np.asarray(RotaryEmbedding(head_dim=16, **fields).apply({}, grid))[0, :, 0]
    np.testing.assert_allclose(np.sin(ours), sin, atol=2e-6)
    np.testing.assert_allclose(np.cos(ours), cos, atol=2e-6)
