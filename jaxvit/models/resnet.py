"""Residual networks (He et al., 2016) and their descendants, as timm's `resnet.py` builds them.

ResNeXt (Xie et al., 2017), wide (Zagoruyko and Komodakis, 2016), deep stems and averaged shortcuts (He et al.,
2019), squeeze-excite (Hu et al., 2018), ECA (Wang et al., 2020), anti-aliasing (Zhang, 2019), RS (Bello et al.,
2021) and pruned widths (Aflalo et al., 2020) are fields of one class.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn

from jaxvit.errors import UserError
from jaxvit.models.conv_layers import (
    NORMS,
    EfficientChannelAttention,
    FeatureMap,
    SqueezeExcite,
    anti_alias,
    check_images,
    conv,
    hidden_layer,
    linear,
    pick,
)
from jaxvit.models.layers import Array, DropPath, Dtype, Size, drop_path_rates, rematerialised
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.pooling import GLOBAL_POOLS, avg_pool_2x2, max_pool
from jaxvit.precision import at_least_float32

STEMS = {"imagenet": 7, "cifar": 3}


class ResidualBlock(nn.Module):
    """What the two blocks share: fields, norms, attention and the shortcut. `planes` is the base width.

    `pruned` replaces the widths of the convolutions, all given in order.
    """

    planes: int
    stride: int = 1
    cardinality: int = 1
    base_width: int = 64
    block_reduce_first: int = 1
    avg_down: bool = False
    down_kernel_size: int = 1
    act_layer: str = "relu"
    norm_layer: str = "batchnorm"
    aa_layer: str | None = None
    attn_layer: str | None = None
    rd_ratio: float = 1 / 16
    drop_path_rate: float = 0.0
    zero_init_last: bool = True
    pruned: tuple[int, ...] | None = None
    dtype: Dtype = None

    expansion: ClassVar[int] = 1

    def parts(self, train: bool) -> tuple[Callable, Callable, Callable]:
        """Returns the activation and the makers of convolutions and of norms."""
        norm = functools.partial(pick(NORMS, "norm_layer", self.norm_layer), train=train, dtype=self.dtype)
        return pick(ACTIVATIONS, "act_layer", self.act_layer), functools.partial(conv, dtype=self.dtype), norm

    def spatial_conv(self, x: Array, features: int, name: str, norm: nn.Module, act: Callable) -> Array:
        """The 3x3 convolution with the stride, which the anti-aliasing layer takes over where there is one."""
        aa_layer = self.aa_layer if self.stride == 2 else None
        stride = 1 if aa_layer else self.stride
        x = conv(features, 3, name, stride, feature_group_count=self.cardinality, dtype=self.dtype)(x)
        x = act(norm(x))
        return anti_alias(x, aa_layer, in_block=True) if aa_layer else x

    def add(self, shortcut: Array, x: Array, act: Callable, norm: Callable, train: bool) -> Array:
        """Ends the block: attention and stochastic depth on the branch `x`, then the sum with the shortcut."""
        x = pick(ATTENTIONS, "attn_layer", self.attn_layer)(self)(x)
        x = DropPath(self.drop_path_rate)(x, train=train)
        if self.stride != 1 or shortcut.shape[-1] != x.shape[-1]:
            shortcut = self.downsample(shortcut, x.shape[-1], norm)
        return act(x + shortcut)

    def downsample(self, x: Array, features: int, norm: Callable) -> Array:
        """Fits the shortcut to the branch: by a strided convolution, or by a mean and then a convolution."""
        if self.avg_down:
            x = avg_pool_2x2(x, ceil=True) if self.stride == 2 else x
            x = conv(features, 1, "downsample_1", dtype=self.dtype)(x)
            return norm("downsample_2")(x)
        size, stride = (1 if self.stride == 1 else self.down_kernel_size), self.stride
        x = conv(features, size, "downsample_0", stride, dtype=self.dtype)(x)
        return norm("downsample_1")(x)

    @property
    def last_scale_init(self) -> Callable:
        """Zero makes every branch start as nothing and every block as its shortcut."""
        return nn.initializers.zeros if self.zero_init_last else nn.initializers.ones


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions: [b, h, w, c] -> [b, h / stride, w / stride, planes]."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        if self.cardinality != 1 or self.base_width != 64:
            raise UserError("block='basic' has no cardinality and no base_width; use block='bottleneck'.")
        act, conv, norm = self.parts(train)
        first, last = self.pruned or (self.planes // self.block_reduce_first, self.planes)
        y = self.spatial_conv(x, first, "conv1", norm("bn1"), act)
        y = conv(last, 3, "conv2")(y)
        y = norm("bn2", scale_init=self.last_scale_init)(y)
        return self.add(x, y, act, norm, train)


class Bottleneck(ResidualBlock):
    """1x1, grouped 3x3 with the stride, 1x1: [b, h, w, c] -> [b, h / stride, w / stride, 4 * planes]."""

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        act, conv, norm = self.parts(train)
        width = math.floor(self.planes * (self.base_width / 64)) * self.cardinality
        first, second, last = self.pruned or (width // self.block_reduce_first, width, self.planes * 4)
        y = act(norm("bn1")(conv(first, 1, "conv1")(x)))
        y = self.spatial_conv(y, second, "conv2", norm("bn2"), act)
        y = conv(last, 1, "conv3")(y)
        y = norm("bn3", scale_init=self.last_scale_init)(y)
        return self.add(x, y, act, norm, train)


# attn_layer -> what a block does to the channels of its branch
ATTENTIONS: dict[str | None, Callable[[ResidualBlock], Callable[[Array], Array]]] = {
    None: lambda block: lambda x: x,
    "se": lambda block: SqueezeExcite(block.rd_ratio, dtype=block.dtype, name="se"),
    "eca": lambda block: EfficientChannelAttention(block.planes * block.expansion, block.dtype, name="se"),
}
BLOCKS: dict[str, type[ResidualBlock]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """images [b, h, w, in_channels] -> float32 logits [b, num_classes], or pooled features when it is 0.

    `block` is "basic" or "bottleneck", for all stages or one word per stage; `layers` counts blocks per stage and
    `channels` their base widths. `stem="cifar"` is one 3x3 convolution with stride 1 and no pool (no weights
    exist for it), and `head_hidden_size` puts a hidden layer with activation and dropout before the classifier
    (timm has neither); `stem_type` ("", "deep", "deep_tiered") and the rest are timm's. `pruned` holds, for each
    stage, its output width and the widths (conv1, conv2) of each bottleneck.
    """

    block: str | tuple[str, ...] = "bottleneck"
    layers: tuple[int, ...] = (3, 4, 6, 3)
    num_classes: int = 1000
    in_channels: int = 3
    image_size: Size = 224
    global_pool: str = "avg"
    stem: str = "imagenet"
    stem_type: str = ""
    stem_width: int = 64
    replace_stem_pool: bool = False
    channels: tuple[int, ...] = (64, 128, 256, 512)
    cardinality: int = 1
    base_width: int = 64
    block_reduce_first: int = 1
    down_kernel_size: int = 1
    avg_down: bool = False
    act_layer: str = "relu"
    norm_layer: str = "batchnorm"
    aa_layer: str | None = None
    attn_layer: str | None = None
    rd_ratio: float = 1 / 16
    pruned: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] | None = None
    head_hidden_size: int | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    zero_init_last: bool = True
    dtype: Dtype = None
    remat: bool | str = False  # "dots" keeps the results of convolutions, "block" (or True) only the input

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        check_images(images, self.in_channels, 1, "ResNet")
        x = self.embed(images, train)
        for block in self.blocks():
            x = rematerialised(functools.partial(_run_block, train=train), self.remat)(block, x)
        x = FeatureMap(name="features")(x)
        x = pick(GLOBAL_POOLS, "global_pool", self.global_pool)(x)
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        if self.num_classes:
            hidden = (self.head_hidden_size, "head_hidden", self.act_layer, self.drop_rate, self.dtype)
            x = linear(hidden_layer(x, *hidden, train=train), self.num_classes, "fc", self.dtype)
        return at_least_float32(x)

    def embed(self, images: Array, train: bool) -> Array:
        """The stem: a quarter of the resolution, or all of it for "cifar"."""
        act = pick(ACTIVATIONS, "act_layer", self.act_layer)
        norm = functools.partial(pick(NORMS, "norm_layer", self.norm_layer), train=train, dtype=self.dtype)
        first, width = pick(self.stem_widths(), "stem_type", self.stem_type)
        size = pick(STEMS, "stem", self.stem)
        if self.stem == "cifar":
            return act(norm("bn1")(conv(width, size, "conv1", dtype=self.dtype)(images)))
        if self.stem_type:
            x = act(norm("conv1_1")(conv(first, 3, "conv1_0", 2, dtype=self.dtype)(images)))
            x = act(norm("conv1_4")(conv(self.stem_width, 3, "conv1_3", dtype=self.dtype)(x)))
            x = conv(width, 3, "conv1_6", dtype=self.dtype)(x)
        else:
            x = conv(width, size, "conv1", 2, dtype=self.dtype)(images)
        return self._stem_pool(act(norm("bn1")(x)), act, norm)

    def stem_widths(self) -> dict[str, tuple[int, int]]:
        """stem_type -> widths of the first convolution and of the stem's output."""
        w = self.stem_width
        return {"": (64, 64), "deep": (w, 2 * w), "deep_tiered": (3 * (w // 4), 2 * w)}

    def _stem_pool(self, x: Array, act: Callable, norm: Callable) -> Array:
        """Halves the stem's output: by a convolution (RS), an anti-aliasing layer or a maximum."""
        if self.replace_stem_pool:
            x = conv(x.shape[-1], 3, "maxpool_0", 1 if self.aa_layer else 2, dtype=self.dtype)(x)
            x = anti_alias(x, self.aa_layer) if self.aa_layer else x
            return act(norm("maxpool_2" if self.aa_layer else "maxpool_1")(x))
        if self.aa_layer == "avg":
            return anti_alias(x, "avg")
        if self.aa_layer:
            return anti_alias(max_pool(x, 3, 1, 1), self.aa_layer)
        return max_pool(x, 3, 2, 1)

    def stage_blocks(self) -> tuple[str, ...]:
        """The word of each stage's blocks. Raises UserError where stages are counted differently."""
        kinds = (self.block,) * len(self.layers) if isinstance(self.block, str) else self.block
        if not len(kinds) == len(self.layers) == len(self.channels):
            raise UserError(
                f"layers={self.layers}, channels={self.channels} and block={self.block!r} differ in the number of "
                "stages; expected one entry per stage."
            )
        return kinds

    def blocks(self) -> list[ResidualBlock]:
        """All blocks in order, named `layer{stage}_{index}`."""
        kinds = self.stage_blocks()
        rates = iter(drop_path_rates(self.drop_path_rate, sum(self.layers)))
        shared = {f: getattr(self, f) for f in _SHARED_FIELDS}
        blocks = []
        for s, (kind, depth, planes) in enumerate(zip(kinds, self.layers, self.channels, strict=True)):
            for i in range(depth):
                own: dict[str, Any] = {"stride": 2 if s > 0 and i == 0 else 1, "drop_path_rate": next(rates)}
                if self.pruned is not None:
                    own["pruned"] = (*self.pruned[s][1][i], self.pruned[s][0])
                blocks.append(pick(BLOCKS, "block", kind)(planes, **own, **shared, name=f"layer{s + 1}_{i}"))
        return blocks


_SHARED_FIELDS = (
    "cardinality", "base_width", "block_reduce_first", "avg_down", "down_kernel_size", "act_layer", "norm_layer",
    "aa_layer", "attn_layer", "rd_ratio", "zero_init_last", "dtype",
)  # fmt: skip


def _run_block(block: ResidualBlock, x: Array, *, train: bool) -> Array:
    return block(x, train=train)
