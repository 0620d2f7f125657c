"""Layers of a ViT alone."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.models import vit_layers
from jaxvit.models.layers import Mlp
from jaxvit.models.vit import VisionTransformer
from jaxvit.models.vit_layers import MLPS, Attention, AttentionPoolLatent, LayerScale, PatchEmbed

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


@pytest.mark.parametrize("kind", MLPS)
def test_mlp_keeps_the_shape(kind):
    mlp = MLPS[kind](48, "silu", use_bias=False, norm=vit_layers.default_norm)
    x = draw((2, 5, 24))
    variables = start(mlp, x)
    chex.assert_shape(apply(mlp, variables, x), (2, 5, 24))
    assert not any("bias" in variables["params"][f] for f in variables["params"] if f.startswith("fc"))


def test_parts_alone():
    x = draw((2, 7, 24))
    pool = AttentionPoolLatent(num_heads=3, mlp=partial(Mlp, hidden_dim=96))
    chex.assert_shape(apply(pool, start(pool, x), x), (2, 24))
    scale = LayerScale(0.5)
    chex.assert_trees_all_close(scale.apply(scale.init(jax.random.key(0), x), x), 0.5 * x)
    chex.assert_shape(vit_layers.refine(x, 3), (2, 7, 24))
    chosen = vit_layers.draw_patches(jax.random.key(0), (2, 6), 0.5)
    kept = vit_layers.take_patches(x, chosen, num_prefix=1)
    chex.assert_shape(kept, (2, 4, 24))
    chex.assert_trees_all_equal(kept[:, 0], x[:, 0])
    chex.assert_trees_all_equal(kept[1, 2], x[1, 1 + chosen[1, 1]])


def test_attention_by_hand():
    x = draw((1, 3, 4))
    attention = Attention(heads=partial(vit_layers.multi_head, num_heads=2))
    variables = start(attention, x)
    p = jax.tree.map(np.asarray, variables["params"])
    qkv = (np.asarray(x[0]) @ p["qkv"]["kernel"] + p["qkv"]["bias"]).reshape(3, 3, 2, 2)  # [n, qkv, heads, hd]
    heads = []
    for h in range(2):
        q, k, v = (qkv[:, i, h] for i in range(3))
        weights = np.exp(q @ k.T / np.sqrt(2))
        heads.append(weights / weights.sum(1, keepdims=True) @ v)
    expected = np.concatenate(heads, axis=1) @ p["proj"]["kernel"] + p["proj"]["bias"]
    np.testing.assert_allclose(apply(attention, variables, x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (19, 30)])
def test_patch_matmul_is_the_strided_convolution(size):
    x = draw((2, *size, 3))
    embed = PatchEmbed(12, (8, 4))
    variables = start(embed, x)
    proj = variables["params"]["proj"]
    expected = jax.lax.conv_general_dilated(
        x, proj["kernel"], (8, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = apply(embed, variables, x)
    chex.assert_shape(y, (2, size[0] // 8, size[1] // 4, 12))
    chex.assert_trees_all_close(y, expected + proj["bias"].reshape(1, 1, 1, -1), atol=1e-5)


@pytest.mark.parametrize("pos_embed", ["learn", "none"])
def test_patches_are_dropped_with_and_without_positions(pos_embed):
    x = draw((2, 16, 24, 3))
    model = tiny(depth=1, patch_drop_rate=0.5, pos_embed=pos_embed, global_pool="")
    variables, rngs = start(model, x), {"dropout": jax.random.key(0)}
    kept = jax.eval_shape(lambda v: model.apply(v, x, train=True, rngs=rngs), variables)
    assert (kept.shape[1], jax.eval_shape(model.apply, variables, x).shape[1]) == (1 + 3, 1 + 6)


def test_differential_attention_drops_each_of_its_maps():
    x, n = draw((4, 8, 16)), 8
    module = Attention(heads=partial(vit_layers.differential, num_heads=2, drop_rate=0.5))
    params = jax.tree.map(jnp.zeros_like, module.init(jax.random.key(0), x))  # all weights of a map are 1 / n
    rngs = {"dropout": jax.random.key(1)}
    _, seen = module.apply(params, x, train=True, rngs=rngs, mutable=["intermediates"])
    balance = 0.8 - 0.6
    wanted = np.array([0, 1, -balance, 1 - balance]) * 2 / n
    found = np.asarray(seen["intermediates"]["attn_weights"][0]).ravel()
    nearest = np.abs(found[:, None] - wanted).argmin(1)
    np.testing.assert_allclose(found, wanted[nearest], atol=1e-6)
    assert (np.bincount(nearest, minlength=4) > found.size / 8).all()  # a quarter of each


def test_position_tables_are_resampled():
    table = jnp.concatenate([draw((1, 2, 4)), jnp.full((1, 6, 4), 3.0)], axis=1)
    new = vit_layers.resample_pos_embed(table, (2, 3), (5, 4), num_prefix=2)
    chex.assert_shape(new, (1, 22, 4))
    chex.assert_trees_all_equal(new[:, :2], table[:, :2])
    chex.assert_trees_all_close(new[:, 2:], jnp.full((1, 20, 4), 3.0), atol=1e-5)
    model = tiny(dynamic_img_size=True)
    x = draw((2, 16, 24, 3))
    variables = start(model, x)
    chex.assert_trees_all_close(apply(model, variables, x), apply(tiny(), variables, x))
    chex.assert_shape(jax.eval_shape(model.apply, variables, draw((2, 40, 8, 3))), (2, 5))
