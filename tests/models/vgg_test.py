"""VGG: head and stages alone, 32x32 and odd sizes, dtypes, train and eval; numbers equal to timm's."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.models import vgg
from tests.helpers.convnets import apply, assert_parity, draw, images_of, outputs_of

TINY = {"cfg": (8, "M", 12, 12, "M"), "num_classes": 5, "head_hidden_size": 16, "image_size": 32}


def tiny(**fields):
    return vgg.VGG(**{**TINY, **fields})


@pytest.fixture(scope="module")
def variables():
    return draw(tiny(norm_layer="batchnorm"), images_of())


@pytest.mark.parametrize(("size", "out"), [((1, 1), (1, 1)), ((7, 7), (1, 1)), ((5, 9), (1, 3)), ((9, 8), (3, 2))])
def test_conv_mlp_alone(size, out):
    mlp = vgg.ConvMlp(16, 12)
    y, _ = jax.eval_shape(mlp.init_with_output, jax.random.key(0), jnp.zeros((2, *size, 8)))
    chex.assert_shape(y, (2, *out, 12))


def test_a_one_pixel_map_is_repeated_to_seven():
    mlp, x = vgg.ConvMlp(16, 12), jnp.ones((2, 1, 1, 8)) * jnp.arange(8.0)[None, None, None]
    variables = draw(mlp, x)
    repeated = jnp.broadcast_to(x, (2, 7, 7, 8))
    np.testing.assert_allclose(mlp.apply(variables, x), mlp.apply(variables, repeated), rtol=1e-5)


def test_the_matmul_of_a_seven_pixel_map_equals_the_convolution():
    mlp, x = vgg.ConvMlp(16, 12), images_of(7, 7)
    variables = draw(mlp, x)
    wider = np.concatenate([x, x[:, :, :1]], axis=2)  # 7x8: two windows, the first of which is x
    np.testing.assert_allclose(mlp.apply(variables, wider)[:, :, :1], mlp.apply(variables, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("num_classes", "width"), [(5, 5), (0, 16)])
def test_head_alone(num_classes, width):
    head = vgg.ClassifierHead(num_classes)
    y, _ = jax.eval_shape(head.init_with_output, jax.random.key(0), jnp.zeros((2, 3, 2, 16)))
    chex.assert_shape(y, (2, width))


def test_names_are_timms():
    norm = jax.eval_shape(tiny(norm_layer="batchnorm").init, jax.random.key(0), images_of())
    assert set(norm["params"]) == {f"features_{i}" for i in (0, 1, 4, 5, 7, 8)} | {"pre_logits", "head"}
    assert set(norm["batch_stats"]) == {"features_1", "features_5", "features_8"}
    plain = jax.eval_shape(tiny().init, jax.random.key(0), images_of())
    assert set(plain) == {"params"}
    assert set(plain["params"]) == {"features_0", "features_3", "features_5", "pre_logits", "head"}


@pytest.mark.parametrize("size", [(32, 32), (17, 31), (40, 36)])
def test_odd_and_non_square_sizes(variables, size):
    logits = jax.eval_shape(tiny(norm_layer="batchnorm").apply, variables, images_of(*size))
    chex.assert_shape(logits, (3, 5))
    chex.assert_type(logits, jnp.float32)


def test_last_feature_map_is_the_output_of_a_module():
    assert outputs_of(tiny(), images_of(32, 24))["features"] == (3, 8, 6, 12)


def test_bf16_computes_in_bf16_and_returns_float32(variables):
    exact = apply(tiny(norm_layer="batchnorm"), variables, images_of())
    logits = apply(tiny(norm_layer="batchnorm", dtype=jnp.bfloat16), variables, images_of())
    chex.assert_type(logits, jnp.float32)
    assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()


def test_train_mode_moves_batch_stats_and_drops(variables):
    model, images = tiny(norm_layer="batchnorm", drop_rate=0.5), images_of()
    logits, kept = apply(model, variables, images, mutable=["batch_stats"])
    chex.assert_trees_all_equal(kept["batch_stats"], variables["batch_stats"])
    np.testing.assert_array_equal(logits, apply(tiny(norm_layer="batchnorm"), variables, images))

    @jax.jit
    def train(key):
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    (one, moved), (two, _) = train(jax.random.key(0)), train(jax.random.key(1))
    assert np.abs(one - two).max() > 0
    for old, new in zip(*map(jax.tree.leaves, (variables["batch_stats"], moved["batch_stats"])), strict=True):
        assert np.abs(old - new).max() > 0


def test_remat_changes_nothing(variables):
    def gradient(model):
        def loss(params):
            return (model.apply({**variables, "params": params}, images_of()) ** 2).sum()

        return jax.jit(jax.grad(loss))(variables["params"])

    plain, remat = (gradient(tiny(norm_layer="batchnorm", remat=r)) for r in (False, True))
    chex.assert_trees_all_close(plain, remat, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "count"), [("vgg11", 132_863_336), ("vgg16_bn", 138_365_992)])
def test_parameter_counts(name, count):
    model = vgg.VGG(**vgg.VARIANTS[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count


def test_the_table_uses_fields_of_the_class():
    fields = {f.name for f in dataclasses.fields(vgg.VGG)}
    assert len(vgg.VARIANTS) == 8
    assert all(set(entry) <= fields for entry in vgg.VARIANTS.values())


def test_too_small_images_are_answered():
    with pytest.raises(UserError, match="3x16 .* 4x4"):
        jax.eval_shape(tiny().init, jax.random.key(0), images_of(3, 16))


@pytest.mark.torch
@pytest.mark.parametrize(("name", "size", "train"), [("vgg11", (32, 32), False), ("vgg13_bn", (70, 256), True)])
def test_parity_with_timm(name, size, train):
    timm = pytest.importorskip("timm")
    # A narrow head: two hidden layers of 4096 would take half a gigabyte.
    reference = timm.create_model(name, mlp_ratio=1 / 64)
    assert_parity(vgg.VGG(**vgg.VARIANTS[name], mlp_ratio=1 / 64), reference, size=size, train=train)
