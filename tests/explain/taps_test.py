"""Reading and perturbing a layer's output."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.explain import taps
from tests.helpers.explained import DEIT, SWIN, make


@pytest.mark.parametrize("name", (DEIT, SWIN))
def test_the_gradient_is_that_of_the_layer(name):
    """A step along the gradient at a layer raises the logit by the square of its norm (first order, float64)."""
    model, variables, images = make(name)
    layer = "layers_1/blocks_0/norm2" if name == SWIN else "blocks_1/norm1"
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
        images = jnp.asarray(images[:1], jnp.float64)

        @jax.jit
        def logit(delta):
            return taps.run(model, variables, images, layer, delta)[0][0, 1].astype(jnp.float64)

        output = jax.eval_shape(lambda: taps.run(model, variables, images, layer)[1])
        gradient = jax.jit(jax.grad(logit))(jnp.zeros(output.shape, output.dtype))
        assert float(jnp.abs(gradient).max()) > 0
        step = 1e-2 / jnp.linalg.norm(gradient)
        rise = (logit(step * gradient) - logit(-step * gradient)) / (2 * step)
    np.testing.assert_allclose(rise, np.sum(np.square(gradient)), rtol=2e-3)


def test_cells_beyond_the_border_of_the_image_are_cut_off():
    model = make(SWIN)[0]
    maps = np.zeros((1, 3, 2), np.float32)  # cells of 16 pixels on an image of 36x32: 4 rows of the last are real
    maps[:, 2] = 1
    found = np.asarray(taps.to_pixels(model, maps, (36, 32)))
    chex.assert_shape(found, (1, 36, 32))
    assert found[0, 23, 0] < 0.03 and found[0, 35, 0] < 1


def test_a_flat_map_is_all_zeros():
    chex.assert_trees_all_equal(taps.to_unit(jnp.full((2, 3, 4), 7.0)), jnp.zeros((2, 3, 4)))
