"""The residual blocks of a vision transformer: [b, n, d] -> [b, n, d] each."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.models.layers import REMAT, Array, Dense, DropPath, Dtype, drop_path_rates, trunc_normal
from jaxvit.models.vit_layers import (
    ATTENTIONS,
    MLPS,
    Attention,
    LayerScale,
    Norm,
    default_norm,
)
from jaxvit.ops.activations import ACTIVATIONS


class Block(nn.Module):
    """The transformer block with the norm before each branch (Dosovitskiy et al., 2021)."""

    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_norm: bool = False
    scale_attn_norm: bool = False
    scale_mlp_norm: bool = False
    proj_bias: bool = True
    init_values: float | None = None
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    drop_path: float = 0.0
    norm: Norm = default_norm
    act: str = "gelu"
    mlp_layer: str = "mlp"
    attn_layer: str = "attn"
    index: int = 0
    implementation: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        y = self.attention("attn")(self.norm(name="norm1")(x), train=train)
        x = x + self.branch(y, "ls1", train=train)
        y = self.mlp(x, "mlp")(self.norm(name="norm2")(x), train=train)
        return x + self.branch(y, "ls2", train=train)

    def attention(self, name: str) -> Attention:
        return Attention(
            num_heads=self.num_heads,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            scale_norm=self.scale_attn_norm,
            proj_bias=self.proj_bias,
            attn_drop=self.attn_drop,
            proj_drop=self.proj_drop,
            norm=self.norm,
            attn_layer=self.attn_layer,
            index=self.index,
            implementation=self.implementation,
            dtype=self.dtype,
            name=name,
        )

    def mlp(self, x: Array, name: str) -> nn.Module:
        norm = self.norm if self.scale_mlp_norm else None
        hidden_dim = int(x.shape[-1] * self.mlp_ratio)
        make = MLPS[self.mlp_layer]
        return make(hidden_dim, self.act, self.proj_drop, self.dtype, self.proj_bias, norm, name=name)

    def branch(self, x: Array, scale: str | None = None, *, train: bool) -> Array:
        """What leaves a branch: scaled per channel if `init_values` is set, dropped whole now and then."""
        if self.init_values and scale:
            x = LayerScale(self.init_values, name=scale)(x)
        return DropPath(self.drop_path)(x, train=train)


class ResPostBlock(Block):
    """The norm after each branch, starting from `init_values` (Liu et al., 2022: Swin V2)."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        start = 1.0 if self.init_values is None else self.init_values
        norm = partial(self.norm, scale_init=nn.initializers.constant(start))
        y = norm(name="norm1")(self.attention("attn")(x, train=train))
        x = x + self.branch(y, train=train)
        y = norm(name="norm2")(self.mlp(x, "mlp")(x, train=train))
        return x + self.branch(y, train=train)


class ParallelScalingBlock(Block):
    """Attention and perceptron side by side from one norm (Dehghani et al., 2023: ViT-22B)."""

    attention_kind: ClassVar[str] = "attn"

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        d = x.shape[-1]
        hidden_dim = int(self.mlp_ratio * d)
        dense = partial(Dense, dtype=self.dtype, kernel_init=trunc_normal)
        y = dense(hidden_dim + 3 * d, use_bias=self.qkv_bias, name="in_proj")(self.norm(name="in_norm")(x))
        hidden, q, k, v = jnp.split(y, [hidden_dim, hidden_dim + d, hidden_dim + 2 * d], axis=-1)
        if not self.qkv_bias:  # the perceptron keeps its bias
            bias = self.param("mlp_bias", nn.initializers.zeros, (hidden_dim,))
            hidden = hidden + bias.astype(hidden.dtype).reshape(1, 1, -1)
        heads = ATTENTIONS[self.attention_kind](self, q, k, v, train=train).reshape(x.shape)
        hidden = nn.Dropout(self.proj_drop)(ACTIVATIONS[self.act](hidden), deterministic=not train)
        dense = partial(dense, d, use_bias=self.proj_bias)
        return x + self.branch(self.project(dense, heads, hidden), "ls", train=train)

    def project(self, dense: Callable[..., nn.Module], heads: Array, hidden: Array) -> Array:
        return dense(name="attn_out_proj")(heads) + dense(name="mlp_out_proj")(hidden)


class DiffParallelScalingBlock(ParallelScalingBlock):
    """The same with differential attention (Ye et al., 2024) and one projection for both."""

    attention_kind: ClassVar[str] = "diff"

    def project(self, dense: Callable[..., nn.Module], heads: Array, hidden: Array) -> Array:
        return dense(name="out_proj")(jnp.concatenate([heads, hidden], axis=-1))


class _AttentionBranch(Block):
    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        y = self.attention("attn")(self.norm(name="norm")(x), train=train)
        return self.branch(y, "ls", train=train)


class _MlpBranch(Block):
    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        y = self.mlp(x, "mlp")(self.norm(name="norm")(x), train=train)
        return self.branch(y, "ls", train=train)


class ParallelThingsBlock(Block):
    """Two attentions side by side, then two perceptrons (Touvron et al., 2022: Three things)."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        fields = {f: getattr(self, f) for f in Block.__dataclass_fields__ if f not in ("parent", "name")}
        for kind, name in ((_AttentionBranch, "attns"), (_MlpBranch, "ffns")):
            x = x + sum(kind(**fields, name=f"{name}_{i}")(x, train=train) for i in range(2))
        return x


def scan_blocks(model: Any, block: Callable[..., Block], x: Array, *, train: bool) -> Array:
    """The blocks of `model` as one compiled loop over their parameters, which stay `blocks_0` ... in its variables.

    `block` makes a block from its own fields. Dropout and stochastic depth draw other numbers than block by block.
    """
    params = model.variables["params"]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"blocks_{i}"] for i in range(model.depth)))
    rates = jnp.asarray(drop_path_rates(model.drop_path_rate, model.depth))
    keys = jax.random.split(model.make_rng("dropout"), model.depth) if model.has_rng("dropout") else None

    def run(x: Array, params: Any, rate: Array, key: Any) -> Any:
        module = block(drop_path=rate if model.drop_path_rate else 0.0, parent=None)
        return module.apply({"params": params}, x, train=train, rngs=None if key is None else {"dropout": key})

    if model.remat in REMAT:
        run = jax.checkpoint(run, policy=REMAT[model.remat])
    x, _ = jax.lax.scan(lambda x, own: (run(x, *own), None), x, (stacked, rates, keys))
    return x


BLOCKS: dict[str, type[Block]] = {
    "block": Block,
    "res_post": ResPostBlock,
    "parallel_scaling": ParallelScalingBlock,
    "diff_parallel_scaling": DiffParallelScalingBlock,
    "parallel_things": ParallelThingsBlock,
}
