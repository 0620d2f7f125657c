"""Windows of a map, and their masks."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.models import swin
from jaxvit.models.layers import Mlp, layer_norm
from jaxvit.ops import window_attention
from tests.helpers.tiny_swin import images_of, variables_of

NORM = partial(layer_norm, swin.NORM_EPS)


def apply(model, variables, images, **kwargs):
    return jax.jit(partial(model.apply, **kwargs))(variables, images)


@pytest.mark.parametrize("window", [(4, 4), (2, 6), (8, 12)])
def test_window_partition_and_reverse_are_inverses(window):
    x = images_of(8, 12)
    windows = window_attention.window_partition(jnp.asarray(x), window)
    wh, ww = window
    chex.assert_shape(windows, (2, 96 // (wh * ww), wh * ww, 3))
    np.testing.assert_array_equal(windows[:, 0], x[:, :wh, :ww].reshape(2, wh * ww, 3))
    np.testing.assert_array_equal(window_attention.window_reverse(windows, window, (8, 12)), x)


@pytest.mark.parametrize("shift", [(2, 2), (2, 0), (0, 1)])
def test_mask_separates_exactly_what_the_shift_joined(shift):
    """Brute force: a pair may attend if both kept their distance when the map was rolled."""
    h, w, window = 8, 12, (4, 4)
    y, x = np.mgrid[:h, :w]
    rolled = np.stack([np.roll(a, (-shift[0], -shift[1]), (0, 1)) for a in (y, x)], -1)[None]
    here = np.stack([y, x], -1)[None]
    moved = np.asarray(window_attention.window_partition(here - rolled, window))[0]  # [nw n 2]
    allowed = (moved[:, :, None] == moved[:, None]).all(-1)
    mask = window_attention.shifted_window_mask((h, w), window, shift)
    np.testing.assert_array_equal(mask, np.where(allowed, 0, -100))
    assert window_attention.shifted_window_mask((h, w), window, (0, 0)) is None


def test_no_attention_crosses_the_seam():
    """A change at the bottom edge must not reach the top edge through one shifted block."""
    attn = partial(swin.WindowAttention, num_heads=2, window_size=(4, 4), shift_size=(2, 2))
    block = swin.SwinBlock(attn=attn, mlp=partial(Mlp, hidden_dim=32), norm=NORM)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32)
    variables = variables_of(block, x)
    changed = x.copy()
    changed[:, -1, 3] += 10.0 * np.random.default_rng(1).normal(size=8).astype(np.float32)
    difference = np.abs(apply(block, variables, x) - apply(block, variables, changed)).max((0, 3))
    assert difference[:6].max() < 1e-6 < difference[6:, 2:6].min()
