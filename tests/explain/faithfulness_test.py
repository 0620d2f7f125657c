"""Deletion, insertion and pointing."""

import chex
import jax.numpy as jnp
import numpy as np

from jaxvit.explain import faithfulness
from tests.helpers.explained import VIT, Linear, make


def test_cells_are_ordered_by_their_mean():
    maps = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [2, 2, 9, 0], [2, 2, 0, 0]], np.float32)[None]
    np.testing.assert_array_equal(faithfulness.cell_order(maps, 2), [[3, 2, 0, 1]])


def test_curves_go_from_start_to_end_in_the_order_given():
    model, variables, images = make(VIT)
    order = np.stack([np.random.default_rng(i).permutation(24) for i in range(3)])
    found = faithfulness.curve(model, variables, images, np.zeros_like(images), order, 2, cell=8, steps=3)
    chex.assert_shape(found, (3, 4))
    mixed = images.copy().reshape(3, 4, 8, 6, 8, 3)
    for i in range(3):
        for cell in order[i, :8]:
            mixed[i, cell // 6, :, cell % 6] = 0
    for column, inputs in ((0, images), (1, mixed.reshape(images.shape)), (3, np.zeros_like(images))):
        logits = np.asarray(model.apply(variables, jnp.asarray(inputs)))
        expected = np.exp(logits[:, 2]) / np.exp(logits).sum(-1)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-4)
    np.testing.assert_allclose(faithfulness.area([[1.0, 0.5, 0.0], [1, 1, 1]]), [0.5, 1.0])


def test_blur_keeps_the_mean_and_takes_the_detail():
    images = np.random.default_rng(0).normal(size=(1, 32, 40, 2)).astype(np.float32)
    found = faithfulness.blur(images, sigma=3.0)
    chex.assert_shape(found, images.shape)
    np.testing.assert_allclose(found.mean((1, 2)), images.mean((1, 2)), atol=0.05)
    assert found.std() < 0.2 * images.std()
    np.testing.assert_allclose(faithfulness.blur(np.ones((1, 8, 8, 1))), 1.0, rtol=1e-5)


def test_mass_is_counted_by_halves():
    maps = np.zeros((2, 2, 4), np.float32)
    maps[0, 0, 0], maps[0, 1, 3] = 3, 1
    np.testing.assert_allclose(faithfulness.share_on(maps, "left"), [0.75, 0.0])
    np.testing.assert_allclose(faithfulness.share_on(maps, "right"), [0.25, 0.0])


def test_two_photos_stand_side_by_side():
    left, right = np.full((10, 30, 3), 200, np.uint8), np.full((50, 20, 3), 30, np.uint8)
    found = faithfulness.side_by_side(left, right, (16, 24))
    chex.assert_shape(found, (16, 24, 3))
    assert (found[:, :12] == 200).all() and (found[:, 12:] == 30).all()


def test_squares_divide_the_image_into_about_fourteen():
    sizes = {(224, 224): 16, (32, 32): 2, (32, 48): 2, (28, 28): 2, (33, 47): 1, (256, 192): 16, (384, 384): 24}
    assert {size: faithfulness.cell_of(size) for size in sizes} == sizes


def test_the_scores_of_a_model_that_sees_one_square_only():
    """Its probability is known at every step: the map of that square falls and rises at once, a chance one later."""
    images = np.full((1, 28, 28, 1), 3.0, np.float32)
    images[0, 4:6, 8:10] += np.array([[1, -1], [-1, 1]])[..., None]  # blurred, it is 3 as everything
    spot = np.zeros((28, 28, 1, 2), np.float32)
    spot[4:6, 8:10, 0, 1] = np.array([[1, -1], [-1, 1]])
    model, variables = Linear(num_classes=2, in_channels=1), {"params": {"head": {"kernel": spot.reshape(784, 2)}}}
    maps = np.zeros((1, 28, 28), np.float32)
    maps[0, 4:6, 8:10] = 1
    found = faithfulness.scores(model, variables, images, maps, 1)
    high, low = 1 / (1 + np.exp(-4.0)), 0.5  # logits 4 and 0
    blurred = faithfulness.blur(images)[0, 4:6, 8:10, 0]
    begin = 1 / (1 + np.exp(-(blurred[0, 0] - blurred[0, 1] - blurred[1, 0] + blurred[1, 1])))
    order = list(np.random.default_rng(0).permutation(196))
    turn = order.index(2 * 14 + 4) // 14 + 1  # of 14 steps, the first after which the square is another
    for area, start, end, at in (
        (found.deletion, high, low, 1),
        (found.insertion, begin, high, 1),
        (found.random_deletion, high, low, turn),
        (found.random_insertion, begin, high, turn),
    ):
        line = np.where(np.arange(15) < at, start, end)
        np.testing.assert_allclose(area, [(line[1:] + line[:-1]).mean() / 2], rtol=1e-4)
    several = faithfulness.scores(model, variables, images, maps, 0, several=True)
    np.testing.assert_allclose(several.deletion, 0.5, rtol=1e-6)  # a sigmoid of the logit 0, whatever the other is
