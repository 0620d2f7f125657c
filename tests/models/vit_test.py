"""Tests of the vision transformers: shapes, properties, errors, and parity with timm where it is installed."""

import statistics

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.models.layers import trunc_normal
from jaxvit.models.vit import VisionTransformer
from tests.helpers.timm_vit import assert_same_logits, renamed, timm_pair

SMALL = {"num_classes": 5, "image_size": (16, 24), "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 4}


def tiny(**fields) -> VisionTransformer:
    return VisionTransformer(**(SMALL | fields))


def draw(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def start(model: nn.Module, x) -> dict:
    """Variables of a model's shapes, drawn so that norm scales are near one and no bias is zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(2)

    def value(path, leaf):
        near = 1.0 if path[-1].key in ("scale", "gamma") else 0.0
        return (near + rng.standard_normal(leaf.shape) * 0.15).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(value, shapes)


def apply(model: nn.Module, variables, x, key=None, **options):
    """`model.apply` as one compiled function (op by op is slower)."""
    rngs = None if key is None else {"dropout": key}
    return jax.jit(lambda v, x: model.apply(v, x, rngs=rngs, **options))(variables, x)


@pytest.mark.parametrize(
    ("fields", "num_positions"),
    [
        ({}, 7),
        ({"distilled": True}, 8),
        ({"reg_tokens": 4}, 11),
        ({"reg_tokens": 4, "no_embed_class": True}, 6),
        ({"class_token": False, "global_pool": "avg"}, 6),
        ({"image_size": (8, 40)}, 6),
        ({"patch_size": (4, 8)}, 13),
    ],
)
def test_position_table(fields, num_positions):
    model = tiny(**fields)
    x = jnp.zeros((1, *model.image_size, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    chex.assert_shape(params["pos_embed"], (1, num_positions, 32))


@pytest.mark.parametrize("global_pool", ["token", "avg", "max", "avgmax", "map", "prr"])
@pytest.mark.parametrize(("num_classes", "width"), [(5, 5), (0, 32)])
def test_pooling_gives_float32_logits_or_features(global_pool, num_classes, width):
    model = tiny(global_pool=global_pool, num_classes=num_classes, dtype=jnp.bfloat16)
    y, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), draw((2, 16, 24, 3)))
    chex.assert_shape(y, (2, width))
    chex.assert_type(y, jnp.float32)


@pytest.mark.parametrize("fields", [{}, {"norm_layer": "rmsnorm", "qk_norm": True}, {"attn_layer": "diff"}])
def test_bfloat16_computes_in_bfloat16_with_float32_parameters(fields):
    x = draw((2, 16, 24, 3))
    model = tiny(init_values=1.0, dtype=jnp.bfloat16, **fields)
    variables = start(model, x)
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    y, seen = apply(model, variables, x, capture_intermediates=True, mutable=["intermediates"])
    assert seen["intermediates"]["blocks_0"]["__call__"][0].dtype == jnp.bfloat16
    chex.assert_trees_all_close(y, apply(model.clone(dtype=None), variables, x), atol=0.05)


def test_training_without_rates_is_evaluation():
    x = draw((2, 16, 24, 3))
    model = tiny()
    variables = start(model, x)
    chex.assert_trees_all_equal(apply(model, variables, x, train=True), apply(model, variables, x))


@pytest.mark.parametrize("rate", ["drop", "pos_drop", "patch_drop", "proj_drop", "attn_drop", "drop_path"])
def test_training_draws_from_its_key_and_evaluation_does_not(rate):
    x = draw((2, 16, 24, 3))
    model = tiny(depth=2 if rate == "drop_path" else 1, **{f"{rate}_rate": 0.5})  # the first block drops none
    variables = start(model, x)
    train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}))
    one, again, other = (np.asarray(train(jax.random.key(i))) for i in (0, 0, 3))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-4
    jax.eval_shape(model.apply, variables, x)  # asks for no key


def test_no_initial_weight_lies_at_the_cut():
    """This key draws a uniform 0, which timm's and Flax's truncated normal turn into -2, a hundred deviations out."""
    key, shape = jax.random.key(7), (2**18,)
    usual = np.asarray(nn.initializers.truncated_normal(stddev=0.02, lower=-100.0, upper=100.0)(key, shape))
    ours = np.asarray(trunc_normal(key, shape))
    assert (usual < -1).sum() == 1 and ours.min() > -0.12
    np.testing.assert_array_equal(ours[usual > -1], usual[usual > -1])
    np.testing.assert_allclose(ours[usual < -1], 0.02 * statistics.NormalDist().inv_cdf(2**-24), rtol=1e-6)


def test_evaluation_is_independent_of_the_batch():
    x = draw((3, 16, 24, 3))
    model = tiny()
    variables = start(model, x)
    evaluate = jax.jit(model.apply)
    together = evaluate(variables, x)
    alone = np.concatenate([evaluate(variables, x[i : i + 1]) for i in range(3)])
    chex.assert_trees_all_close(together, alone, atol=1e-5)


@pytest.mark.parametrize("pos_embed", ["learn", "none"])
def test_only_positions_tell_the_order_of_patches(pos_embed):
    x = draw((1, 16, 24, 3))
    swapped = np.concatenate([x[:, 8:], x[:, :8]], axis=1)  # the two rows of patches
    model = tiny(pos_embed=pos_embed)
    logits = np.asarray(apply(model, start(model, x), np.concatenate([x, swapped])))
    assert (np.abs(logits[0] - logits[1]).max() > 1e-3) == (pos_embed == "learn")


def test_one_trace():
    model, x = tiny(), draw((2, 16, 24, 3))
    variables = start(model, x)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def evaluate(variables, images):
        return model.apply(variables, images)

    chex.assert_trees_all_equal(evaluate(variables, x), evaluate(variables, x.copy()))


@pytest.mark.parametrize("fields", [{}, {"remat": True}, {"global_pool": "map"}])
def test_attention_weights_can_be_watched(fields):
    x = draw((2, 16, 24, 3))
    model = tiny(**fields)
    assert set(jax.eval_shape(model.init, jax.random.key(0), x)) == {"params"}
    variables = start(model, x)
    logits, seen = apply(model, variables, x, mutable=["intermediates"])
    (weights,) = seen["intermediates"]["blocks_0"]["attn"]["attn_weights"]
    chex.assert_shape(weights, (2, 4, 7, 7))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    chex.assert_trees_all_close(logits, apply(model, variables, x), atol=1e-5)


def test_distilled_heads():
    x = draw((2, 16, 24, 3))
    model = tiny(distilled=True)
    variables = start(model, x)
    pair = apply(model.clone(distilled_training=True), variables, x, train=True)
    chex.assert_shape(pair, (2, 5))
    assert len(pair) == 2 and jnp.abs(pair[0] - pair[1]).max() > 1e-3
    chex.assert_trees_all_close(apply(model, variables, x), (pair[0] + pair[1]) / 2, atol=1e-6)
    chex.assert_shape(jax.eval_shape(lambda v: model.apply(v, x, train=True), variables), (2, 5))


def test_initialisation():
    model = tiny(image_size=32, embed_dim=192, num_classes=1000, reg_tokens=2, init_values=0.1)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    block = params["blocks_0"]
    for kernel in (block["attn"]["qkv"]["kernel"], block["mlp"]["fc1"]["kernel"], params["head"]["kernel"]):
        np.testing.assert_allclose(np.std(kernel), 0.02, rtol=0.03)
    for zero in (block["attn"]["qkv"]["bias"], block["mlp"]["fc2"]["bias"], params["head"]["bias"]):
        chex.assert_trees_all_equal(zero, jnp.zeros_like(zero))
    proj, bound = params["patch_embed"]["proj"], (8 * 8 * 3) ** -0.5
    for leaf in (proj["kernel"], proj["bias"]):
        assert 0.9 * bound < jnp.abs(leaf).max() <= bound
    np.testing.assert_allclose(np.std(params["reg_token"]), 1e-6, rtol=0.2)
    chex.assert_trees_all_equal(block["ls1"]["gamma"], jnp.full(192, 0.1))


@pytest.mark.parametrize(
    ("fields", "size", "words"),
    [
        ({"image_size": 30, "patch_size": 16}, (30, 30), "image 30x30 is not divisible by patch size 16x16"),
        ({}, (16, 22), "image 16x22 is not divisible by patch size 8x8; the nearest image_size is 16x24"),
        ({}, (24, 16), "does not fit the model's image_size 16x24"),
        ({"in_channels": 1}, (16, 24), r"expected \[b, h, w, 1\]"),
        ({"num_heads": 5}, (16, 24), "embed_dim=32 is not divisible by num_heads=5"),
        ({"attn_layer": "diff", "num_heads": 32}, (16, 24), "twice num_heads=64"),
        ({"global_pool": "average"}, (16, 24), "Did you mean 'avg'"),
        ({"act_layer": "gelu_tan"}, (16, 24), "Did you mean 'gelu_tanh'"),
        ({"class_token": False}, (16, 24), "needs class_token=True"),
        ({"distilled": True, "reg_tokens": 1}, (16, 24), "reg_tokens=0"),
        ({"patch_size": 0}, (16, 24), "patch_size=0 is not positive"),
        ({"depth": -1}, (16, 24), "depth=-1 is negative"),
        ({"drop_path_rate": 1.5}, (16, 24), "not a rate"),
        ({"block_fn": "parallel_scaling", "scale_attn_norm": True}, (16, 24), "has no scale norms"),
        ({"block_fn": "diff_parallel_scaling", "scale_mlp_norm": True}, (16, 24), "has no scale norms"),
    ],
)
def test_fields_that_do_not_fit(fields, size, words):
    with pytest.raises(UserError, match=words):
        jax.eval_shape(tiny(**fields).init, jax.random.key(0), jnp.zeros((1, *size, 3)))


# Parity with timm. A numeric part of timm's names belongs to the part before it.


@pytest.mark.torch
@pytest.mark.parametrize(
    "fields",
    [
        {"qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True},
        {"proj_bias": False, "qkv_bias": False, "pre_norm": True},
        {"attn_layer": "diff", "qk_norm": True, "scale_attn_norm": True},
        {"global_pool": "avgmax", "fc_norm": False},
        {"global_pool": "max", "pool_include_prefix": True},
        {"global_pool": "prr"},
        {"global_pool": "avg", "final_norm": False, "reg_tokens": 2},
        {"global_pool": ""},
        {"pos_embed": "none", "reg_tokens": 2},
        {"in_channels": 1, "patch_size": (4, 8)},
        {"num_classes": 0},
        {"mlp_ratio": 2.7, "num_heads": 4, "embed_dim": 48},
    ],
    ids=str,
)
def test_options_equal_timm(fields):
    small = {"image_size": (16, 24), "patch_size": 8, "embed_dim": 64, "depth": 2, "num_classes": 7}
    assert_same_logits(*timm_pair("test_vit", **(small | fields | {"dynamic_img_size": False})), (16, 24))


@pytest.mark.torch
@pytest.mark.parametrize("no_embed_class", [False, True])
@pytest.mark.parametrize(("size", "pad"), [((48, 16), False), ((64, 80), False), ((50, 65), True), ((7, 64), True)])
def test_dynamic_image_size_equals_timm(size, pad, no_embed_class):
    fields = {"image_size": (48, 64), "depth": 2, "no_embed_class": no_embed_class, "num_classes": 7}
    fields |= {"dynamic_img_size": True, "dynamic_img_pad": pad}
    assert_same_logits(*timm_pair("test_vit", **fields), size)


@pytest.mark.torch
def test_distilled_training_equals_timm():
    torch = pytest.importorskip("torch")
    name, size = "deit_tiny_distilled_patch16_224", (32, 48)
    module, model, variables = timm_pair(name, image_size=size, depth=1, num_classes=7)
    module.train().set_distilled_training()
    x = np.asarray(draw((2, *size, 3)))
    expected = [y.detach().numpy() for y in module(torch.tensor(x).permute(0, 3, 1, 2))]
    pair = apply(model.clone(distilled_training=True), variables, x, train=True)
    for logits, reference in zip(pair, expected, strict=True):
        np.testing.assert_allclose(logits, reference, atol=1e-4)


@pytest.mark.torch
def test_gradients_equal_timm():
    torch = pytest.importorskip("torch")
    module, model, variables = timm_pair("test_vit2", image_size=(32, 48), depth=2, num_classes=7)
    x = np.asarray(draw((4, 32, 48, 3)))
    labels = np.array([0, 3, 6, 2])
    logits = module(torch.tensor(x).permute(0, 3, 1, 2))
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    expected = renamed({name: p.grad for name, p in module.named_parameters()})

    def loss(variables):
        log_probs = jax.nn.log_softmax(model.apply(variables, x, train=True))
        return -jnp.mean(log_probs[jnp.arange(4), labels])

    def close(ours, theirs):
        assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs) + 1e-7

    jax.tree.map(close, jax.jit(jax.grad(loss))(variables)["params"], expected)


def test_fixed_positions_are_big_visions():
    """Against its formula by hand (models/vit.py, posemb_sincos_2d), one number at a time."""
    model = tiny(embed_dim=12, num_heads=2, pos_embed="sincos2d")
    table = model.init(jax.random.key(0), jnp.zeros((1, 16, 24, 3)))["params"]["pos_embed"]
    assert table.shape == (1, 1 + 6, 12) and not table[0, 0].any()
    for row in range(2):
        for column in range(3):
            waves = [1.0, 1e-2, 1e-4]
            want = [f(place * w) for place in (column, row) for f in (np.sin, np.cos) for w in waves]
            np.testing.assert_allclose(table[0, 1 + 3 * row + column], want, atol=1e-6)
