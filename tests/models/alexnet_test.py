"""AlexNet: sizes, dtypes, dropout, counts; numbers equal to torchvision's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.models import alexnet
from tests.helpers.convnets import apply, assert_parity, draw, images_of, outputs_of


def tiny(**fields):
    return alexnet.AlexNet(**{"num_classes": 5, "head_hidden_size": 8, "image_size": 64, **fields})


@pytest.fixture(scope="module")
def variables():
    return draw(tiny(), images_of(64, 64, 2))


@pytest.mark.parametrize("size", [(63, 63), (64, 97), (224, 224)])
def test_odd_and_non_square_sizes(variables, size):
    logits = jax.eval_shape(tiny().apply, variables, images_of(*size))
    chex.assert_shape(logits, (3, 5))
    chex.assert_type(logits, jnp.float32)
    features = jax.eval_shape(tiny(num_classes=0).apply, variables, images_of(*size))
    chex.assert_shape(features, (3, 8))


def test_too_small_images_are_answered():
    with pytest.raises(UserError, match="62x80 .* 63x63"):
        jax.eval_shape(tiny().init, jax.random.key(0), images_of(62, 80))


def test_last_feature_map_is_the_output_of_a_module():
    assert outputs_of(tiny(), images_of(224, 128))["features"] == (3, 6, 3, 256)


def test_bf16_dropout_and_remat(variables):
    def logits(model, **kwargs):
        return apply(model, variables, images_of(64, 64, 2), **kwargs)

    exact, half = logits(tiny()), logits(tiny(dtype=jnp.bfloat16))
    chex.assert_type(half, jnp.float32)
    assert 0 < np.abs(half - exact).max() < 0.05 * np.abs(exact).max()
    np.testing.assert_allclose(logits(tiny(remat=True)), exact, rtol=1e-5, atol=1e-6)
    one, two = (logits(tiny(), train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 1))
    assert np.abs(one - two).max() > 0
    np.testing.assert_allclose(logits(tiny(drop_rate=0.0), train=True), exact, rtol=1e-5, atol=1e-6)


def test_names_and_count_are_torchvisions():
    shapes = jax.eval_shape(alexnet.AlexNet().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert set(shapes) == {"params"}
    names = {f"features_{i}" for i in (0, 3, 6, 8, 10)} | {f"classifier_{i}" for i in (1, 4, 6)}
    assert set(shapes["params"]) == names
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 61_100_840


@pytest.mark.torch
@pytest.mark.parametrize("size", [(64, 64), (96, 224)])
def test_parity_with_torchvision(size):
    torchvision = pytest.importorskip("torchvision")
    assert_parity(alexnet.AlexNet(), torchvision.models.alexnet(), size=size)
