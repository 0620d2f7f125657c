"""Swin Transformer: shifted windows (Liu et al., 2021) and its variants S3 (Chen et al., 2021)."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.conv_layers import hidden_layer, torch_bias
from jaxvit.models.layers import (
    Array,
    Dense,
    DropPath,
    Dtype,
    Mlp,
    PatchProjection,
    Size,
    drop_path_rates,
    layer_norm,
    rematerialised,
    to_pair,
    torch_uniform,
    trunc_normal,
)
from jaxvit.precision import at_least_float32

Pair = tuple[int, int]
MASK_VALUE = -100.0  # added to the logits of pairs from different regions; finite, as in the paper's code
NORM_EPS = 1e-5  # torch.nn.LayerNorm's own; timm's ViT uses 1e-6


def window_partition(x: Array, window_size: Pair) -> Array:
    """Cuts maps [b, h, w, c] into windows [b, nw, wh*ww, c]; h and w must be multiples of the window."""
    (b, h, w, c), (wh, ww) = x.shape, window_size
    x = x.reshape(b, h // wh, wh, w // ww, ww, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, (h // wh) * (w // ww), wh * ww, c)


def window_reverse(windows: Array, window_size: Pair, map_size: Pair) -> Array:
    """Joins windows [b, nw, wh*ww, c] to maps [b, h, w, c] of size `map_size`: inverts `window_partition`."""
    (h, w), (wh, ww) = map_size, window_size
    b, c = windows.shape[0], windows.shape[-1]
    x = windows.reshape(b, h // wh, w // ww, wh, ww, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h, w, c)


@lru_cache
def relative_position_index(window_size: Pair) -> np.ndarray:
    """Row of the bias table for every (query, key) pair of a window: int32 [wh*ww, wh*ww]."""
    wh, ww = window_size
    y, x = (a.reshape(-1) for a in np.mgrid[:wh, :ww])
    dy = y[:, None] - y[None, :] + wh - 1  # 0 .. 2wh-2
    dx = x[:, None] - x[None, :] + ww - 1
    return (dy * (2 * ww - 1) + dx).astype(np.int32)


@lru_cache
def shifted_window_mask(map_size: Pair, window_size: Pair, shift_size: Pair) -> np.ndarray | None:
    """Keeps tokens apart that only the cyclic shift made neighbours: 0 or -100, float32 [nw, wh*ww, wh*ww].

    `map_size` is that of the padded map, a multiple of the window. None when nothing is shifted.
    """
    if not any(shift_size):
        return None

    def regions(size: int, window: int, shift: int) -> np.ndarray:
        position = np.arange(size)
        return (position >= size - window).astype(np.int32) + (position >= size - shift)

    rows, columns = (regions(*args) for args in zip(map_size, window_size, shift_size, strict=True))
    region = (rows[:, None] * 3 + columns[None, :]).reshape(1, *map_size, 1)
    region = np.asarray(window_partition(region, window_size))[0, :, :, 0]  # type: ignore[arg-type]
    return np.where(region[:, :, None] == region[:, None, :], 0.0, MASK_VALUE).astype(np.float32)


def stage_windows(window_size: int | Sequence[Any], num_stages: int) -> tuple[Pair, ...]:
    """Expands one int, one (h, w) pair or one entry per stage to a (h, w) window per stage."""
    if isinstance(window_size, int):
        stages = (window_size,) * num_stages
    elif len(window_size) == 2 and all(isinstance(w, int) for w in window_size):
        stages = (tuple(window_size),) * num_stages
    else:
        stages = tuple(window_size)
    if len(stages) != num_stages:
        raise UserError(
            f"window_size {stages} has {len(stages)} entries; expected one int, one (height, width), "
            f"or one entry for each of the {num_stages} stages."
        )
    return tuple(to_pair(w) for w in stages)


def clamp_window(map_size: Pair, window_size: Pair, *, shifted: bool) -> tuple[Pair, Pair]:
    """Returns (window, shift) on a map: no window larger than the map, no shift where one covers it."""
    window = (min(map_size[0], window_size[0]), min(map_size[1], window_size[1]))
    shift = tuple(w // 2 if shifted and m > w else 0 for m, w in zip(map_size, window, strict=True))
    return window, shift  # type: ignore[return-value]


def sum_late(logits: Array, v: Array) -> Array:
    """softmax(logits) v, divided at the end: [b nw heads n n], [b nw n heads hd] -> [b nw n heads hd]."""
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    x = jnp.einsum("bwhqk,bwkhd->bwhqd", weights.astype(v.dtype), v)
    return (x / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype).transpose(0, 1, 3, 2, 4)


class WindowAttention(nn.Module):
    """Self-attention in windows with a learned bias per relative position: [b, nw, n, d] -> [b, nw, n, d]."""

    num_heads: int
    window_size: Pair
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, mask: np.ndarray | None = None, *, train: bool = False) -> Array:
        (b, nw, n, d), heads, (wh, ww) = x.shape, self.num_heads, self.window_size
        table_shape = ((2 * wh - 1) * (2 * ww - 1), heads)
        table = self.param("relative_position_bias_table", trunc_normal, table_shape)
        bias = table[relative_position_index(self.window_size)].transpose(2, 0, 1)[None, None]
        if mask is not None:
            bias = bias + mask[None, :, None]  # [1 nw heads n n]

        qkv = Dense(3 * d, self.qkv_bias, self.dtype, kernel_init=trunc_normal, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, nw, n, 3, heads, d // heads), 3, 0)
        scale = (d // heads) ** -0.5
        wide = jnp.promote_types(q.dtype, jnp.float32)
        logits = jnp.einsum("bwqhd,bwkhd->bwhqk", q * scale, k, preferred_element_type=wide)
        if jax.default_backend() == "cpu" and not train and not self.is_mutable_collection("intermediates"):
            x = sum_late(logits + bias, v).reshape(b, nw, n, d)  # twice as fast there; in training it is not
            return Dense(d, dtype=self.dtype, kernel_init=trunc_normal, name="proj")(x)
        attn = jax.nn.softmax(logits + bias, axis=-1)
        if self.is_mutable_collection("intermediates") and not self.is_initializing():
            self.sow("intermediates", "attn_weights", attn)  # [b nw heads n n]
        attn = nn.Dropout(self.attn_drop_rate)(attn.astype(v.dtype), deterministic=not train)
        x = jnp.einsum("bwhqk,bwkhd->bwqhd", attn, v).reshape(b, nw, n, d)
        x = Dense(d, dtype=self.dtype, kernel_init=trunc_normal, name="proj")(x)
        return nn.Dropout(self.proj_drop_rate)(x, deterministic=not train)


class SwinBlock(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x)), attention in (shifted) windows: [b, h, w, d] -> same."""

    num_heads: int
    window_size: Pair
    shift_size: Pair = (0, 0)
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # by position: nn.remat needs it static
        norm1, norm2 = (layer_norm(NORM_EPS, name, self.dtype) for name in ("norm1", "norm2"))
        hidden_dim = int(x.shape[-1] * self.mlp_ratio)
        mlp = Mlp(hidden_dim, drop_rate=self.proj_drop_rate, dtype=self.dtype, name="mlp")
        x = x + DropPath(self.drop_path_rate)(self.window_attention(norm1(x), train), train=train)
        return x + DropPath(self.drop_path_rate)(mlp(norm2(x), train=train), train=train)

    def window_attention(self, x: Array, train: bool) -> Array:
        """Shifts the map, pads it to whole windows, attends in each, and undoes both."""
        (_, h, w, _), (wh, ww), (sh, sw) = x.shape, self.window_size, self.shift_size
        pad_h, pad_w = -h % wh, -w % ww
        attn = WindowAttention(
            num_heads=self.num_heads,
            window_size=self.window_size,
            qkv_bias=self.qkv_bias,
            attn_drop_rate=self.attn_drop_rate,
            proj_drop_rate=self.proj_drop_rate,
            dtype=self.dtype,
            name="attn",
        )
        shifted = any(self.shift_size)
        x = jnp.roll(x, (-sh, -sw), (1, 2)) if shifted else x
        x = jnp.pad(x, ((0, 0), (0, pad_h), (0, pad_w), (0, 0))) if pad_h or pad_w else x
        map_size = (h + pad_h, w + pad_w)
        mask = shifted_window_mask(map_size, self.window_size, self.shift_size)
        x = attn(window_partition(x, self.window_size), mask, train=train)
        x = window_reverse(x, self.window_size, map_size)[:, :h, :w]
        return jnp.roll(x, (sh, sw), (1, 2)) if shifted else x


class PatchMerging(nn.Module):
    """Joins 2x2 neighbours and projects them: [b, h, w, d] -> [b, ceil(h/2), ceil(w/2), features]."""

    features: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, d = x.shape
        if h % 2 or w % 2:
            x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        h, w = (h + 1) // 2, (w + 1) // 2
        # (row, column) of the neighbours in the order (0, 0), (1, 0), (0, 1), (1, 1)
        x = x.reshape(b, h, 2, w, 2, d).transpose(0, 1, 3, 4, 2, 5).reshape(b, h, w, 4 * d)
        x = layer_norm(NORM_EPS, "norm", self.dtype)(x)
        return Dense(self.features, False, self.dtype, kernel_init=trunc_normal, name="reduction")(x)


class SwinStage(nn.Module):
    """Patch merging (but in the first stage), then blocks whose windows are plain and shifted in turn."""

    dim: int
    map_size: Pair
    downsample: bool
    num_heads: int
    window_size: Pair
    drop_path_rates: tuple[float, ...]
    block: Callable[..., nn.Module]
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        if self.downsample:
            x = PatchMerging(self.dim, self.dtype, name="downsample")(x)
        for i, rate in enumerate(self.drop_path_rates):
            window, shift = clamp_window(self.map_size, self.window_size, shifted=i % 2 == 1)
            block = self.block(
                num_heads=self.num_heads,
                window_size=window,
                shift_size=shift,
                drop_path_rate=rate,
                name=f"blocks_{i}",
            )
            x = block(x, train)
        return x


class PatchEmbed(nn.Module):
    """Projects patches and normalises them: images [b, h, w, c] -> [b, h/p, w/p, d]."""

    features: int
    patch_size: Pair
    dtype: Dtype = None

    @nn.compact
    def __call__(self, images: Array) -> Array:
        fan_in = self.patch_size[0] * self.patch_size[1] * images.shape[-1]
        proj = PatchProjection(
            self.features,
            self.patch_size,
            dtype=self.dtype,
            kernel_init=torch_uniform,
            bias_init=torch_bias(fan_in),
            name="proj",
        )
        return layer_norm(NORM_EPS, "norm", self.dtype)(proj(images))


class ClassifierHead(nn.Module):
    """Mean over the map, dropout, linear: [b, h, w, d] -> [b, num_classes]; [b, d] if `num_classes` is 0.

    With `hidden_size` a hidden layer, GELU and dropout come before the linear layer.
    """

    num_classes: int
    drop_rate: float = 0.0
    hidden_size: int | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        x = jnp.mean(at_least_float32(x), (1, 2))
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        if self.num_classes == 0:
            return x
        x = hidden_layer(x, self.hidden_size, "hidden", "gelu", self.drop_rate, self.dtype, train=train)
        x = Dense(self.num_classes, dtype=self.dtype, kernel_init=trunc_normal, name="fc")(x)
        return at_least_float32(x)


class SwinTransformer(nn.Module):
    """Swin Transformer (Liu et al., 2021): images [b, h, w, c] -> logits [b, num_classes].

    `image_size` fixes the windows (clamped to small maps) and with them the parameters; images of any other
    size that the patches divide are accepted too, padded to whole windows. `window_size` is one int, one
    (height, width) or one entry per stage. Raises UserError for images that the patches do not divide.
    """

    num_classes: int = 1000
    in_channels: int = 3
    image_size: Size = 224
    patch_size: Size = 4
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int | tuple[int | tuple[int, int], ...] = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    head_hidden_size: int | None = None  # of a hidden layer before the classifier; not in timm
    drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    dtype: Dtype = None
    remat: bool | str = False  # "dots" keeps the results of linear layers, "block" (or True) only the input

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        ph, pw = patch_size = to_pair(self.patch_size)
        check_fields(self)
        if images.ndim != 4 or images.shape[-1] != self.in_channels:
            raise UserError(f"images have shape {images.shape}; expected [b, h, w, {self.in_channels}].")
        for h, w in (to_pair(self.image_size), images.shape[1:3]):
            if h % ph or w % pw or not h or not w:
                raise UserError(f"image {h}x{w} is not divisible by patch size {ph}x{pw}.")
        map_h, map_w = (i // p for i, p in zip(to_pair(self.image_size), patch_size, strict=True))
        windows = stage_windows(self.window_size, len(self.depths))
        rates = iter(drop_path_rates(self.drop_path_rate, sum(self.depths)))
        block = partial(
            rematerialised(SwinBlock, self.remat, static_argnums=(2,)),
            mlp_ratio=self.mlp_ratio,
            qkv_bias=self.qkv_bias,
            proj_drop_rate=self.proj_drop_rate,
            attn_drop_rate=self.attn_drop_rate,
            dtype=self.dtype,
        )

        x = PatchEmbed(self.embed_dim, patch_size, self.dtype, name="patch_embed")(images)
        for i, (depth, heads, window) in enumerate(zip(self.depths, self.num_heads, windows, strict=True)):
            if i > 0:
                map_h, map_w = (map_h + 1) // 2, (map_w + 1) // 2
            x = SwinStage(
                dim=self.embed_dim * 2**i,
                map_size=(map_h, map_w),
                downsample=i > 0,
                num_heads=heads,
                window_size=window,
                drop_path_rates=tuple(next(rates) for _ in range(depth)),
                block=block,
                dtype=self.dtype,
                name=f"layers_{i}",
            )(x, train=train)
        x = layer_norm(NORM_EPS, "norm", self.dtype)(x)
        head = ClassifierHead(self.num_classes, self.drop_rate, self.head_hidden_size, self.dtype, name="head")
        return head(x, train=train)


def check_fields(model: SwinTransformer) -> None:
    """Raises UserError when the fields of the stages do not fit each other."""
    stages = len(model.depths)
    if not stages or len(model.num_heads) != stages:
        raise UserError(
            f"depths={model.depths} and num_heads={model.num_heads} differ in length; "
            "expected one entry of each for every stage."
        )
    stage_windows(model.window_size, stages)
    for i, heads in enumerate(model.num_heads):
        if model.embed_dim * 2**i % heads:
            raise UserError(
                f"embed_dim={model.embed_dim} gives stage {i} the width {model.embed_dim * 2**i}, "
                f"which is not divisible by its num_heads={heads}."
            )


_SMALL = {"depths": (2, 2, 18, 2)}
_BASE = {"embed_dim": 128, "num_heads": (4, 8, 16, 32), **_SMALL}
_LARGE = {"embed_dim": 192, "num_heads": (6, 12, 24, 48), **_SMALL}
_384 = {"image_size": 384, "window_size": 12}

VARIANTS: dict[str, dict[str, Any]] = {
    # Liu et al., 2021, table 7
    "swin_tiny_patch4_window7_224": {},
    "swin_small_patch4_window7_224": _SMALL,
    "swin_base_patch4_window7_224": _BASE,
    "swin_base_patch4_window12_384": {**_BASE, **_384},
    "swin_large_patch4_window7_224": _LARGE,
    "swin_large_patch4_window12_384": {**_LARGE, **_384},
    # Chen et al., 2021, "Searching the Search Space of Vision Transformer"
    "swin_s3_tiny_224": {"window_size": (7, 7, 14, 7)},
    "swin_s3_small_224": {"window_size": (14, 14, 14, 7), **_SMALL},
    "swin_s3_base_224": {"window_size": (7, 7, 14, 7), "depths": (2, 2, 30, 2)},
}

UNSUPPORTED: dict[str, str] = {}
