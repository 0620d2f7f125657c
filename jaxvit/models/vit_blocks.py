"""The residual blocks of a vision transformer: [b, n, d] -> [b, n, d] each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.models.layers import REMAT, Array, Dense, DropPath, Dtype, drop_path_rates, trunc_normal
from jaxvit.models.vit_layers import Layer, LayerScale, Norm, default_norm
from jaxvit.ops.activations import ACTIVATIONS


class Residual(nn.Module, kw_only=True):
    """What every block has: its norm, and what becomes of a branch before it is added."""

    norm: Norm = default_norm
    init_values: float | None = None  # start of the layer scale; None: none
    drop_path: float = 0.0

    def branch(self, x: Array, scale: str | None = None, *, train: bool) -> Array:
        """What leaves a branch: scaled per channel if `init_values` is set, dropped whole now and then."""
        if self.init_values and scale:
            x = LayerScale(self.init_values, name=scale)(x)
        return DropPath(self.drop_path)(x, train=train)


class Block(Residual, kw_only=True):
    """The transformer block with the norm before each branch (Dosovitskiy et al., 2021)."""

    attn: Layer
    mlp: Layer

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        y = self.attn(name="attn")(self.norm(name="norm1")(x), train=train)
        x = x + self.branch(y, "ls1", train=train)
        y = self.mlp(name="mlp")(self.norm(name="norm2")(x), train=train)
        return x + self.branch(y, "ls2", train=train)


class ResPostBlock(Block, kw_only=True):
    """The norm after each branch, starting from `init_values` (Liu et al., 2022: Swin V2)."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        start = 1.0 if self.init_values is None else self.init_values
        norm = partial(self.norm, scale_init=nn.initializers.constant(start))
        y = norm(name="norm1")(self.attn(name="attn")(x, train=train))
        x = x + self.branch(y, train=train)
        y = norm(name="norm2")(self.mlp(name="mlp")(x, train=train))
        return x + self.branch(y, train=train)


class ParallelThingsBlock(Block, kw_only=True):
    """Two attentions side by side, then two perceptrons (Touvron et al., 2022: Three things)."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        part = partial(Branch, norm=self.norm, init_values=self.init_values, drop_path=self.drop_path)
        for layer, kind, name in ((self.attn, "attn", "attns"), (self.mlp, "mlp", "ffns")):
            x = x + sum(part(layer=layer, kind=kind, name=f"{name}_{i}")(x, train=train) for i in range(2))
        return x


class Branch(Residual, kw_only=True):
    """One branch with its own norm."""

    layer: Layer
    kind: str  # the name of its parameters

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        y = self.layer(name=self.kind)(self.norm(name="norm")(x), train=train)
        return self.branch(y, "ls", train=train)


class ParallelScalingBlock(Residual, kw_only=True):
    """Attention and perceptron side by side from one norm (Dehghani et al., 2023: ViT-22B)."""

    heads: Callable[..., Array]  # as those of `Attention`
    hidden_dim: int
    act: str = "gelu"
    qkv_bias: bool = True
    proj_bias: bool = True
    proj_drop: float = 0.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        d = x.shape[-1]
        dense = partial(Dense, dtype=self.dtype, kernel_init=trunc_normal)
        y = dense(self.hidden_dim + 3 * d, use_bias=self.qkv_bias, name="in_proj")(self.norm(name="in_norm")(x))
        hidden, q, k, v = jnp.split(y, [self.hidden_dim + i * d for i in range(3)], axis=-1)
        if not self.qkv_bias:  # the perceptron keeps its bias
            bias = self.param("mlp_bias", nn.initializers.zeros, (self.hidden_dim,), jnp.float32)
            hidden = hidden + bias.astype(hidden.dtype).reshape(1, 1, -1)
        heads = self.heads(self, q, k, v, train=train).reshape(x.shape)
        hidden = nn.Dropout(self.proj_drop)(ACTIVATIONS[self.act](hidden), deterministic=not train)
        dense = partial(dense, d, use_bias=self.proj_bias)
        return x + self.branch(self.project(dense, heads, hidden), "ls", train=train)

    def project(self, dense: Callable[..., nn.Module], heads: Array, hidden: Array) -> Array:
        return dense(name="attn_out_proj")(heads) + dense(name="mlp_out_proj")(hidden)


class DiffParallelScalingBlock(ParallelScalingBlock, kw_only=True):
    """The same with differential attention (Ye et al., 2024) and one projection for both."""

    def project(self, dense: Callable[..., nn.Module], heads: Array, hidden: Array) -> Array:
        return dense(name="out_proj")(jnp.concatenate([heads, hidden], axis=-1))


def scan_blocks(model: Any, block: Callable[..., nn.Module], x: Array, *rest: Any, train: bool) -> Array:
    """The blocks of `model` as one compiled loop over their parameters, which stay `blocks_0` ... in its variables.

    Every block is called with `x` and `rest`. `block` makes a block from its own fields. Dropout and stochastic depth
    draw other numbers than block by block.
    """
    params = model.variables["params"]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"blocks_{i}"] for i in range(model.depth)))
    rates = jnp.asarray(drop_path_rates(model.drop_path_rate, model.depth))
    keys = jax.random.split(model.make_rng("dropout"), model.depth) if model.has_rng("dropout") else None

    def run(x: Array, params: Any, rate: Array, key: Any) -> Any:
        module = block(drop_path=rate if model.drop_path_rate else 0.0, parent=None)
        return module.apply({"params": params}, x, *rest, train=train, rngs=None if key is None else {"dropout": key})

    if model.remat in REMAT:
        run = jax.checkpoint(run, policy=REMAT[model.remat])
    x, _ = jax.lax.scan(lambda x, own: (run(x, *own), None), x, (stacked, rates, keys))
    return x


BLOCKS: dict[str, Layer] = {
    "block": Block,
    "res_post": ResPostBlock,
    "parallel_scaling": ParallelScalingBlock,
    "diff_parallel_scaling": DiffParallelScalingBlock,
    "parallel_things": ParallelThingsBlock,
}
