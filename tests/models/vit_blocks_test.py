"""Blocks of a ViT."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.models import vit_layers
from jaxvit.models.vit import VisionTransformer
from jaxvit.models.vit_blocks import BLOCKS

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


@pytest.mark.parametrize("attn_layer", ["attn", "diff"])
@pytest.mark.parametrize("block_fn", BLOCKS)
def test_block_keeps_the_shape(block_fn, attn_layer):
    model = tiny(embed_dim=24, num_heads=3, qkv_bias=False, qk_norm=True, init_values=0.1, block_fn=block_fn,
                 attn_layer=attn_layer)  # fmt: skip
    block = model.make_block(vit_layers.default_norm)()
    x = draw((2, 7, 24))
    variables = start(block, x)
    assert set(variables) == {"params"}
    y = apply(block, variables, x)
    chex.assert_shape(y, (2, 7, 24))
    chex.assert_tree_all_finite(y)
    assert jnp.abs(y - x).max() > 0.01


def test_remat_changes_nothing():
    x, key = draw((2, 16, 24, 3)), jax.random.key(5)
    model = tiny(proj_drop_rate=0.3, attn_drop_rate=0.1, init_values=0.1)
    variables = start(model, x)
    again = model.clone(remat=True)
    chex.assert_trees_all_equal_shapes(variables, jax.eval_shape(again.init, key, x))

    def gradient(m):
        return jax.jit(jax.grad(lambda v: jnp.sum(m.apply(v, x, train=True, rngs={"dropout": key}) ** 2)))

    chex.assert_trees_all_close(gradient(model)(variables), gradient(again)(variables), rtol=1e-4, atol=1e-5)
