"""The blocks of EVA, EVA-02, RoPE ViTs, Perception Encoders and DINOv3: [b, n, d] -> [b, n, d] each."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxvit.models.layers import Array, Dense, DropPath, Dtype, Layer, scaled_normal, trunc_normal
from jaxvit.models.rope import turned
from jaxvit.models.vit_layers import Norm, attend, default_norm
from jaxvit.ops.activations import ACTIVATIONS

Rope = tuple[Array, Array] | None  # cosine and sine of each token's angles, [b or 1, n, heads or 1, hd/2]


class EvaAttention(nn.Module):
    """Self-attention whose queries and keys are turned by their places: [b, n, d] -> [b, n, d].

    Without a `key_bias` the keys have none: it would add the same to all logits of a query (Bao et al., 2021: BEiT).
    """

    num_heads: int
    num_kv_heads: int  # fewer than `num_heads`: neighbouring queries share a head of keys (Ainslie et al., 2023)
    qkv_bias: bool = True
    key_bias: bool = False
    qkv_fused: bool = True  # one matrix for queries, keys and values
    qk_norm: Norm | None = None  # of queries and keys per head (Dehghani et al., 2023)
    norm: Norm | None = None  # of the heads' outputs (Wang et al., 2022)
    rotate_half: bool = False
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    out_scale: float = 1.0  # of the last projection's start
    implementation: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, rope: Rope = None, *, train: bool = False) -> Array:
        b, n, d = x.shape
        q, k, v = (part.reshape(b, n, -1, d // self.num_heads) for part in self.project(x))
        if self.qk_norm is not None:
            q, k = self.qk_norm(name="q_norm")(q), self.qk_norm(name="k_norm")(k)
        if rope is not None:
            q, k = (turned(part, *rope, halves=self.rotate_half) for part in (q, k))
        if self.num_kv_heads < self.num_heads:
            k, v = (jnp.repeat(part, self.num_heads // self.num_kv_heads, axis=2) for part in (k, v))
        x = attend(self, q, k, v, drop_rate=self.attn_drop, implementation=self.implementation, train=train)
        x = x.reshape(b, n, d)
        if self.norm is not None:
            x = self.norm(name="norm")(x)
        x = Dense(d, kernel_init=scaled_normal(self.out_scale), dtype=self.dtype, name="proj")(x)
        return nn.Dropout(self.proj_drop)(x, deterministic=not train)

    def project(self, x: Array) -> tuple[Array, ...]:
        """Queries [b, n, d], keys and values [b, n, d or less]."""
        d, zeros = x.shape[-1], nn.initializers.zeros
        dense = partial(Dense, kernel_init=trunc_normal, dtype=self.dtype)
        key_bias = self.qkv_bias and self.key_bias
        if not self.qkv_fused:
            kv = d // self.num_heads * self.num_kv_heads
            q = dense(d, use_bias=self.qkv_bias, name="q_proj")(x)
            k = dense(kv, use_bias=key_bias, name="k_proj")(x)
            return q, k, dense(kv, use_bias=self.qkv_bias, name="v_proj")(x)
        qkv = dense(3 * d, use_bias=key_bias, name="qkv")(x)
        if self.qkv_bias and not self.key_bias:
            q_bias, v_bias = (self.param(f"{part}_bias", zeros, (d,), jnp.float32) for part in "qv")
            bias = jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias])
            qkv = qkv + bias.astype(qkv.dtype).reshape(1, 1, -1)
        return tuple(jnp.split(qkv, 3, axis=-1))


class FeedForward(nn.Module):
    """The perceptron, or SwiGLU (Shazeer, 2020) with gate and value in one matrix or apart: [..., d] -> [..., d]."""

    hidden_dim: int
    gate: str | None = None  # None, "packed", "apart"
    norm: Norm | None = None  # of the hidden units (Wang et al., 2022)
    drop_rate: float = 0.0
    out_scale: float = 1.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        dense = partial(Dense, kernel_init=trunc_normal, dtype=self.dtype)
        d, hidden = x.shape[-1], self.hidden_dim
        if self.gate is None:
            x = ACTIVATIONS["gelu"](dense(hidden, name="fc1")(x))
        else:
            if self.gate == "packed":
                gate, x = jnp.split(dense(2 * hidden, name="fc1")(x), 2, axis=-1)
            else:
                gate, x = dense(hidden, name="fc1_g")(x), dense(hidden, name="fc1_x")(x)
            x = ACTIVATIONS["silu"](gate) * x
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        if self.norm is not None:
            x = self.norm(name="norm")(x)
        x = Dense(d, kernel_init=scaled_normal(self.out_scale), dtype=self.dtype, name="fc2")(x)
        return nn.Dropout(self.drop_rate)(x, deterministic=not train)


class EvaBlock(nn.Module):
    """The transformer block with the norm before each branch and an optional scale after it."""

    attn: Layer
    mlp: Layer
    norm: Norm = default_norm
    init_values: float | None = None  # start of the layer scale (Touvron et al., 2021); None: none
    attn_only_layer_scale: bool = False
    drop_path: float | Array = 0.0

    @nn.compact
    def __call__(self, x: Array, rope: Rope = None, *, train: bool = False) -> Array:
        y = self.attn(name="attn")(self.norm(name="norm1")(x), rope, train=train)
        x = x + self.branch(y, "gamma_1", train=train)
        y = self.mlp(name="mlp")(self.norm(name="norm2")(x), train=train)
        return x + self.branch(y, None if self.attn_only_layer_scale else "gamma_2", train=train)

    def branch(self, x: Array, gamma: str | None, *, train: bool) -> Array:
        """What leaves a branch: scaled per channel, dropped now and then."""
        if gamma is not None and self.init_values is not None:
            scale = self.param(gamma, nn.initializers.constant(self.init_values), x.shape[-1:], jnp.float32)
            x = x * scale.astype(x.dtype).reshape(1, 1, -1)
        return DropPath(self.drop_path)(x, train=train)  # type: ignore[arg-type]


class EvaBlockPostNorm(EvaBlock):
    """The norm after each branch (EVA-02-CLIP-E; Sun et al., 2023); it has no layer scale."""

    @nn.compact
    def __call__(self, x: Array, rope: Rope = None, *, train: bool = False) -> Array:
        y = self.norm(name="norm1")(self.attn(name="attn")(x, rope, train=train))
        x = x + self.branch(y, None, train=train)
        y = self.norm(name="norm2")(self.mlp(name="mlp")(x, train=train))
        return x + self.branch(y, None, train=train)
