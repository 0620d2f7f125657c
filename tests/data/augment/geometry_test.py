"""Warps and random crops against Pillow and against torchvision's documented formulas, on photographs."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit.data.augment import geometry
from tests.helpers.photos import photos

BILINEAR = Image.Resampling.BILINEAR


def _floats(channels=3):
    return jnp.asarray(photos()[..., :channels], jnp.float32) / 255.0


def _pillow(image, operation):
    """Applies `operation` to each channel as a float image, so that Pillow rounds nothing."""
    return np.stack(
        [np.asarray(operation(Image.fromarray(np.asarray(image[..., c])))) for c in range(image.shape[-1])], -1
    )


def test_warp_is_pillows_transform():
    images = _floats()
    rng = np.random.default_rng(1)
    matrices = np.tile(np.array([[1.0, 0, 0], [0, 1, 0]]), (len(images), 1, 1))
    matrices[1:] += rng.normal(0, 0.2, (len(images) - 1, 2, 3)) * np.array([1, 1, 20])
    result = jax.jit(geometry.warp)(images, jnp.asarray(matrices, jnp.float32), 0.25)
    for image, matrix, ours in zip(images, matrices, result, strict=True):
        expected = _pillow(
            image,
            lambda x, m=matrix: x.transform(x.size, Image.Transform.AFFINE, tuple(m.ravel()), BILINEAR, fillcolor=0.25),
        )
        # A place that lies on the border within rounding may be in for one and out for the other.
        assert (np.abs(expected - ours).max(-1) > 1e-4).mean() < 0.002
    np.testing.assert_array_equal(result[0], images[0])


@pytest.mark.parametrize("channels", [1])
def test_warp_alone_vmapped_equals_the_batch(channels):
    images = _floats(channels)
    matrices = jnp.tile(jnp.array([[[0.9, 0.1, 1.0], [-0.1, 0.8, 2.0]]]), (len(images), 1, 1))
    alone = jax.jit(jax.vmap(lambda image, matrix: geometry.warp(image[None], matrix[None])[0]))(images, matrices)
    chex.assert_trees_all_close(alone, jax.jit(geometry.warp)(images, matrices), atol=1e-6)


def _forward(size, angle, translate, scale, shear):
    """Torchvision's documented M = T C R(angle) S(scale) SHx(shear) C^-1, as a 3x3 matrix in float64."""
    cx, cy, a, t = size[1] / 2, size[0] / 2, math.radians(angle), math.tan(math.radians(shear))
    shift = lambda x, y: np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])  # noqa: E731
    rotation = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    slant = np.array([[1, -t, 0], [0, 1, 0], [0, 0, 1]])
    scaling = np.diag([scale, scale, 1])
    return shift(*translate) @ shift(cx, cy) @ rotation @ scaling @ slant @ shift(-cx, -cy)


def test_inverse_affine_undoes_the_documented_map():
    cases = [(30.0, (3, -2), 1.2, 10.0), (-100.0, (0, 5), 0.7, -25.0), (0.0, (0, 0), 1.0, 0.0)]
    angle, translate, scale, shear = (jnp.array(v, jnp.float32) for v in zip(*cases, strict=True))
    result = geometry.inverse_affine((40, 32), angle, translate, scale, shear)
    expected = np.stack([np.linalg.inv(_forward((40, 32), *case))[:2] for case in cases])
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_random_affine_by_nothing_changes_nothing_and_rotation_stays_in_range():
    images = _floats()
    affine = jax.jit(geometry.random_affine, static_argnums=(2, 3, 4, 5))
    same = affine(jax.random.key(0), images, 0.0, 0.0, (1.0, 1.0), 0.0, 0.5)
    np.testing.assert_allclose(same, images, atol=1e-5)
    blank = jnp.ones((64, 40, 32, 1))
    moved = affine(jax.random.key(0), blank, 0.0, 0.25, (1.0, 1.0), 0.0, 0.0)[..., 0] > 0
    rows, columns = moved.any(2).sum(1), moved.any(1).sum(1)
    assert rows.min() >= 30 and columns.min() >= 24 and rows.max() <= 40  # shifts of at most a quarter
    assert rows.min() < 33 and columns.min() < 27


@pytest.mark.torch
@pytest.mark.parametrize("shear", [0.0, 12.0])
def test_affine_matrix_equals_torchvision(shear):
    functional = pytest.importorskip("torchvision.transforms.functional")
    ours = geometry.inverse_affine(
        (40, 32), jnp.array([20.0]), jnp.array([[2.0, 3.0]]), jnp.array([0.9]), jnp.array([shear])
    )
    theirs = functional._get_inverse_affine_matrix([16.0, 20.0], 20.0, [2.0, 3.0], 0.9, [shear, 0.0])
    np.testing.assert_allclose(ours.ravel(), theirs, atol=1e-5)


def test_resized_crop_is_pillows_resize_of_the_box():
    images, key = _floats(), jax.random.key(3)
    result = jax.jit(geometry.random_resized_crop)(key, images)
    boxes = geometry.crop_boxes(key, len(images), (40, 32), (0.08, 1.0), (3 / 4, 4 / 3))
    assert len({tuple(box) for box in boxes.tolist()}) == len(images)
    for image, (top, left, h, w), ours in zip(images, boxes.tolist(), result, strict=True):
        crop = image[top : top + h, left : left + w]
        np.testing.assert_allclose(ours, _pillow(crop, lambda x: x.resize((32, 40), BILINEAR)), atol=1e-5)


def test_boxes_have_the_asked_area_and_ratio_and_lie_inside():
    boxes = np.asarray(geometry.crop_boxes(jax.random.key(0), 4000, (64, 48), (0.2, 0.6), (3 / 4, 4 / 3)))
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 64).all() and (left + w <= 48).all()
    share, ratio = h * w / (64 * 48), w / h
    assert 0.19 < share.min() < 0.22 and 0.57 < share.max() < 0.61
    assert 0.72 < ratio.min() < 0.78 and 1.28 < ratio.max() < 1.38
    assert abs(np.log(ratio).mean()) < 0.02
    assert top.min() == 0 and (top + h).max() == 64


def test_boxes_that_never_fit_fall_back_to_the_middle():
    draw = jax.jit(geometry.crop_boxes, static_argnums=(1, 2, 3, 4))
    boxes = draw(jax.random.key(0), 3, (10, 40), (1.0, 1.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(boxes, [[0, 13, 10, 13]] * 3)
    whole = draw(jax.random.key(0), 50, (32, 32), (1.0, 1.0), (0.999, 1.001))
    np.testing.assert_array_equal(whole, [[0, 0, 32, 32]] * 50)
