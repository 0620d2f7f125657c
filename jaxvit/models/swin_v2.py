"""Swin Transformer V2 (Liu et al., 2022): Swin with cosine attention, a continuous position bias, norms after branches.

The windows, their shifts, masks and padding are Swin's own.
"""

import math
from functools import lru_cache, partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError
from jaxvit.models import swin
from jaxvit.models.layers import Array, Dense, DropPath, Layer, Size, trunc_normal, watch_or_drop
from jaxvit.models.windows import Pair, relative_position_index
from jaxvit.ops.window_attention import window_attention

CPB_HIDDEN = 512  # units between coordinates and the bias
LARGEST_SCALE = 100.0  # of the cosines
NORM_EPS = 1e-12


@lru_cache
def log_coordinates(window_size: Pair, pretrained_window_size: int) -> np.ndarray:
    """Relative positions in logarithmic spacing, 1 at a pretraining window's far end: float32 [(2wh-1)*(2ww-1), 2].

    `pretrained_window_size` 0 is the window's own size.
    """
    offsets = []
    for side in window_size:
        reach = (pretrained_window_size or side) - 1
        steps = np.arange(1 - side, side, dtype=np.float32) / np.float32(max(reach, 1)) * np.float32(8)
        offsets.append(np.sign(steps) * np.log2(np.abs(steps) + np.float32(1)) / np.float32(math.log2(8)))
    grid = np.stack(np.meshgrid(*offsets, indexing="ij"), -1)
    return grid.reshape(-1, 2).astype(np.float32)


def unit_length(x: Array) -> Array:
    """Vectors along the last axis divided by their lengths, in 32 bits or more; 0 stays 0, with no gradient."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return wide * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(wide), -1, keepdims=True), NORM_EPS**2))


class CosineWindowAttention(swin.WindowAttention):
    """Swin's attention with cosines of a learned scale, and a bias computed from relative positions."""

    pretrained_window_size: int = 0

    def attend(self, x: Array, *, rolled: bool = False, train: bool) -> Array:
        d, heads = x.shape[-1], self.num_heads
        logit_scale = self.param("logit_scale", nn.initializers.constant(math.log(10)), (heads, 1, 1), jnp.float32)
        dense = partial(Dense, dtype=self.dtype, kernel_init=trunc_normal)
        qkv = dense(3 * d, use_bias=False, name="qkv")(x)
        if self.qkv_bias:
            q_bias, v_bias = (self.param(f"{part}_bias", nn.initializers.zeros, (d,), jnp.float32) for part in "qv")
            bias = jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]).astype(qkv.dtype)
            qkv = qkv + bias[None, None, None]
        q, k, v = jnp.split(qkv, 3, axis=-1)
        q, k = (unit_length(part.reshape(*part.shape[:-1], heads, -1)) for part in (q, k))
        scale = jnp.exp(jnp.minimum(logit_scale, math.log(LARGEST_SCALE))).reshape(1, 1, 1, heads, 1)
        q = q * scale * (d // heads) ** 0.5  # the operation divides by this root
        qkv = jnp.concatenate([q.reshape(v.shape).astype(v.dtype), k.reshape(v.shape).astype(v.dtype), v], axis=-1)
        implementation = None if self.is_initializing() else self.implementation
        x = window_attention(
            qkv, self.position_bias(), self.window_size, self.shift_size, rolled=rolled, implementation=implementation,
            change=watch_or_drop(self, self.attn_drop_rate, train),
        )  # fmt: skip
        return nn.Dropout(self.proj_drop_rate)(dense(d, name="proj")(x), deterministic=not train)

    def position_bias(self) -> Array:
        """A perceptron's output for each relative position, between 0 and 16: [heads, n, n]."""
        dense = partial(Dense, kernel_init=trunc_normal)
        x = jnp.asarray(log_coordinates(self.window_size, self.pretrained_window_size))
        x = jax.nn.relu(dense(CPB_HIDDEN, name="cpb_mlp_0")(x))
        table = dense(self.num_heads, use_bias=False, name="cpb_mlp_2")(x)
        return 16 * jax.nn.sigmoid(table[relative_position_index(self.window_size)].transpose(2, 0, 1))


class PostNormBlock(nn.Module):
    """The transformer block with a norm at the end of each branch, which starts at 0: [b, h, w, d] -> same."""

    attn: Layer
    mlp: Layer
    norm: Layer
    drop_path_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # by position: nn.remat needs it static
        norm = partial(self.norm, scale_init=nn.initializers.zeros)
        y = norm(name="norm1")(self.attn(name="attn")(x, train=train))
        x = x + DropPath(self.drop_path_rate)(y, train=train)
        y = norm(name="norm2")(self.mlp(name="mlp")(x, train=train))
        return x + DropPath(self.drop_path_rate)(y, train=train)


class PostNormMerging(swin.PatchMerging):
    """Swin's merging of 2x2 neighbours, with the norm after the projection."""

    def project(self, x: Array, reduction: nn.Module, norm: nn.Module) -> Array:
        return norm(reduction(x))  # pyright: ignore[reportCallIssue]


class SwinTransformerV2(swin.SwinTransformer):
    """Swin Transformer V2 (Liu et al., 2022): images [b, h, w, c] -> logits [b, num_classes].

    As `SwinTransformer`. `pretrained_window_sizes` are those of each stage that the positions were learnt in; 0 stands
    for the window's own.
    """

    attention_class: ClassVar[type[nn.Module]] = CosineWindowAttention
    block_class: ClassVar[type[nn.Module]] = PostNormBlock
    merging_class: ClassVar[type[nn.Module]] = PostNormMerging

    image_size: Size = 256
    window_size: int | tuple[int | tuple[int, int], ...] = 8
    pretrained_window_sizes: tuple[int, ...] = (0, 0, 0, 0)

    def attention(self, stage: int) -> Layer:
        known = self.pretrained_window_sizes
        return partial(super().attention(stage), pretrained_window_size=known[stage] if any(known) else 0)


def check_fields(model: SwinTransformerV2) -> None:
    """Raises UserError when the fields of the stages do not fit each other."""
    swin.check_fields(model)
    known = model.pretrained_window_sizes
    if any(known) and len(known) < len(model.depths):
        raise UserError(
            f"pretrained_window_sizes={known} has {len(known)} entries; expected one for each of the "
            f"{len(model.depths)} stages."
        )
