"""Mixup, CutMix and random erasing: shares, areas, probabilities, reproducibility."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxvit.data.augment.mix import cutmix_boxes, mix, random_erasing, symmetric_beta
from tests.helpers.photos import photos


def _batch(b=64, channels=3):
    """Images of which each is one grey level of its own, and one-hot targets of as many classes."""
    levels = (np.arange(b) / b).astype(np.float32)
    return jnp.asarray(np.broadcast_to(levels[:, None, None, None], (b, 12, 8, channels))), jnp.eye(b)


@pytest.mark.parametrize("channels", [1, 3])
def test_mixup_mixes_images_and_targets_by_the_same_share(channels):
    images, targets = _batch(channels=channels)
    mixed, new = jax.jit(functools.partial(mix, mixup_alpha=0.8))(jax.random.key(0), images, targets)
    np.testing.assert_allclose(new.sum(1), 1.0, atol=1e-6)
    share = np.asarray(jnp.diagonal(new))
    expected = share[:, None, None, None] * images + (1 - share)[:, None, None, None] * images[::-1]
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    np.testing.assert_allclose(np.asarray(new)[np.arange(64), 63 - np.arange(64)], 1 - share, atol=1e-6)
    assert len(np.unique(share)) > 60


@pytest.mark.parametrize("alpha", [0.05, 1.0, 8.0])
def test_shares_are_beta(alpha):
    b = 4000
    targets = jnp.eye(2)[(jnp.arange(b) >= b // 2).astype(int)]  # the partner is of the other class
    operation = jax.jit(functools.partial(mix, mixup_alpha=alpha))
    share = np.asarray((operation(jax.random.key(1), jnp.zeros((b, 1, 1, 1)), targets)[1] * targets).sum(1))
    assert np.isfinite(share).all()
    assert abs(share.mean() - 0.5) < 0.03
    assert abs(share.var() - 1 / (4 * (2 * alpha + 1))) < 0.01  # of Beta(alpha, alpha)


def test_cutmix_share_is_the_area_that_stayed():
    images, targets = _batch()
    mixed, new = jax.jit(functools.partial(mix, cutmix_alpha=1.0))(jax.random.key(2), images, targets)
    kept = np.asarray(mixed == images)
    assert np.array_equal(kept | np.asarray(mixed == images[::-1]), np.ones_like(kept))
    np.testing.assert_allclose(jnp.diagonal(new), kept[..., 0].mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(new.sum(1), 1.0, atol=1e-6)
    for one in kept[..., 0]:  # what was pasted is one box
        rows, columns = (~one).any(1), (~one).any(0)
        assert (~one).sum() == rows.sum() * columns.sum()


def test_an_image_without_target_is_mixed_into_no_other():
    images, targets = _batch()
    targets = targets.at[5].set(0.0)
    mixed, new = jax.jit(functools.partial(mix, mixup_alpha=1.0, cutmix_alpha=1.0))(jax.random.key(4), images, targets)
    np.testing.assert_array_equal(mixed[58], images[58])  # the partner of 5
    np.testing.assert_array_equal(new[58], targets[58])
    assert (np.asarray(mixed[5]) != np.asarray(images[5])).any()


def test_cutmix_boxes_before_the_border_cuts_them_have_the_share():
    share = jnp.linspace(0.0, 1.0, 2001)
    box, area = cutmix_boxes(jax.random.key(0), share, (200, 100))
    assert (np.asarray(area) <= 1 - np.asarray(share) + 1e-6).all()
    top, left, h, w = np.asarray(box).T
    inner = (top > 0) & (left > 0) & (top + h < 200) & (left + w < 100)
    assert inner.sum() > 300
    for cut, length in ((h, 200), (w, 100)):  # whole pixels, odd numbers of them as well
        np.testing.assert_array_equal(cut[inner], np.floor(length * np.sqrt(1 - share[inner])))
        np.testing.assert_array_equal(np.unique(cut[inner] % 2), [0, 1])
    np.testing.assert_allclose(area[inner], 1 - share[inner], atol=0.02)
    np.testing.assert_allclose(area, h * w / (200 * 100), atol=1e-6)


def test_probabilities_of_mixing_and_switching():
    images, targets = _batch(2000)
    targets = jnp.eye(10)[jnp.arange(2000) % 10]  # only to be small
    _, same = mix(jax.random.key(0), images, targets, mixup_alpha=0.5, cutmix_alpha=1.0, prob=0.0)
    np.testing.assert_array_equal(same, targets)
    mixed, _ = mix(jax.random.key(0), images, targets, mixup_alpha=1.0, prob=0.3)
    assert abs((np.asarray(mixed) != np.asarray(images)).any((1, 2, 3)).mean() - 0.3) < 0.04
    mixed, _ = mix(jax.random.key(0), images, targets, mixup_alpha=1.0, cutmix_alpha=1.0, switch_prob=0.25)
    pasted = ((mixed == images) | (mixed == images[::-1])).all((1, 2, 3))
    assert abs(np.asarray(pasted).mean() - 0.25) < 0.04


def test_same_key_same_batch_and_vmap_over_keys():
    images, targets = _batch(8)
    operation = functools.partial(mix, mixup_alpha=0.5, cutmix_alpha=1.0)
    keys = jax.random.split(jax.random.key(5), 3)
    many = jax.jit(jax.vmap(operation, (0, None, None)))(keys, images, targets)
    operation = jax.jit(operation)
    for i, key in enumerate(keys):
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], many), operation(key, images, targets), atol=1e-6)


@pytest.mark.parametrize("mode", ["const", "pixel"])
@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_fills_one_box_of_timms_sizes(mode, channels):
    images = jnp.full((2000, 40, 32, channels), 2.0)  # a value that no filling has
    result = np.asarray(jax.jit(random_erasing, static_argnums=(2, 3))(jax.random.key(0), images, 0.25, mode, 0.5))
    erased = (result != 2.0).all(-1)
    np.testing.assert_array_equal(erased, (result != 2.0).any(-1))
    hit = erased.any((1, 2))
    assert abs(hit.mean() - 0.25) < 0.03
    h, w = erased[hit].any(2).sum(1), erased[hit].any(1).sum(1)
    np.testing.assert_array_equal(erased[hit].sum((1, 2)), h * w)
    share, ratio = h * w / (40 * 32), h / w
    assert 0.012 < share.min() < 0.04 and 0.28 < share.max() < 0.36
    assert 0.2 < ratio.min() < 0.42 and 2.4 < ratio.max() < 4.5
    values = result[erased]
    if mode == "const":
        assert (values == 0.5).all()
    else:
        assert values.min() == 0.0 and values.max() == 1.0 and abs(values.mean() - 0.5) < 0.01


def test_erasing_with_probability_0_and_1():
    images = jnp.asarray(photos(), jnp.float32) / 255.0
    np.testing.assert_array_equal(random_erasing(jax.random.key(0), images, 0.0), images)
    changed = np.asarray(random_erasing(jax.random.key(0), images, 1.0) != images).any((1, 2, 3))
    assert changed.all()


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 0.8, 1.0, 2.0])
def test_symmetric_beta_has_the_distribution_of_scipy(alpha):
    draws = np.asarray(jax.jit(symmetric_beta)(jax.random.key(7), jnp.full((30000,), alpha)), np.float64)
    assert ((draws >= 0) & (draws <= 1)).all()
    grid = np.linspace(0.001, 0.999, 999)  # ends, where float32 has but one number for many quantiles, count as a whole
    below = np.searchsorted(np.sort(draws), grid, side="right") / len(draws)
    distance = np.abs(below - scipy.stats.beta(alpha, alpha).cdf(grid)).max()
    assert distance < scipy.stats.kstwo.ppf(0.99, len(draws))  # Kolmogorov and Smirnov: of 100 seeds one may fail


def test_mixing_draws_each_share_from_its_own_alpha():
    alpha = jnp.where(jnp.arange(40000) % 2 == 0, 0.2, 2.0)
    draws = np.asarray(symmetric_beta(jax.random.key(3), alpha))
    for part, a in ((draws[::2], 0.2), (draws[1::2], 2.0)):
        assert abs(part.var() - 1 / (4 * (2 * a + 1))) < 0.003
