"""ConvNeXt (Liu et al., 2022, "A ConvNet for the 2020s") and ConvNeXt V2 (Woo et al., 2023)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.errors import UserError
from jaxvit.models import conv_layers
from jaxvit.models.conv_layers import check_images, pick
from jaxvit.models.layers import (
    Array,
    Dense,
    DropPath,
    Dtype,
    Layer,
    LayerNorm,
    Size,
    drop_path_rates,
    rematerialised,
    scaled_normal,
    trunc_normal,
)
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.pooling import MAP_POOLS
from jaxvit.precision import at_least_float32

STAGES = 4
OUTPUT_STRIDES = (8, 16, 32)
MLP_RATIO = 4
GRN_EPS = 1e-6


def per_channel(values: Array, x: Array) -> Array:
    """[d] -> [1, ..., 1, d], of the rank of x."""
    return jnp.expand_dims(values, tuple(range(x.ndim - 1)))


class SimpleNorm(nn.Module):
    """x / std(x) over the last axis, with the unbiased variance about the mean, times a scale: [..., d] -> same."""

    epsilon: float
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        wide = at_least_float32(x)
        variance = jnp.var(wide, axis=-1, keepdims=True, ddof=1)
        y = wide * jax.lax.rsqrt(variance + self.epsilon) * per_channel(scale, x)
        return y.astype(self.dtype or jnp.result_type(x, scale))


# norm_layer -> a norm over channels, made with `epsilon`, `dtype` and `name`; timm's names ending in 2d are the same
_NORMS: dict[str, Layer] = {"layernorm": LayerNorm, "rmsnorm": nn.RMSNorm, "simplenorm": SimpleNorm}
NORMS = _NORMS | {f"{name}2d": norm for name, norm in _NORMS.items()}


class GlobalResponseNorm(nn.Module):
    """Lets channels compete by their norms over the map (Woo et al., 2023, section 3.2): [b, h, w, c] -> same."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape, wide = x.shape[-1:], at_least_float32(x)
        scale = self.param("scale", nn.initializers.zeros, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        squares = jnp.sum(jnp.square(wide), axis=(1, 2), keepdims=True)
        there = squares > 0  # of a channel without a response the root has no derivative: 0, as in PyTorch
        one, zero = jnp.ones_like(squares), jnp.zeros_like(squares)  # of its type, which exporters look at
        norms = jnp.where(there, jnp.sqrt(jnp.where(there, squares, one)), zero)
        response = norms / (norms.mean(-1, keepdims=True) + GRN_EPS)
        return x + (per_channel(scale, x) * (wide * response) + per_channel(bias, x)).astype(x.dtype)


class ConvNeXtMlp(nn.Module):
    """Two layers over channels, with a global response norm between them in V2: [b, h, w, c] -> same.

    `layer` is linear, or a 1x1 convolution: the same numbers, whose kernels have two more axes.
    """

    layer: Layer
    act: Callable[[Array], Array]
    use_grn: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        x = self.act(self.layer(MLP_RATIO * c, name="fc1")(x))
        x = GlobalResponseNorm(name="grn")(x) if self.use_grn else x
        return self.layer(c, name="fc2")(x)


class ConvNeXtBlock(nn.Module):
    """x + gamma * mlp(norm(depthwise convolution(x))): [b, h, w, c] -> same."""

    conv_dw: Layer
    norm: Layer
    mlp: Layer
    ls_init_value: float | None = 1e-6  # None: no gamma
    drop_path_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # by position: nn.remat needs it static
        c = x.shape[-1]
        y = self.conv_dw(c, feature_group_count=c, name="conv_dw")(x)
        y = self.mlp(name="mlp")(self.norm(name="norm")(y))
        if self.ls_init_value is not None:
            gamma = self.param("gamma", nn.initializers.constant(self.ls_init_value), (c,), jnp.float32)
            y = y * per_channel(gamma, y).astype(y.dtype)
        return x + DropPath(self.drop_path_rate)(y, train=train)


class Step(NamedTuple):
    """What a stage does to the map: its stride, and the dilations of its first convolution and of its blocks."""

    stride: int
    first: int
    dilation: int
    reduction: int  # pixels of the image between two cells afterwards

    @property
    def downsamples(self) -> bool:
        """Whether the stage begins with a norm and a 2x2 convolution."""
        return self.stride > 1 or self.first != self.dilation


class ConvNeXtStage(nn.Module):
    """A norm and a 2x2 convolution that halves the map (but in the first stage), then blocks.

    A stage that is dilated instead keeps the map, padded below and right.
    """

    features: int
    step: Step
    drop_path_rates: tuple[float, ...]
    conv: Layer
    norm: Layer
    block: Layer

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        step = self.step
        if step.downsamples:
            x = self.norm(name="downsample_0")(x)
            pad = 0 if step.dilation == 1 else [(step.first // 2, step.first - step.first // 2)] * 2
            how = {"stride": step.stride, "padding": pad, "kernel_dilation": step.first}
            x = self.conv(self.features, 2, **how, name="downsample_1")(x)
        for i, rate in enumerate(self.drop_path_rates):
            x = self.block(drop_path_rate=rate, name=f"blocks_{i}")(x, train)
        return x


class HiddenLayer(nn.Module):
    """A linear layer and GELU before the classifier: [..., d] -> [..., features]."""

    features: int
    layer: Layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return ACTIVATIONS["gelu"](self.layer(self.features, name="fc")(x))


class ConvNeXtHead(nn.Module):
    """Pool, norm, hidden layer (each unless None), dropout, linear: [b, h, w, c] -> [b, num_classes].

    Without the linear layer if `num_classes` is 0. Without a pool `layer` is a 1x1 convolution, of a map of logits.
    """

    num_classes: int
    pool: Callable[[Array], Array]
    norm: Layer | None
    layer: Layer
    hidden_size: int | None = None
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        x = self.pool(at_least_float32(x))
        x = x if self.norm is None else self.norm(name="norm")(x)
        x = x if self.hidden_size is None else HiddenLayer(self.hidden_size, self.layer, name="pre_logits")(x)
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        if self.num_classes:
            x = self.layer(self.num_classes, name="fc")(x)
        return at_least_float32(x)


class ConvNeXt(nn.Module):
    """images [b, h, w, in_channels] -> float32 logits [b, num_classes], or pooled features when it is 0.

    `depths` counts the blocks of the four stages, `dims` their channels; `kernel_sizes` is one odd number, or one per
    stage. The fields are timm's: `stem_type` "patch" (one convolution of `patch_size`), or two 3x3 convolutions,
    "overlap", "overlap_tiered" (the first with half the channels) and "overlap_act" (an activation between);
    `conv_mlp` has the same numbers, in files of another shape; `head_norm_first` puts the last norm before the pool;
    `head_hidden_size` is a hidden layer before the classifier, which belongs to the features; `output_stride` is the
    coarsest map, beyond which kernels are dilated. `use_grn` with `ls_init_value=None` is V2.
    """

    num_classes: int = 1000
    in_channels: int = 3
    image_size: Size = 224
    global_pool: str = "avg"
    depths: tuple[int, ...] = (3, 3, 9, 3)
    dims: tuple[int, ...] = (96, 192, 384, 768)
    kernel_sizes: int | tuple[int, ...] = 7
    ls_init_value: float | None = 1e-6
    stem_type: str = "patch"
    patch_size: int = 4
    output_stride: int = 32
    head_norm_first: bool = False
    head_init_scale: float = 1.0  # of the classifier's random weights
    head_hidden_size: int | None = None
    conv_mlp: bool = False
    conv_bias: bool = True
    use_grn: bool = False
    act_layer: str = "gelu"
    norm_layer: str = "layernorm"
    norm_eps: float = 1e-6
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: Dtype = None
    remat: bool | str = False  # "dots" keeps the results of convolutions and linear layers, "block" only the input

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        check_fields(self)
        check_images(images, in_channels=self.in_channels, least=self.least_side(), family="this ConvNeXt")
        conv = partial(conv_layers.conv, use_bias=self.conv_bias, kernel_init=trunc_normal, dtype=self.dtype)
        norm = partial(pick(NORMS, "norm_layer", self.norm_layer), epsilon=self.norm_eps, dtype=self.dtype)
        act = pick(ACTIVATIONS, "act_layer", self.act_layer)
        pool = pick(MAP_POOLS, "global_pool", self.global_pool)
        linear = partial(Dense, kernel_init=trunc_normal, dtype=self.dtype)
        layer = partial(conv_layers.conv, size=1, use_bias=True, kernel_init=trunc_normal, dtype=self.dtype)
        block = partial(
            rematerialised(ConvNeXtBlock, self.remat, static_argnums=(2,)),
            norm=norm,
            mlp=partial(ConvNeXtMlp, layer=layer if self.conv_mlp else linear, act=act, use_grn=self.use_grn),
            ls_init_value=self.ls_init_value,
        )
        rates = iter(drop_path_rates(self.drop_path_rate, sum(self.depths)))

        x = self.embed(images, conv=conv, norm=norm, act=act)
        stages = zip(self.depths, self.stage_kernels(), self.steps(), strict=True)
        for i, (depth, size, step) in enumerate(stages):
            pad = step.dilation * (size // 2)
            x = ConvNeXtStage(
                features=self.dims[i],
                step=step,
                drop_path_rates=tuple(next(rates) for _ in range(depth)),
                conv=conv,
                norm=norm,
                block=partial(block, conv_dw=partial(conv, size=size, padding=pad, kernel_dilation=step.dilation)),
                name=f"stages_{i}",
            )(x, train=train)
        x = norm(name="norm_pre")(x) if self.head_norm_first else x
        head = ConvNeXtHead(
            num_classes=self.num_classes,
            pool=pool,
            norm=None if self.head_norm_first else norm,
            hidden_size=self.head_hidden_size,
            layer=partial(linear if self.global_pool else layer, kernel_init=scaled_normal(self.head_init_scale)),
            drop_rate=self.drop_rate,
            name="head",
        )
        return head(x, train=train)

    def embed(self, images: Array, *, conv: Layer, norm: Layer, act: Callable[[Array], Array]) -> Array:
        """The stem: a quarter of the resolution, or a part given by `patch_size`."""
        width = self.dims[0]
        if self.stem_type == "patch":
            x = conv(width, self.patch_size, stride=self.patch_size, padding=0, name="stem_0")(images)
            return norm(name="stem_1")(x)
        x = conv(self.stem_width(), 3, stride=2, name="stem_0")(images)
        x = act(x) if self.stem_type == "overlap_act" else x
        second = 2 if self.stem_type == "overlap_act" else 1  # timm counts the activation
        x = conv(width, 3, stride=2, name=f"stem_{second}")(x)
        return norm(name=f"stem_{second + 1}")(x)

    def stem_width(self) -> int:
        """The channels of the first of two convolutions: a multiple of 8 near the half in a tiered stem."""
        if self.stem_type != "overlap_tiered":
            return self.dims[0]
        half = self.dims[0] // 2
        near = max(8, (half + 4) // 8 * 8)
        return near if near >= 0.9 * half else near + 8

    def stem_stride(self) -> int:
        return self.patch_size if self.stem_type == "patch" else 4

    def least_side(self) -> int:
        """Pixels of the smallest image that leaves the last stage a cell; overlapping stems round up."""
        return self.strides()[-1] - (0 if self.stem_type == "patch" else 3)

    def strides(self) -> tuple[int, ...]:
        """Pixels of the image between two cells of each stage."""
        return tuple(step.reduction for step in self.steps())

    def steps(self) -> tuple[Step, ...]:
        """The stride and dilations of each stage."""
        reduction, dilation, steps = self.stem_stride(), 1, []
        for i in range(STAGES):
            stride = 2 if reduction == 2 or i > 0 else 1
            if stride > 1 and reduction >= self.output_stride:
                stride, dilation = 1, 2 * dilation
            reduction *= stride
            steps.append(Step(stride, 1 if dilation <= 2 else 2, dilation, reduction))
        return tuple(steps)

    def stage_kernels(self) -> tuple[int, ...]:
        """The size of the depthwise kernels of each stage."""
        sizes = self.kernel_sizes
        return (sizes,) * STAGES if isinstance(sizes, int) else sizes


def check_fields(model: ConvNeXt) -> None:
    """Raises UserError for fields that do not fit each other, or of which timm builds no such network."""
    for field, values in {"depths": model.depths, "dims": model.dims, "kernel_sizes": model.stage_kernels()}.items():
        if len(values) != STAGES:
            raise UserError(f"{field}={values} has {len(values)} entries; expected one for each of {STAGES} stages.")
    if even := [size for size in model.stage_kernels() if size % 2 == 0]:
        raise UserError(f"kernel_sizes={model.kernel_sizes} has an even size, {even[0]}; expected odd ones, such as 7.")
    if model.output_stride not in OUTPUT_STRIDES:
        raise UserError(f"output_stride={model.output_stride} is not known; expected 8, 16 or 32.")
    if model.head_norm_first and model.head_hidden_size is not None:
        raise UserError(f"head_hidden_size={model.head_hidden_size} needs head_norm_first=False.")
    if model.global_pool == "" and model.head_norm_first and model.num_classes:
        raise UserError("global_pool='' with head_norm_first=True needs num_classes=0.")
    if model.global_pool == "catavgmax" and not model.head_norm_first:
        raise UserError("global_pool='catavgmax' doubles the channels; expected 'avg', 'max' or 'avgmax'.")
