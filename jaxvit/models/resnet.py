"""Residual networks (He et al., 2016) and their descendants, as timm's `resnet.py` builds them.

ResNeXt (Xie et al., 2017), wide (Zagoruyko and Komodakis, 2016), deep stems and averaged shortcuts (He et al.,
2019), squeeze-excite (Hu et al., 2018), ECA (Wang et al., 2020), anti-aliasing (Zhang, 2019), RS (Bello et al.,
2021) and pruned widths (Aflalo et al., 2020) are fields of one class.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import flax.linen as nn

from jaxvit.errors import UserError
from jaxvit.models import conv_layers
from jaxvit.models.conv_layers import (
    NORMS,
    EfficientChannelAttention,
    FeatureMap,
    SqueezeExcite,
    anti_alias,
    check_images,
    hidden_layer,
    linear,
    pick,
)
from jaxvit.models.layers import Array, DropPath, Dtype, Layer, Size, drop_path_rates, rematerialised
from jaxvit.ops.activations import ACTIVATIONS, ACTIVATIONS_OF_SUMS
from jaxvit.ops.pooling import GLOBAL_POOLS, avg_pool_2x2, max_pool
from jaxvit.precision import at_least_float32

Activation = Callable[[Array], Array]
Norm = Callable[..., Callable[[Array], Array]]  # made with `name` and `train`
STEMS = {"imagenet": 7, "cifar": 3}


def strided_projection(x: Array, features: int, *, stride: int, conv: Layer, norm: Norm, size: int = 1) -> Array:
    """Fits a shortcut to its branch by a strided convolution (He et al., 2016)."""
    x = conv(features, 1 if stride == 1 else size, name="downsample_0", stride=stride)(x)
    return norm(name="downsample_1")(x)


def averaged_projection(x: Array, features: int, *, stride: int, conv: Layer, norm: Norm) -> Array:
    """Fits a shortcut to its branch by a mean and then a 1x1 convolution (He et al., 2019: ResNet-D)."""
    x = avg_pool_2x2(x, ceil=True) if stride == 2 else x
    return norm(name="downsample_2")(conv(features, 1, name="downsample_1")(x))


class ResidualBlock(nn.Module, kw_only=True):
    """act(F(x) + x), or act(F(x) + W x) where the shapes differ: [b, h, w, c] -> [b, h / stride, w / stride, c']."""

    widths: tuple[int, ...]  # output channels of the convolutions in order
    conv: Layer
    norm: Norm
    act: Activation
    act_of_sum: Activation
    projection: Callable[..., Array] = strided_projection  # W
    stride: int = 1
    cardinality: int = 1  # groups of the 3x3 convolution with the stride
    aa: Callable[[Array], Array] | None = None  # halves the map, after that convolution and in place of its stride
    attn: Layer | None = None
    drop_path_rate: float = 0.0
    zero_init_last: bool = True  # every branch starts as nothing and every block as its shortcut

    expansion: ClassVar[int] = 1

    @staticmethod
    def widths_of(planes: int, *, cardinality: int, base_width: int, reduce_first: int) -> tuple[int, ...]:
        """The widths of a block that is not pruned; `planes` is its base width."""
        raise NotImplementedError

    @property
    def conv3x3(self) -> Layer:
        """The convolution with the stride."""
        stride = 1 if self.aa else self.stride
        return partial(self.conv, size=3, stride=stride, feature_group_count=self.cardinality)

    @property
    def last_norm(self) -> Norm:
        """The norm at the end of the branch."""
        scale_init = nn.initializers.zeros if self.zero_init_last else nn.initializers.ones
        return partial(self.norm, scale_init=scale_init)

    def halve(self, x: Array) -> Array:
        return x if self.aa is None else self.aa(x)

    def add(self, x: Array, y: Array, *, train: bool) -> Array:
        """Ends the block: attention and stochastic depth on the branch `y`, then the sum with the shortcut of `x`."""
        if self.attn is not None:
            y = self.attn(name="se")(y)
        y = DropPath(self.drop_path_rate)(y, train=train)
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            norm = partial(self.norm, train=train)
            x = self.projection(x, y.shape[-1], stride=self.stride, conv=self.conv, norm=norm)
        return self.act_of_sum(y + x)


class BasicBlock(ResidualBlock, kw_only=True):
    """F is two 3x3 convolutions, of `planes` channels."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        first, last = self.widths
        y = self.act(self.norm(name="bn1", train=train)(self.conv3x3(first, name="conv1")(x)))
        y = self.last_norm(name="bn2", train=train)(self.conv(last, 3, name="conv2")(self.halve(y)))
        return self.add(x, y, train=train)

    @staticmethod
    def widths_of(planes: int, *, cardinality: int, base_width: int, reduce_first: int) -> tuple[int, ...]:
        if cardinality != 1 or base_width != 64:
            raise UserError("block='basic' has no cardinality and no base_width; use block='bottleneck'.")
        return planes // reduce_first, planes


class Bottleneck(ResidualBlock, kw_only=True):
    """F is a 1x1 convolution, a grouped 3x3 and a 1x1 to 4 * `planes` channels."""

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        first, second, last = self.widths
        y = self.act(self.norm(name="bn1", train=train)(self.conv(first, 1, name="conv1")(x)))
        y = self.act(self.norm(name="bn2", train=train)(self.conv3x3(second, name="conv2")(y)))
        y = self.last_norm(name="bn3", train=train)(self.conv(last, 1, name="conv3")(self.halve(y)))
        return self.add(x, y, train=train)

    @staticmethod
    def widths_of(planes: int, *, cardinality: int, base_width: int, reduce_first: int) -> tuple[int, ...]:
        width = math.floor(planes * (base_width / 64)) * cardinality
        return width // reduce_first, width, 4 * planes


BLOCKS: dict[str, type[ResidualBlock]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
# attn_layer -> what a block does to the channels of its branch
ATTENTIONS: dict[str | None, Callable[..., Layer | None]] = {
    None: lambda **fields: None,
    "se": lambda *, channels, rd_ratio, dtype: partial(SqueezeExcite, rd_ratio=rd_ratio, dtype=dtype),
    "eca": lambda *, channels, rd_ratio, dtype: partial(EfficientChannelAttention, channels=channels, dtype=dtype),
}


class ResNet(nn.Module):
    """images [b, h, w, in_channels] -> float32 logits [b, num_classes], or pooled features when it is 0.

    `block` is "basic" or "bottleneck", for all stages or one name per stage; `layers` counts blocks per stage and
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
        check_images(images, in_channels=self.in_channels, least=1, family="ResNet")
        self.stage_blocks()
        rates = iter(drop_path_rates(self.drop_path_rate, sum(self.layers)))
        run = rematerialised(partial(_run_block, train=train), self.remat)

        x = self.embed(images, train=train)
        for stage, depth in enumerate(self.layers):
            for i in range(depth):
                block = self.make_block(stage, i)
                x = run(block(drop_path_rate=next(rates), name=f"layer{stage + 1}_{i}"), x)
        x = FeatureMap(name="features")(x)
        x = pick(GLOBAL_POOLS, "global_pool", self.global_pool)(x)
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        if self.num_classes:
            x = hidden_layer(
                x,
                features=self.head_hidden_size,
                name="head_hidden",
                act_layer=self.act_layer,
                drop_rate=self.drop_rate,
                dtype=self.dtype,
                train=train,
            )
            x = linear(x, self.num_classes, name="fc", dtype=self.dtype)
        return at_least_float32(x)

    @property
    def conv(self) -> Layer:
        """A convolution without its widths, size, stride and name."""
        return partial(conv_layers.conv, dtype=self.dtype)

    @property
    def norm(self) -> Norm:
        """A norm without its name."""
        return partial(pick(NORMS, "norm_layer", self.norm_layer), dtype=self.dtype)

    @property
    def act(self) -> Activation:
        """The activation after every norm but the last of a branch."""
        return pick(ACTIVATIONS, "act_layer", self.act_layer)

    def embed(self, images: Array, *, train: bool) -> Array:
        """The stem: a quarter of the resolution, or all of it for "cifar"."""
        conv, norm, act = self.conv, partial(self.norm, train=train), self.act
        first, width = pick(self.stem_widths(), "stem_type", self.stem_type)
        size = pick(STEMS, "stem", self.stem)
        if self.stem == "cifar":
            return act(norm(name="bn1")(conv(width, size, name="conv1")(images)))
        if self.stem_type:
            x = act(norm(name="conv1_1")(conv(first, 3, name="conv1_0", stride=2)(images)))
            x = act(norm(name="conv1_4")(conv(self.stem_width, 3, name="conv1_3")(x)))
            x = conv(width, 3, name="conv1_6")(x)
        else:
            x = conv(width, size, name="conv1", stride=2)(images)
        x = act(norm(name="bn1")(x))
        if self.replace_stem_pool:
            x = conv(width, 3, name="maxpool_0", stride=1 if self.aa_layer else 2)(x)
            x = anti_alias(x, self.aa_layer) if self.aa_layer else x
            return act(norm(name="maxpool_2" if self.aa_layer else "maxpool_1")(x))
        if self.aa_layer is None:
            return max_pool(x, 3, stride=2, padding=1)
        x = x if self.aa_layer == "avg" else max_pool(x, 3, stride=1, padding=1)
        return anti_alias(x, self.aa_layer)

    def stem_widths(self) -> dict[str, tuple[int, int]]:
        """stem_type -> widths of the first convolution and of the stem's output."""
        w = self.stem_width
        return {"": (64, 64), "deep": (w, 2 * w), "deep_tiered": (3 * (w // 4), 2 * w)}

    def stage_blocks(self) -> tuple[str, ...]:
        """The block type of each stage. Raises UserError where stages are counted differently."""
        kinds = (self.block,) * len(self.layers) if isinstance(self.block, str) else self.block
        if not len(kinds) == len(self.layers) == len(self.channels):
            raise UserError(
                f"layers={self.layers}, channels={self.channels} and block={self.block!r} differ in the number of "
                "stages; expected one entry per stage."
            )
        return kinds

    def block_widths(self, stage: int, index: int) -> tuple[int, ...]:
        """The output channels of a block's convolutions."""
        if self.pruned is not None:
            width, inner = self.pruned[stage]
            return (*inner[index], width)
        return pick(BLOCKS, "block", self.stage_blocks()[stage]).widths_of(
            self.channels[stage],
            cardinality=self.cardinality,
            base_width=self.base_width,
            reduce_first=self.block_reduce_first,
        )

    def make_block(self, stage: int, index: int) -> Layer:
        """The block of that place, still without its stochastic depth and name."""
        block = pick(BLOCKS, "block", self.stage_blocks()[stage])
        attention = pick(ATTENTIONS, "attn_layer", self.attn_layer)
        channels = self.channels[stage] * block.expansion
        stride = 2 if stage > 0 and index == 0 else 1
        projection = averaged_projection if self.avg_down else partial(strided_projection, size=self.down_kernel_size)
        aa_layer = self.aa_layer if stride == 2 else None
        return partial(
            block,
            widths=self.block_widths(stage, index),
            conv=self.conv,
            norm=self.norm,
            act=self.act,
            act_of_sum=pick(ACTIVATIONS_OF_SUMS, "act_layer", self.act_layer),
            projection=projection,
            stride=stride,
            cardinality=self.cardinality,
            aa=partial(anti_alias, aa_layer=aa_layer, in_block=True) if aa_layer else None,
            attn=attention(channels=channels, rd_ratio=self.rd_ratio, dtype=self.dtype),
            zero_init_last=self.zero_init_last,
        )


def _run_block(block: ResidualBlock, x: Array, *, train: bool) -> Array:
    return block(x, train=train)
