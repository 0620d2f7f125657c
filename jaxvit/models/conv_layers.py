"""Layers of the convolutional families (AlexNet, VGG, ResNet), with PyTorch's padding and rounding."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.errors import UserError, suggest
from jaxvit.models.layers import Array, Conv, Dense, Dtype, check_floats, kaiming_fan_out, torch_uniform
from jaxvit.ops import norm
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.pooling import avg_pool_2x2, blur_pool


def pick(table: Mapping[Any, Any], field: str, word: Any) -> Any:
    """Returns `table[word]`; raises UserError naming the model field when there is no such entry."""
    if word in table:
        return table[word]
    choices = ", ".join(repr(c) for c in table)
    raise UserError(f"{field}={word!r} is not known; expected one of {choices}." + suggest(str(word), map(str, table)))


def check_images(images: Array, *, in_channels: int, least: int, family: str) -> None:
    """Raises UserError unless `images` is [b, h, w, in_channels] with h and w of at least `least` pixels."""
    if images.ndim != 4:
        raise UserError(f"images have shape {images.shape}; expected [batch, height, width, channels].")
    _, h, w, c = images.shape
    if c != in_channels:
        raise UserError(f"images have {c} channels; the model expects in_channels={in_channels}.")
    check_floats(images)
    if min(h, w) < least:
        raise UserError(f"image {h}x{w} is too small for {family}; the smallest size is {least}x{least}.")


def torch_bias(fan_in: int) -> Callable[..., Array]:
    """The bias of torch.nn.Linear and torch.nn.Conv2d: uniform in +-1/sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(features: int, size: int, *, name: str, stride: int = 1, padding: int | None = None, **fields) -> nn.Conv:
    """A square convolution padded as in PyTorch: `padding` pixels on every side, size // 2 by default."""
    fields = {"use_bias": False, "kernel_init": kaiming_fan_out, **fields}
    padding = size // 2 if padding is None else padding
    return Conv(features, (size, size), stride, padding=padding, name=name, **fields)


class BatchNorm(nn.BatchNorm):
    """BatchNorm over the last axis (Ioffe and Szegedy, 2015), with statistics of float32 or wider: [..., c] -> same.

    As in PyTorch the batch is normalised by its own variance, and the running average is of the unbiased estimate.
    """

    @nn.compact
    def __call__(self, x: Array, use_running_average: bool | None = None) -> Array:
        """Normalises by the batch, or by the running average."""
        at_rest = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        shape = x.shape[-1:]
        mean_ = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var_ = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        if at_rest:
            along = (jnp.expand_dims(v, tuple(range(x.ndim - 1))) for v in (mean_.value, var_.value, scale, bias))
            mean, var, wide_scale, wide_bias = along
            y = (x - mean) * (jax.lax.rsqrt(var + self.epsilon) * wide_scale) + wide_bias
            return y.astype(self.dtype or jnp.result_type(x, scale, bias))
        y, mean, var = norm.batch_norm(x, scale, bias, eps=self.epsilon, dtype=self.dtype)
        if not self.is_initializing():
            n = x.size // x.shape[-1]
            unbiased = var * (n / max(n - 1, 1))
            mean_.value = self.momentum * mean_.value + (1 - self.momentum) * mean
            var_.value = self.momentum * var_.value + (1 - self.momentum) * unbiased
        return y


def batch_norm(*, name: str, train: bool, dtype: Dtype = None, scale_init: Callable = nn.initializers.ones):
    """BatchNorm as torch.nn.BatchNorm2d has it (its momentum 0.1 is 0.9 in Flax)."""
    layer = BatchNorm(momentum=0.9, epsilon=1e-5, dtype=dtype, scale_init=scale_init, name=name)
    # an argument of the call, where an interceptor can overrule it: a frozen norm always uses its running average
    return functools.partial(layer, use_running_average=not train)


def group_norm(*, name: str, train: bool, dtype: Dtype = None, scale_init: Callable = nn.initializers.ones):
    """GroupNorm over 32 groups (Wu and He, 2018); `train` makes no difference."""
    del train
    return nn.GroupNorm(
        num_groups=32, epsilon=1e-5, use_fast_variance=False, dtype=dtype, scale_init=scale_init, name=name
    )


NORMS: dict[str, Callable[..., Callable[[Array], Array]]] = {"batchnorm": batch_norm, "groupnorm": group_norm}


# aa_layer -> what halves a feature map without aliasing
ANTI_ALIAS: dict[str, Callable[[Array], Array]] = {"avg": avg_pool_2x2, "blur": blur_pool}


def anti_alias(x: Array, aa_layer: str, *, in_block: bool = False) -> Array:
    """Halves the feature map [b, h, w, c].

    Raises UserError for a single row or column and, as averaging drops an odd edge that the shortcut of a residual
    block keeps, for an odd side there.
    """
    halve = pick(ANTI_ALIAS, "aa_layer", aa_layer)
    h, w = x.shape[1:3]
    if min(h, w) < 2:
        raise UserError(f"a feature map of {h}x{w} cannot be halved with aa_layer={aa_layer!r}; use larger images.")
    if in_block and aa_layer == "avg" and (h % 2 or w % 2):
        raise UserError(
            f"aa_layer='avg' cannot halve a feature map of {h}x{w}, which has an odd side; "
            "use images whose sides are multiples of 32."
        )
    return halve(x)


class FeatureMap(nn.Module):
    """The identity under a name: lets a tool that intercepts modules see the last feature map [b, h, w, c]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return x


def linear(x: Array, features: int, *, name: str, dtype: Dtype = None) -> Array:
    """torch.nn.Linear with torch's own initialisation: [b, d] -> [b, features]."""
    init = {"kernel_init": torch_uniform, "bias_init": torch_bias(x.shape[-1])}
    return Dense(features, dtype=dtype, name=name, **init)(x)


def hidden_layer(
    x: Array, *, features: int | None, name: str, act_layer: str, drop_rate: float, dtype: Dtype = None, train: bool
) -> Array:
    """What an enhanced head has before its classifier: linear, activation, dropout, [b, d] -> [b, features].

    The identity where `features` is None.
    """
    if features is None:
        return x
    x = pick(ACTIVATIONS, "act_layer", act_layer)(linear(x, features, name=name, dtype=dtype))
    return nn.Dropout(drop_rate)(x, deterministic=not train)


class SqueezeExcite(nn.Module):
    """Channel attention from a bottleneck of channel means (Hu et al., 2018): [b, h, w, c] -> same."""

    rd_ratio: float = 1 / 16
    act_layer: str = "relu"
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        reduced = max(8, int(c * self.rd_ratio + 4) // 8 * 8)  # the nearest multiple of 8
        s = x.mean((1, 2), keepdims=True)
        s = conv(reduced, 1, name="fc1", use_bias=True, bias_init=torch_bias(c), dtype=self.dtype)(s)
        s = ACTIVATIONS[self.act_layer](s)
        s = conv(c, 1, name="fc2", use_bias=True, bias_init=torch_bias(reduced), dtype=self.dtype)(s)
        return x * jax.nn.sigmoid(s)


class EfficientChannelAttention(nn.Module):
    """Channel attention from a 1-d convolution across channel means (Wang et al., 2020): [b, h, w, c] -> same.

    The kernel covers about log2(`channels`) / 2 neighbours, `channels` being c unless the block was pruned.
    """

    channels: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = int((math.log2(self.channels) + 1) / 2)
        size = max(size if size % 2 else size + 1, 3)
        s = x.mean((1, 2))[..., None]  # [b c 1]
        s = nn.Conv(
            1, (size,), padding=size // 2, use_bias=False, kernel_init=torch_uniform, dtype=self.dtype, name="conv"
        )(s)
        return x * jax.nn.sigmoid(s)[:, None, None, :, 0]
