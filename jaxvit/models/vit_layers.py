"""Parts of a vision transformer: norms, attention, gated perceptrons, pooling by attention, position tables."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from jaxvit.models import flash_attention
from jaxvit.models.layers import ACTIVATIONS, Array, Dense, Dtype, LayerNorm, Mlp, PatchProjection, trunc_normal
from jaxvit.runtime.platform import platform

Norm = Callable[..., nn.Module]  # called with the submodule's name

NORMS: dict[str, Norm] = {"layernorm": LayerNorm, "rmsnorm": nn.RMSNorm}
tiny_normal = nn.initializers.normal(stddev=1e-6)


def make_norm(kind: str, eps: float, dtype: Dtype = None) -> Norm:
    """Returns the constructor of a norm (a key of NORMS) with PyTorch's two-pass variance, in float32."""
    return partial(NORMS[kind], epsilon=eps, dtype=dtype, use_fast_variance=False)


default_norm = make_norm("layernorm", 1e-6)


def row_major(x: Array) -> Array:
    """The same tokens [b, n, d], which XLA on a GPU may not keep in another order.

    Else the gradients of pooling and of the position table can make it keep all tokens of all blocks, and their
    gradients, with the images or the tokens innermost, and transpose them on the way to and from each matmul.
    """
    return with_layout_constraint(x, Layout(tuple(range(x.ndim)))) if platform() == "gpu" else x


class LayerScale(nn.Module):
    """A learnt factor per channel (Touvron et al., 2021): [..., d] -> [..., d]."""

    init_values: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gamma = self.param("gamma", nn.initializers.constant(self.init_values), (x.shape[-1],))
        return x * gamma.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class PatchEmbed(nn.Module):
    """Images to patch tokens: [b, h, w, c] -> [b, h/p, w/p, d]; pixels that fill no patch are cut off."""

    embed_dim: int
    patch_size: tuple[int, int]
    use_bias: bool = True
    norm: Norm | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, images: Array) -> Array:
        (ph, pw), (_, h, w, c) = self.patch_size, images.shape
        bound = 1 / math.sqrt(ph * pw * c)  # torch.nn.Conv2d draws kernel and bias from U(-bound, bound)

        def uniform(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        project = PatchProjection(
            self.embed_dim, self.patch_size, self.use_bias, self.dtype, uniform, uniform, name="proj"
        )
        x = project(images[:, : h // ph * ph, : w // pw * pw])
        return x if self.norm is None else self.norm(name="norm")(x)


def softmax_weights(q: Array, k: Array) -> Array:
    """Attention weights softmax(q k^T / sqrt(hd)), float32: [b, n, heads, hd] twice -> [b, heads, n, m]."""
    logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.promote_types(q.dtype, jnp.float32))
    return jax.nn.softmax(logits / math.sqrt(q.shape[-1]), axis=-1)


def _watched(module: nn.Module) -> bool:
    return module.is_mutable_collection("intermediates") and not module.is_initializing()


def _mix(module: nn.Module, weights: Array, v: Array, drop_rate: float, train: bool) -> Array:
    """Offers the weights as an intermediate, drops some, and sums the values: -> [b, n, heads, hd]."""
    if _watched(module):
        module.sow("intermediates", "attn_weights", weights)
    weights = nn.Dropout(drop_rate)(weights, deterministic=not train)
    return jnp.einsum("bhnm,bmhd->bnhd", weights.astype(v.dtype), v)


def attend(module: Any, q: Array, k: Array, v: Array, *, drop_rate: float = 0.0, train: bool = False) -> Array:
    """Scaled dot-product attention, [b, n, heads, hd] each -> [b, n, heads, hd]; softmax in float32.

    `module` sows its weights [b, heads, n, m] as `attn_weights` when "intermediates" is mutable.
    """
    if _watched(module) or (train and drop_rate > 0) or q.dtype == jnp.float64:  # jax.nn's softmax is in float32
        return _mix(module, softmax_weights(q, k), v, drop_rate, train)
    asked = None if module.is_initializing() else module.implementation
    if asked == "cudnn":
        flash_attention.check(q, k, v)
    if asked == "cudnn" or (asked is None and flash_attention.is_default(q, k, v)):
        return flash_attention.attend(q, k, v)
    if asked is None and platform() == "cpu":
        return attend_late(q, k, v)
    return flash_attention.by_xla(q, k, v)


def attend_late(q: Array, k: Array, v: Array) -> Array:
    """`jax.nn.dot_product_attention` with the division after the second product: on a CPU in half the time."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("bnhd,bmhd->bhnm", q * q.shape[-1] ** -0.5, k, preferred_element_type=wide)
    weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    x = jnp.einsum("bhnm,bmhd->bhnd", weights.astype(v.dtype), v)
    return (x / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype).transpose(0, 2, 1, 3)


def multi_head(module: Any, q: Array, k: Array, v: Array, *, train: bool) -> Array:
    """Attention of each head (Vaswani et al., 2017), [b, n, d] each -> [b, n, heads, hd].

    Optionally with a norm of queries and keys per head (Dehghani et al., 2023).
    """
    q, k, v = (a.reshape(*a.shape[:2], module.num_heads, -1) for a in (q, k, v))
    if module.qk_norm:
        q, k = module.norm(name="q_norm")(q), module.norm(name="k_norm")(k)
    return attend(module, q, k, v, drop_rate=module.attn_drop, train=train)


def differential(module: Any, q: Array, k: Array, v: Array, *, train: bool) -> Array:
    """The difference of two softmax maps of half-width heads (Ye et al., 2024): as `multi_head`."""
    b, n, d = q.shape
    half = d // module.num_heads // 2
    q, k = (a.reshape(b, n, 2 * module.num_heads, half) for a in (q, k))
    v = v.reshape(b, n, module.num_heads, 2 * half)
    if module.qk_norm:
        q, k = module.norm(name="q_norm")(q), module.norm(name="k_norm")(k)
    normal = nn.initializers.normal(stddev=0.1)
    q1, k1, q2, k2 = (module.param(f"lambda_{s}", normal, (half,)) for s in ("q1", "k1", "q2", "k2"))
    start = 0.8 - 0.6 * math.exp(-0.3 * module.index)
    balance = jnp.exp(jnp.sum(q1 * k1)) - jnp.exp(jnp.sum(q2 * k2)) + start
    maps = softmax_weights(q, k).reshape(b, module.num_heads, 2, n, n)
    maps = nn.Dropout(module.attn_drop)(maps, deterministic=not train)  # each map by itself, as timm has it
    x = _mix(module, maps[:, :, 0] - balance * maps[:, :, 1], v, 0.0, train)
    return nn.RMSNorm(epsilon=1e-5, dtype=x.dtype, name="sub_norm")(x) * (1 - start)


ATTENTIONS: dict[str, Callable[..., Array]] = {"attn": multi_head, "diff": differential}


class Attention(nn.Module):
    """Self-attention with its projections: [b, n, d] -> [b, n, d]; `scale_norm` as in Wang et al., 2022."""

    num_heads: int
    qkv_bias: bool = True
    qk_norm: bool = False
    scale_norm: bool = False
    proj_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    norm: Norm = default_norm
    attn_layer: str = "attn"
    index: int = 0  # of the block; differential attention starts from it
    implementation: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        d = x.shape[-1]
        dense = partial(Dense, dtype=self.dtype, kernel_init=trunc_normal)
        q, k, v = jnp.split(dense(3 * d, use_bias=self.qkv_bias, name="qkv")(x), 3, axis=-1)
        x = ATTENTIONS[self.attn_layer](self, q, k, v, train=train).reshape(x.shape)
        if self.scale_norm:
            x = self.norm(name="norm")(x)
        x = dense(d, use_bias=self.proj_bias, name="proj")(x)
        return nn.Dropout(self.proj_drop)(x, deterministic=not train)


class SwiGluPacked(Mlp):
    """SwiGLU with gate and value in one matrix (Shazeer, 2020); `hidden_dim` counts both: [..., d] -> [..., d]."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        dense = partial(Dense, use_bias=self.use_bias, dtype=self.dtype)
        d = x.shape[-1]
        x = dense(self.hidden_dim, kernel_init=_half_tiny, bias_init=_half_ones, name="fc1")(x)
        gate, x = jnp.split(x, 2, axis=-1)
        x = nn.Dropout(self.drop_rate)(ACTIVATIONS[self.act](gate) * x, deterministic=not train)
        if self.norm is not None:
            x = self.norm(name="norm")(x)
        x = dense(d, kernel_init=trunc_normal, name="fc2")(x)
        return nn.Dropout(self.drop_rate)(x, deterministic=not train)


def _half_tiny(key: Array, shape: tuple[int, int], dtype: Dtype = jnp.float32) -> Array:
    # timm's start for the second half of the hidden units: (almost) nothing from the input, a bias of one.
    half = (shape[0], shape[1] // 2)
    first, second = jax.random.split(key)
    return jnp.concatenate([trunc_normal(first, half, dtype), tiny_normal(second, half, dtype)], axis=-1)


def _half_ones(key: Array, shape: tuple[int], dtype: Dtype = jnp.float32) -> Array:
    return jnp.repeat(jnp.arange(2, dtype=dtype), shape[0] // 2)


class SwiGlu(Mlp):
    """SwiGLU with a matrix each for gate and value (Shazeer, 2020): [..., d] -> [..., d]."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        dense = partial(Dense, use_bias=self.use_bias, dtype=self.dtype)
        d, ones = x.shape[-1], nn.initializers.ones
        gate = dense(self.hidden_dim, kernel_init=tiny_normal, bias_init=ones, name="fc1_g")(x)
        x = dense(self.hidden_dim, kernel_init=trunc_normal, name="fc1_x")(x)
        x = nn.Dropout(self.drop_rate)(ACTIVATIONS[self.act](gate) * x, deterministic=not train)
        if self.norm is not None:
            x = self.norm(name="norm")(x)
        x = dense(d, kernel_init=trunc_normal, name="fc2")(x)
        return nn.Dropout(self.drop_rate)(x, deterministic=not train)


MLPS: dict[str, type[Mlp]] = {"mlp": Mlp, "swiglu_packed": SwiGluPacked, "swiglu": SwiGlu}


class AttentionPoolLatent(nn.Module):
    """Pools tokens with one learnt query and a perceptron (Zhai et al., 2022): [b, n, d] -> [b, d]."""

    num_heads: int
    mlp_ratio: float = 4.0
    norm: Norm = default_norm
    act: str = "gelu"
    implementation: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        b, n, d = x.shape
        dense = partial(Dense, dtype=self.dtype, kernel_init=trunc_normal)
        # timm cuts this one at two sigmas.
        latent = self.param("latent", nn.initializers.truncated_normal(d**-0.5), (1, 1, d))
        q = dense(d, name="q")(latent.astype(x.dtype))
        q = jnp.broadcast_to(q.reshape(1, 1, self.num_heads, -1), (b, 1, self.num_heads, d // self.num_heads))
        kv = dense(2 * d, name="kv")(x).reshape(b, n, 2, self.num_heads, -1)
        x = attend(self, q, kv[:, :, 0], kv[:, :, 1], train=train)
        x = dense(d, name="proj")(x.reshape(b, d))
        mlp = Mlp(int(d * self.mlp_ratio), self.act, dtype=self.dtype, name="mlp")
        return x + mlp(self.norm(name="norm")(x), train=train)


def refine(x: Array, num_heads: int) -> Array:
    """Self-attention without parameters ("PRR" pooling in timm): [b, n, d] -> [b, n, d]."""
    heads = x.reshape(*x.shape[:2], num_heads, -1)
    return jnp.reshape(jax.nn.dot_product_attention(heads, heads, heads), x.shape)


def patch_dropout(x: Array, key: Array, rate: float, num_prefix: int) -> Array:
    """Keeps a random (1 - rate) of each image's patch tokens, and all prefix tokens (Liu et al., 2022)."""
    prefix, patches = x[:, :num_prefix], x[:, num_prefix:]
    keep = max(1, int(patches.shape[1] * (1 - rate)))
    order = jnp.argsort(jax.random.uniform(key, patches.shape[:2]), axis=1)[:, :keep]
    return jnp.concatenate([prefix, jnp.take_along_axis(patches, order[:, :, None], axis=1)], axis=1)


def resample_pos_embed(table: Array, grid: tuple[int, int], new_grid: tuple[int, int], num_prefix: int) -> Array:
    """Position table [1, prefix + gh*gw, d] for another grid: bicubic, antialiased; prefix entries are kept."""
    if grid == new_grid:
        return table
    prefix, table = table[:, :num_prefix], table[:, num_prefix:]
    table = table.reshape(1, *grid, -1)
    table = jax.image.resize(table, (1, *new_grid, table.shape[-1]), method="bicubic")
    return jnp.concatenate([prefix, table.reshape(1, new_grid[0] * new_grid[1], -1)], axis=1)
