"""Swin Transformer: shifted windows (Liu et al., 2021) and its variants S3 (Chen et al., 2021)."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from jaxvit.errors import UserError, suggest
from jaxvit.models.conv_layers import hidden_layer, torch_bias
from jaxvit.models.layers import (
    Array,
    Conv,
    Dense,
    DropPath,
    Dtype,
    Layer,
    Mlp,
    Size,
    check_floats,
    check_patches,
    drop_path_rates,
    layer_norm,
    rematerialised,
    to_pair,
    torch_uniform,
    trunc_normal,
    watch_or_drop,
)
from jaxvit.models.windows import (
    Pair,
    clamp_window,
    relative_position_index,
    stage_windows,
)
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.pooling import MAP_POOLS
from jaxvit.ops.window_attention import KERNELS, window_attention
from jaxvit.precision import at_least_float32

CHOICES: dict[str, tuple[str | None, ...]] = {
    "global_pool": tuple(MAP_POOLS),
    "act_layer": tuple(ACTIVATIONS),
    "attn_implementation": (None, "xla", *KERNELS),
}
NORM_EPS = 1e-5  # torch.nn.LayerNorm's own; timm's ViT uses 1e-6


class WindowAttention(nn.Module):
    """Self-attention in (shifted) windows with a learned bias per relative position: [b, h, w, d] -> the same.

    A map that the windows do not divide is shifted, then padded, and both undone.
    """

    num_heads: int
    window_size: Pair
    shift_size: Pair = (0, 0)
    qkv_bias: bool = True
    attn_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    implementation: str | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        (_, h, w, _), (wh, ww), (sh, sw) = x.shape, self.window_size, self.shift_size
        pad_h, pad_w = -h % wh, -w % ww
        if not pad_h and not pad_w:
            return self.attend(x, train=train)
        x = jnp.roll(x, (-sh, -sw), (1, 2))
        x = jnp.pad(x, ((0, 0), (0, pad_h), (0, pad_w), (0, 0)))
        x = self.attend(x, rolled=True, train=train)[:, :h, :w]
        return jnp.roll(x, (sh, sw), (1, 2))

    def attend(self, x: Array, *, rolled: bool = False, train: bool) -> Array:
        """Attends in the windows of a map that they divide; one that was `rolled` before wants the mask only."""
        d, (wh, ww) = x.shape[-1], self.window_size
        table_shape = ((2 * wh - 1) * (2 * ww - 1), self.num_heads)
        table = self.param("relative_position_bias_table", trunc_normal, table_shape)
        bias = table[relative_position_index(self.window_size)].transpose(2, 0, 1)  # [heads n n]
        dense = partial(Dense, dtype=self.dtype, kernel_init=trunc_normal)
        qkv = dense(3 * d, use_bias=self.qkv_bias, name="qkv")(x)
        implementation = None if self.is_initializing() else self.implementation
        x = window_attention(
            qkv, bias, self.window_size, self.shift_size, rolled=rolled, implementation=implementation,
            change=watch_or_drop(self, self.attn_drop_rate, train),
        )  # fmt: skip
        return nn.Dropout(self.proj_drop_rate)(dense(d, name="proj")(x), deterministic=not train)


class SwinBlock(nn.Module):
    """The transformer block, with attention in (shifted) windows: [b, h, w, d] -> same."""

    attn: Layer
    mlp: Layer
    norm: Layer
    drop_path_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # by position: nn.remat needs it static
        y = self.attn(name="attn")(self.norm(name="norm1")(x), train=train)
        x = x + DropPath(self.drop_path_rate)(y, train=train)
        y = self.mlp(name="mlp")(self.norm(name="norm2")(x), train=train)
        return x + DropPath(self.drop_path_rate)(y, train=train)


class PatchMerging(nn.Module):
    """Joins 2x2 neighbours and projects them: [b, h, w, d] -> [b, ceil(h/2), ceil(w/2), features]."""

    features: int
    norm: Layer
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, d = x.shape
        if h % 2 or w % 2:
            x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        h, w = (h + 1) // 2, (w + 1) // 2
        # (row, column) of the neighbours in the order (0, 0), (1, 0), (0, 1), (1, 1)
        x = x.reshape(b, h, 2, w, 2, d).transpose(0, 1, 3, 4, 2, 5).reshape(b, h, w, 4 * d)
        reduction = Dense(self.features, use_bias=False, dtype=self.dtype, kernel_init=trunc_normal, name="reduction")
        return self.project(x, reduction, self.norm(name="norm"))

    def project(self, x: Array, reduction: nn.Module, norm: nn.Module) -> Array:
        """The projection of what was joined, and the norm before it."""
        return reduction(norm(x))


class SwinStage(nn.Module):
    """Patch merging (but in the first stage), then blocks whose windows are plain and shifted in turn."""

    map_size: Pair
    window_size: Pair
    drop_path_rates: tuple[float, ...]
    attn: Layer  # but for its windows
    block: Layer  # but for its attention
    downsample: Layer | None = None
    always_partition: bool = False

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        if self.downsample is not None:
            x = self.downsample(name="downsample")(x)
        for i, rate in enumerate(self.drop_path_rates):
            window, shift = clamp_window(
                self.map_size, self.window_size, shifted=i % 2 == 1, always_partition=self.always_partition
            )
            attn = partial(self.attn, window_size=window, shift_size=shift)
            x = self.block(attn=attn, drop_path_rate=rate, name=f"blocks_{i}")(x, train)
        return x


class PatchEmbed(nn.Module):
    """Projects patches and normalises them: images [b, h, w, c] -> [b, h/p, w/p, d]."""

    features: int
    patch_size: Pair
    norm: Layer
    dtype: Dtype = None

    @nn.compact
    def __call__(self, images: Array) -> Array:
        fan_in = self.patch_size[0] * self.patch_size[1] * images.shape[-1]
        proj = Conv(
            self.features,
            self.patch_size,
            self.patch_size,
            padding=0,
            dtype=self.dtype,
            kernel_init=torch_uniform,
            bias_init=torch_bias(fan_in),
            name="proj",
        )
        return self.norm(name="norm")(proj(images))


class ClassifierHead(nn.Module):
    """Pool over the map, dropout, linear: [b, h, w, d] -> [b, num_classes]; [b, d] if `num_classes` is 0.

    With `hidden_size` a hidden layer, GELU and dropout come before the linear layer.
    """

    num_classes: int
    pool: Callable[[Array], Array]
    drop_rate: float = 0.0
    hidden_size: int | None = None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        x = self.pool(at_least_float32(x))
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        if self.num_classes == 0:
            return x
        x = hidden_layer(
            x,
            features=self.hidden_size,
            name="hidden",
            act_layer="gelu",
            drop_rate=self.drop_rate,
            dtype=self.dtype,
            train=train,
        )
        x = Dense(self.num_classes, dtype=self.dtype, kernel_init=trunc_normal, name="fc")(x)
        return at_least_float32(x)


class SwinTransformer(nn.Module):
    """Swin Transformer (Liu et al., 2021): images [b, h, w, c] -> logits [b, num_classes].

    `image_size` fixes the windows (clamped to small maps) and with them the parameters; images of any other
    size that the patches divide are accepted too, padded to whole windows, unless `strict_img_size` refuses them.
    `window_size` is one int, one (height, width) or one entry per stage. `global_pool=""` returns [b, h, w, ...].
    Raises UserError for images that the patches do not divide.
    """

    attention_class: ClassVar[type[nn.Module]] = WindowAttention
    block_class: ClassVar[type[nn.Module]] = SwinBlock
    merging_class: ClassVar[type[nn.Module]] = PatchMerging

    num_classes: int = 1000
    in_channels: int = 3
    image_size: Size = 224
    global_pool: str = "avg"
    patch_size: Size = 4
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int | tuple[int | tuple[int, int], ...] = 7
    always_partition: bool = False  # windows keep their size and shift on smaller maps, which are padded
    strict_img_size: bool = False
    crop_to_patches: bool = False  # cut off pixels that fill no patch, instead of refusing
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    act_layer: str = "gelu"
    head_hidden_size: int | None = None  # of a hidden layer before the classifier; not in timm
    drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    attn_implementation: str | None = None  # "pallas": one kernel, on a GPU; "interpret": the same slowly, anywhere
    dtype: Dtype = None
    remat: bool | str = False  # "dots" keeps the results of linear layers, "block" (or True) only the input

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        patch_size = to_pair(self.patch_size)
        check_fields(self)
        if images.ndim != 4 or images.shape[-1] != self.in_channels:
            raise UserError(f"images have shape {images.shape}; expected [b, h, w, {self.in_channels}].")
        check_floats(images)
        (want_h, want_w), (h, w) = to_pair(self.image_size), images.shape[1:3]
        for size in ((want_h, want_w), (h, w)):
            check_patches(size, patch_size, crops=self.crop_to_patches)
        if self.strict_img_size and (h, w) != (want_h, want_w):
            raise UserError(
                f"image {h}x{w} does not fit the model's image_size {want_h}x{want_w}; "
                f"expected that size, image_size=({h}, {w}) or strict_img_size=False."
            )
        map_h, map_w = (i // p for i, p in zip(to_pair(self.image_size), patch_size, strict=True))
        windows = stage_windows(self.window_size, len(self.depths))
        rates = iter(drop_path_rates(self.drop_path_rate, sum(self.depths)))
        norm = partial(layer_norm, NORM_EPS, dtype=self.dtype)
        block = partial(rematerialised(self.block_class, self.remat, static_argnums=(2,)), norm=norm)
        mlp = partial(Mlp, act=self.act_layer, drop_rate=self.proj_drop_rate, dtype=self.dtype)
        merge = partial(self.merging_class, norm=norm, dtype=self.dtype)

        x = PatchEmbed(self.embed_dim, patch_size, norm=norm, dtype=self.dtype, name="patch_embed")(images)
        for i, (depth, heads, window) in enumerate(zip(self.depths, self.num_heads, windows, strict=True)):
            dim = self.embed_dim * 2**i
            if i > 0:
                map_h, map_w = (map_h + 1) // 2, (map_w + 1) // 2
            x = SwinStage(
                map_size=(map_h, map_w),
                window_size=window,
                drop_path_rates=tuple(next(rates) for _ in range(depth)),
                attn=partial(self.attention(i), num_heads=heads),
                block=partial(block, mlp=partial(mlp, hidden_dim=int(dim * self.mlp_ratio))),
                downsample=partial(merge, features=dim) if i > 0 else None,
                always_partition=self.always_partition,
                name=f"layers_{i}",
            )(x, train=train)
        x = norm(name="norm")(x)
        head = ClassifierHead(
            num_classes=self.num_classes,
            pool=MAP_POOLS[self.global_pool],
            drop_rate=self.drop_rate,
            hidden_size=self.head_hidden_size,
            dtype=self.dtype,
            name="head",
        )
        return head(x, train=train)

    def attention(self, stage: int) -> Layer:
        """The attention of a stage's blocks, but for its windows and heads."""
        return partial(self.attention_class, **self.attention_fields())

    def attention_fields(self) -> dict[str, Any]:
        """What all stages have in common."""
        return {
            "qkv_bias": self.qkv_bias,
            "attn_drop_rate": self.attn_drop_rate,
            "proj_drop_rate": self.proj_drop_rate,
            "implementation": self.attn_implementation,
            "dtype": self.dtype,
        }


def check_fields(model: SwinTransformer) -> None:
    """Raises UserError when the fields of the stages do not fit each other."""
    for field, choices in CHOICES.items():
        if (value := getattr(model, field)) not in choices:
            near = suggest(str(value), [choice for choice in choices if choice])
            raise UserError(f"{field}={value!r} is unknown; expected one of {', '.join(map(repr, choices))}.{near}")
    stages = len(model.depths)
    if not stages or len(model.num_heads) != stages:
        raise UserError(
            f"depths={model.depths} and num_heads={model.num_heads} differ in length; "
            "expected one entry of each per stage."
        )
    stage_windows(model.window_size, stages)
    if model.attn_implementation in KERNELS and model.attn_drop_rate:
        raise UserError(
            f"attn_implementation={model.attn_implementation!r} drops no attention weights; expected attn_drop_rate 0."
        )
    for i, heads in enumerate(model.num_heads):
        if model.embed_dim * 2**i % heads:
            raise UserError(
                f"embed_dim={model.embed_dim} gives stage {i} the width {model.embed_dim * 2**i}, "
                f"which is not divisible by its num_heads={heads}."
            )
