"""ResNet: each block alone, sizes, dtypes, stems, train and eval; numbers equal to timm's."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.models import resnet
from jaxvit.models.resnet_variants import VARIANTS
from tests.helpers.convnets import apply, assert_parity, draw, images_of, outputs_of, visit

TINY = {"block": "basic", "layers": (1, 2), "channels": (8, 16), "num_classes": 5, "image_size": 32}


def tiny(**fields):
    return resnet.ResNet(**{**TINY, "stem": "cifar", **fields})


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize(
    "stage, fields",
    [
        (0, {}),
        (1, {}),
        (1, {"avg_down": True, "attn_layer": "se"}),
        (1, {"aa_layer": "blur", "attn_layer": "eca"}),
        (1, {"norm_layer": "groupnorm", "down_kernel_size": 3}),
    ],
)
def test_blocks_alone(kind, stage, fields):
    block = resnet.ResNet(block=kind, layers=(1, 1), channels=(32, 32), **fields).make_block(stage, 0)()
    x = images_of(9, 6, channels=32)
    y = jax.eval_shape(functools.partial(block.apply, train=False), draw(block, x), x)
    stride = stage + 1
    chex.assert_shape(y, (3, -(-9 // stride), -(-6 // stride), 32 if kind == "basic" else 128))


def test_widths_of_a_grouped_bottleneck():
    block = resnet.ResNet(cardinality=32, base_width=4, block_reduce_first=2).make_block(0, 0)()
    shapes = jax.eval_shape(block.init, jax.random.key(0), images_of(channels=64))["params"]
    chex.assert_shape(shapes["conv1"]["kernel"], (1, 1, 64, 64))  # 32 groups of 4, halved
    chex.assert_shape(shapes["conv2"]["kernel"], (3, 3, 2, 128))
    chex.assert_shape(shapes["conv3"]["kernel"], (1, 1, 128, 256))


@pytest.mark.parametrize("fields", [{}, {"stem": "imagenet"}, {"block": ("basic", "bottleneck"), "aa_layer": "blur"}])
@pytest.mark.parametrize("size", [(17, 30), (33, 21)])
def test_odd_and_non_square_sizes(fields, size):
    model, images = tiny(**fields), images_of(*size)
    logits = jax.eval_shape(model.apply, draw(model, images), images)
    chex.assert_shape(logits, (3, 5))
    chex.assert_type(logits, jnp.float32)


def test_cifar_stem_keeps_the_resolution_and_the_imagenet_stem_quarters_it():
    assert outputs_of(tiny(), images_of(32, 32))["layer1_0"] == (3, 32, 32, 8)
    shapes = outputs_of(tiny(stem="imagenet"), images_of(32, 32))
    assert shapes["conv1"] == (3, 16, 16, 64) and shapes["layer1_0"] == (3, 8, 8, 8)
    deep = outputs_of(tiny(stem="imagenet", stem_type="deep_tiered", stem_width=16), images_of(32, 32))
    assert [deep[f"conv1_{i}"][-1] for i in (0, 3, 6)] == [12, 16, 32]


def test_last_feature_map_is_the_output_of_a_module():
    shapes = outputs_of(tiny(), images_of(32, 32))
    assert shapes["features"] == shapes["layer2_1"] == (3, 16, 16, 16)


@pytest.mark.parametrize(("pool", "width"), [("avg", 16), ("catavgmax", 32)])
def test_without_classes_the_pooled_features_come_out(pool, width):
    model = tiny(num_classes=0, global_pool=pool)
    features = jax.eval_shape(model.apply, draw(model, images_of()), images_of())
    chex.assert_shape(features, (3, width))
    chex.assert_type(features, jnp.float32)


def test_bf16_computes_in_bf16_and_keeps_float32_parameters_and_logits():
    model, images = tiny(dtype=jnp.bfloat16, attn_layer="se"), images_of()
    variables = draw(model, images)
    chex.assert_trees_all_equal_dtypes(jax.tree.map(jnp.asarray, variables), jax.tree.map(jnp.float32, variables))
    logits = apply(model, variables, images)
    chex.assert_type(logits, jnp.float32)
    exact = apply(tiny(attn_layer="se"), variables, images)
    assert 0 < np.abs(logits - exact).max() < 0.05 * np.abs(exact).max() + 0.05


def test_batch_stats_move_only_in_train_mode():
    model, images = tiny(), images_of()
    variables = draw(model, images)
    logits, kept = apply(model, variables, images, mutable=["batch_stats"])
    chex.assert_trees_all_equal(kept["batch_stats"], variables["batch_stats"])
    np.testing.assert_array_equal(logits, apply(model, variables, images))
    _, moved = apply(model, variables, images, train=True, mutable=["batch_stats"])
    for old, new in zip(*map(jax.tree.leaves, (variables["batch_stats"], moved["batch_stats"])), strict=True):
        assert np.abs(old - new).min() > 0
    mean, images_mean = moved["batch_stats"]["bn1"]["mean"], variables["batch_stats"]["bn1"]["mean"]
    batch = (mean - 0.9 * images_mean) / 0.1  # momentum 0.9: a tenth of the batch's own mean
    conv1 = nn.Conv(64, (3, 3), padding=1, use_bias=False).apply({"params": variables["params"]["conv1"]}, images)
    np.testing.assert_allclose(batch, np.asarray(conv1).mean((0, 1, 2)), rtol=0, atol=2e-5)


def test_drop_path_and_dropout_act_in_train_mode_only():
    images = images_of()
    plain, dropped = tiny(), tiny(drop_path_rate=0.6, drop_rate=0.3)
    variables = draw(plain, images)
    np.testing.assert_array_equal(apply(plain, variables, images), apply(dropped, variables, images))

    @jax.jit
    def train(key):
        return dropped.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    one, again, two = (train(jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 0
    # Rate 0 is the identity: no key is asked for.
    apply(plain, variables, images, train=True, mutable=["batch_stats"])


def test_stochastic_depth_rises_linearly():
    rates = []
    model = resnet.ResNet(block="basic", layers=(2, 1, 1, 1), drop_path_rate=0.4)

    def see(module, _):
        if isinstance(module, resnet.BasicBlock):
            rates.append(module.drop_path_rate)

    visit(model, images_of(), see)
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.3, 0.4])


def test_remat_changes_nothing():
    images = images_of()
    variables = draw(tiny(), images)

    def gradient(model):
        def loss(params):
            logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return (logits**2).sum()

        return jax.jit(jax.grad(loss))(variables["params"])

    chex.assert_trees_all_equal_structs(variables, draw(tiny(remat=True), images))
    chex.assert_trees_all_close(gradient(tiny()), gradient(tiny(remat=True)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_last_starts_a_block_as_its_shortcut(zero):
    block = tiny(zero_init_last=zero).make_block(0, 0)()
    x = images_of(6, 6, channels=8)
    y = block.apply(block.init(jax.random.key(0), x), x)
    assert np.array_equal(y, np.maximum(x, 0)) == zero


def test_the_table_uses_fields_of_the_class():
    fields = {f.name for f in dataclasses.fields(resnet.ResNet)}
    assert len(VARIANTS) == 81
    for name, entry in VARIANTS.items():
        assert set(entry) <= fields, name


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("resnext50_32x4d", 25_028_904), ("test_resnet", 469_688)],
)
def test_parameter_counts(name, count):
    model = resnet.ResNet(**VARIANTS[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert set(shapes) == {"params", "batch_stats"}
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stem": "cifra"}, "stem='cifra' is not known; expected one of 'imagenet', 'cifar'"),
        ({"stem": "imagenet", "stem_type": "tiered"}, "stem_type='tiered'.*deep_tiered"),
        ({"block": "bottle"}, "block='bottle'.*Did you mean 'bottleneck'"),
        ({"layers": (1, 1, 1)}, "differ in the number of stages"),
        ({"attn_layer": "cbam"}, "attn_layer='cbam'"),
        ({"global_pool": "mean"}, "global_pool='mean'"),
        ({"cardinality": 2}, "use block='bottleneck'"),
        ({"in_channels": 1}, "images have 3 channels"),
        ({"stem": "imagenet", "aa_layer": "avg", "layers": (1, 1, 1), "channels": (8, 8, 8)}, "multiples of 32"),
    ],
)
def test_wrong_fields_are_answered(fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(tiny(**fields).init, jax.random.key(0), images_of(24, 24))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "size", "train"),
    [
        ("test_resnet", (64, 64), True),
        ("resnet18", (65, 50), False),
        ("seresnext26t_32x4d", (75, 50), True),
        ("ecaresnet50d_pruned", (64, 64), False),
        ("resnetblur18", (70, 45), False),
        ("resnetaa34d", (64, 64), False),
        ("resnetrs50", (64, 64), False),
        ("resnet50_gn", (64, 64), False),
    ],
)
def test_parity_with_timm(name, size, train):
    timm = pytest.importorskip("timm")
    model = resnet.ResNet(**VARIANTS[name])
    assert_parity(model, timm.create_model(name), size=size, train=train)
