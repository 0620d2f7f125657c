"""Parts of a vision transformer: norms, attention, gated perceptrons, pooling by attention, position tables."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.layers import (
    Array,
    Conv,
    Dense,
    Dtype,
    Layer,
    LayerNorm,
    Mlp,
    check_floats,
    check_patches,
    to_pair,
    trunc_normal,
    watch_or_drop,
)
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.attention import attention, attention_weights, weighted_sum

Norm = Layer

NORMS: dict[str, Norm] = {"layernorm": LayerNorm, "rmsnorm": nn.RMSNorm}
tiny_normal = nn.initializers.normal(stddev=1e-6)


def make_norm(kind: str, eps: float, dtype: Dtype = None) -> Norm:
    """Returns the constructor of a norm (a key of NORMS) with PyTorch's two-pass variance, in float32."""
    return partial(NORMS[kind], epsilon=eps, dtype=dtype, use_fast_variance=False)


default_norm = make_norm("layernorm", 1e-6)


class LayerScale(nn.Module):
    """A learnt factor per channel (Touvron et al., 2021): [..., d] -> [..., d]."""

    init_values: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gamma = self.param("gamma", nn.initializers.constant(self.init_values), (x.shape[-1],), jnp.float32)
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

        project = Conv(
            self.embed_dim, self.patch_size, self.patch_size, padding=0, use_bias=self.use_bias, dtype=self.dtype,
            kernel_init=uniform, bias_init=uniform, name="proj",
        )  # fmt: skip
        x = project(images[:, : h // ph * ph, : w // pw * pw])
        return x if self.norm is None else self.norm(name="norm")(x)


def attend(
    module: nn.Module,
    q: Array,
    k: Array,
    v: Array,
    *,
    drop_rate: float = 0.0,
    implementation: str | None = None,
    train: bool = False,
) -> Array:
    """Scaled dot-product attention, [b, n, heads, hd] each -> [b, n, heads, hd]; softmax in float32.

    `module` sows its weights [b, heads, n, m] as `attn_weights` when "intermediates" is mutable.
    """
    implementation = None if module.is_initializing() else implementation
    return attention(q, k, v, implementation=implementation, change=watch_or_drop(module, drop_rate, train))


def multi_head(
    module: nn.Module,
    q: Array,
    k: Array,
    v: Array,
    *,
    num_heads: int,
    qk_norm: Norm | None = None,
    drop_rate: float = 0.0,
    implementation: str | None = None,
    train: bool,
) -> Array:
    """Attention of each head (Vaswani et al., 2017), [b, n, d] each -> [b, n, heads, hd].

    Optionally with a norm of queries and keys per head (Dehghani et al., 2023).
    """
    q, k, v = (a.reshape(*a.shape[:2], num_heads, -1) for a in (q, k, v))
    if qk_norm is not None:
        q, k = qk_norm(name="q_norm")(q), qk_norm(name="k_norm")(k)
    return attend(module, q, k, v, drop_rate=drop_rate, implementation=implementation, train=train)


def differential(
    module: nn.Module,
    q: Array,
    k: Array,
    v: Array,
    *,
    num_heads: int,
    qk_norm: Norm | None = None,
    drop_rate: float = 0.0,
    implementation: str | None = None,
    index: int = 0,
    train: bool,
) -> Array:
    """The difference of two softmax maps of half-width heads (Ye et al., 2024): as `multi_head`.

    `index` is that of the block, with which the weight of the second map begins; the one implementation is the formula.
    """
    del implementation
    b, n, d = q.shape
    half = d // num_heads // 2
    q, k = (a.reshape(b, n, 2 * num_heads, half) for a in (q, k))
    v = v.reshape(b, n, num_heads, 2 * half)
    if qk_norm is not None:
        q, k = qk_norm(name="q_norm")(q), qk_norm(name="k_norm")(k)
    normal = nn.initializers.normal(stddev=0.1)
    q1, k1, q2, k2 = (module.param(f"lambda_{s}", normal, (half,)) for s in ("q1", "k1", "q2", "k2"))
    start = 0.8 - 0.6 * math.exp(-0.3 * index)
    balance = jnp.exp(jnp.sum(q1 * k1)) - jnp.exp(jnp.sum(q2 * k2)) + start
    maps = attention_weights(q, k).reshape(b, num_heads, 2, n, n)
    maps = nn.Dropout(drop_rate)(maps, deterministic=not train)  # each map by itself, as timm has it
    weights, watch = maps[:, :, 0] - balance * maps[:, :, 1], watch_or_drop(module, 0.0, train)
    x = weighted_sum(weights if watch is None else watch(weights), v)
    return nn.RMSNorm(epsilon=1e-5, dtype=x.dtype, name="sub_norm")(x) * (1 - start)


ATTENTIONS: dict[str, Callable[..., Array]] = {"attn": multi_head, "diff": differential}


class Attention(nn.Module):
    """Self-attention with its projections: [b, n, d] -> [b, n, d]."""

    heads: Callable[..., Array]  # `multi_head` or `differential`, with their keywords
    qkv_bias: bool = True
    proj_bias: bool = True
    norm: Norm | None = None  # of the heads' outputs (Wang et al., 2022)
    proj_drop: float = 0.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        d = x.shape[-1]
        dense = partial(Dense, dtype=self.dtype, kernel_init=trunc_normal)
        q, k, v = jnp.split(dense(3 * d, use_bias=self.qkv_bias, name="qkv")(x), 3, axis=-1)
        x = self.heads(self, q, k, v, train=train).reshape(x.shape)
        if self.norm is not None:
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
    mlp: Layer
    norm: Norm = default_norm
    implementation: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        b, n, d = x.shape
        dense = partial(Dense, dtype=self.dtype, kernel_init=trunc_normal)
        # timm cuts this one at two sigmas.
        latent = self.param("latent", nn.initializers.truncated_normal(d**-0.5), (1, 1, d), jnp.float32)
        q = dense(d, name="q")(latent.astype(x.dtype))
        q = jnp.broadcast_to(q.reshape(1, 1, self.num_heads, -1), (b, 1, self.num_heads, d // self.num_heads))
        kv = dense(2 * d, name="kv")(x).reshape(b, n, 2, self.num_heads, -1)
        x = attend(self, q, kv[:, :, 0], kv[:, :, 1], implementation=self.implementation, train=train)
        x = dense(d, name="proj")(x.reshape(b, d))
        return x + self.mlp(name="mlp")(self.norm(name="norm")(x), train=train)


def refine(x: Array, num_heads: int) -> Array:
    """Self-attention without parameters ("PRR" pooling in timm): [b, n, d] -> [b, n, d]."""
    heads = x.reshape(*x.shape[:2], num_heads, -1)
    return jnp.reshape(jax.nn.dot_product_attention(heads, heads, heads), x.shape)


def draw_patches(key: Array, shape: tuple[int, int], rate: float) -> Array:
    """Which patches of each image are kept, a random (1 - rate) (Liu et al., 2022): (b, n) -> [b, kept]."""
    keep = max(1, int(shape[1] * (1 - rate)))
    return jnp.argsort(jax.random.uniform(key, shape), axis=1)[:, :keep]


def take_patches(x: Array, kept: Array, num_prefix: int) -> Array:
    """Those patch tokens and all prefix tokens: [b, prefix + n, d], [b, kept] -> [b, prefix + kept, d]."""
    prefix, patches = x[:, :num_prefix], x[:, num_prefix:]
    return jnp.concatenate([prefix, jnp.take_along_axis(patches, kept[:, :, None], axis=1)], axis=1)


def pad_to_patches(images: Array, patch_size: tuple[int, int]) -> Array:
    """Zeros below and right of images that fill no whole patches: [b, h, w, c] -> [b, h', w', c]."""
    down, across = (-side % patch for side, patch in zip(images.shape[1:3], patch_size, strict=True))
    return jnp.pad(images, ((0, 0), (0, down), (0, across), (0, 0)))


def check_images(model: Any, images: Array) -> None:
    """Raises UserError for images that a model of patches does not take."""
    if images.ndim != 4 or images.shape[-1] != model.in_channels:
        raise UserError(f"images have shape {images.shape}; expected [b, h, w, {model.in_channels}].")
    check_floats(images)
    (h, w), want = images.shape[1:3], to_pair(model.image_size)
    for size in (want,) if model.dynamic_img_pad else ((h, w), want):
        check_patches(size, model.patch_size, crops=getattr(model, "crop_to_patches", False))
    if (h, w) != want and not model.dynamic_img_size:
        raise UserError(
            f"image {h}x{w} does not fit the model's image_size {want[0]}x{want[1]}; "
            f"expected that size, image_size=({h}, {w}) or dynamic_img_size=True."
        )


def resample_pos_embed(table: Array, grid: tuple[int, int], new_grid: tuple[int, int], num_prefix: int) -> Array:
    """Position table [1, prefix + gh*gw, d] for another grid: bicubic, antialiased; prefix entries are kept."""
    if grid == new_grid:
        return table
    prefix, table = table[:, :num_prefix], table[:, num_prefix:]
    table = table.reshape(1, *grid, -1)
    table = jax.image.resize(table, (1, *new_grid, table.shape[-1]), method="bicubic")
    return jnp.concatenate([prefix, table.reshape(1, new_grid[0] * new_grid[1], -1)], axis=1)


def sine_cosine_table(
    grid: tuple[int, int], key: Array, shape: tuple[int, int, int], dtype: Any = jnp.float32
) -> Array:
    """An initialiser of a position table [1, prefix + gh*gw, d] with fixed waves, d a multiple of 4; the prefix is 0.

    The first half is of the column, the second of the row; each is sines and then cosines of frequencies that fall to
    1e-4 (Chen et al. 2021, MoCo v3; Beyer et al. 2022).
    """
    del key
    width = shape[2]
    if width % 4:
        raise UserError(f"pos_embed='sincos2d' needs a multiple of 4 as embed_dim; it is {width}.")
    rows, columns = (axis.reshape(-1) for axis in np.meshgrid(*map(np.arange, grid), indexing="ij"))
    frequencies = 1e-4 ** (np.arange(width // 4) / max(width // 4 - 1, 1))
    angles = [place[:, None] * frequencies for place in (columns, rows)]
    waves = np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)
    return jnp.pad(jnp.asarray(waves, dtype), ((shape[1] - len(waves), 0), (0, 0)))[None]
