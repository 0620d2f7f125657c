"""Layers that families share."""

import chex
import jax
import numpy as np

from jaxvit.models.layers import DropPath


def draw(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_drop_path():
    x = draw((64, 3, 4))
    chex.assert_trees_all_equal(DropPath(0.0).apply({}, x, train=True), x)
    chex.assert_trees_all_equal(DropPath(0.5).apply({}, x), x)
    y = DropPath(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    dropped = np.asarray((y == 0).all(axis=(1, 2)))
    assert 16 < dropped.sum() < 48
    chex.assert_trees_all_close(np.asarray(y)[~dropped], 2 * x[~dropped])
