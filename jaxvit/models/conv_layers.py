"""Layers of the convolutional families (AlexNet, VGG, ResNet), with PyTorch's padding and rounding.

Pooling is written with shifted slices: on the CPU its gradient is several times faster than that of
`reduce_window`, and it compiles under the determinism flags of XLA on GPUs.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError, suggest
from jaxvit.models import cpu_conv
from jaxvit.models.layers import ACTIVATIONS, Array, Dense, Dtype, kaiming_fan_out, max_over_tokens, torch_uniform


def pick(table: Mapping[Any, Any], field: str, word: Any) -> Any:
    """Returns `table[word]`; raises UserError naming the model field when there is no such entry."""
    if word in table:
        return table[word]
    choices = ", ".join(repr(c) for c in table)
    raise UserError(f"{field}={word!r} is not known; expected one of {choices}." + suggest(str(word), map(str, table)))


def check_images(images: Array, in_channels: int, least: int, family: str) -> None:
    """Raises UserError unless `images` is [b, h, w, in_channels] with h and w of at least `least` pixels."""
    if images.ndim != 4:
        raise UserError(f"images have shape {images.shape}; expected [batch, height, width, channels].")
    _, h, w, c = images.shape
    if c != in_channels:
        raise UserError(f"images have {c} channels; the model expects in_channels={in_channels}.")
    if min(h, w) < least:
        raise UserError(f"image {h}x{w} is too small for {family}; the least size is {least}x{least}.")


def torch_bias(fan_in: int) -> Callable[..., Array]:
    """The bias of torch.nn.Linear and torch.nn.Conv2d: uniform in +-1/sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(features: int, size: int, name: str, stride: int = 1, padding: int | None = None, **fields) -> nn.Conv:
    """A square convolution padded as in PyTorch: `padding` pixels on every side, size // 2 by default."""
    fields = {"use_bias": False, "kernel_init": kaiming_fan_out, **fields}
    padding = size // 2 if padding is None else padding
    fields["conv_general_dilated"] = cpu_conv.conv_general_dilated
    return nn.Conv(features, (size, size), stride, padding=padding, name=name, **fields)


class BatchNorm(nn.BatchNorm):
    """BatchNorm over the last axis whose batch statistics suit the platform: [..., c] -> same.

    On a CPU they take two passes, the second over x - mean, as a cache is near and digits are kept. On a GPU or TPU one
    pass sums x and x^2: the maps are then read once, which is what bounds a training there. Statistics are of float32
    or wider on both. The choice falls when the program is lowered, so that one exported on a laptop is fast elsewhere.
    As in PyTorch the batch is normalised by its own variance, and the running average is of the unbiased estimate.
    """

    @nn.compact
    def __call__(self, x: Array, use_running_average: bool | None = None) -> Array:
        """Normalises by the batch, or by the running average."""
        at_rest = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        shape = x.shape[-1:]
        mean_ = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var_ = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if at_rest:
            mean, var = mean_.value, var_.value
        else:
            wide = x.astype(jnp.promote_types(self.dtype or x.dtype, jnp.float32))
            mean = wide.mean(tuple(range(x.ndim - 1)))
            var = jax.lax.platform_dependent(wide, mean, cpu=two_pass_variance, default=one_pass_variance)
            if not self.is_initializing():
                mean_.value = self.momentum * mean_.value + (1 - self.momentum) * mean
                n = x.size // x.shape[-1]
                unbiased = var * (n / max(n - 1, 1))
                var_.value = self.momentum * var_.value + (1 - self.momentum) * unbiased
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        mean, var, wide_scale, wide_bias = (_over_maps(v, x.ndim) for v in (mean, var, scale, bias))
        y = (x - mean) * (jax.lax.rsqrt(var + self.epsilon) * wide_scale) + wide_bias
        return y.astype(self.dtype or jnp.result_type(x, scale, bias))


def _over_maps(values: Array, rank: int) -> Array:
    """[c] -> [1, ..., 1, c]."""
    return jnp.expand_dims(values, tuple(range(rank - 1)))


def two_pass_variance(x: Array, mean: Array) -> Array:
    """The variance over all axes but the last about the mean [c]: [..., c] -> [c]."""
    return jnp.square(x - _over_maps(mean, x.ndim)).mean(tuple(range(x.ndim - 1)))


def one_pass_variance(x: Array, mean: Array) -> Array:
    """The same from the mean of x^2, which is summed together with x; below 0, which rounding may give, it is 0."""
    return jnp.maximum(0.0, jnp.square(x).mean(tuple(range(x.ndim - 1))) - jnp.square(mean))


def batch_norm(name: str, *, train: bool, dtype: Dtype = None, scale_init: Callable = nn.initializers.ones):
    """BatchNorm as torch.nn.BatchNorm2d has it (its momentum 0.1 is 0.9 in Flax)."""
    norm = BatchNorm(momentum=0.9, epsilon=1e-5, dtype=dtype, scale_init=scale_init, name=name)
    # an argument of the call, where an interceptor can overrule it: a frozen norm always uses its running average
    return functools.partial(norm, use_running_average=not train)


def group_norm(name: str, *, train: bool, dtype: Dtype = None, scale_init: Callable = nn.initializers.ones):
    """GroupNorm over 32 groups (Wu and He, 2018); `train` makes no difference."""
    del train
    return nn.GroupNorm(
        num_groups=32, epsilon=1e-5, use_fast_variance=False, dtype=dtype, scale_init=scale_init, name=name
    )


NORMS: dict[str, Callable[..., Callable[[Array], Array]]] = {"batchnorm": batch_norm, "groupnorm": group_norm}


def _shifted(x: Array, axis: int, size: int, stride: int) -> list[Array]:
    """The `size` strided slices of one axis whose i-th entries together are the i-th window."""
    n = (x.shape[axis] - size) // stride + 1
    return [jax.lax.slice_in_dim(x, i, i + (n - 1) * stride + 1, stride, axis) for i in range(size)]


def _pad(x: Array, axis: int, low: int, high: int, mode: str, **kwargs) -> Array:
    widths = [(low, high) if a == axis else (0, 0) for a in range(x.ndim)]
    return jnp.pad(x, widths, mode=mode, **kwargs) if low or high else x


def max_pool(x: Array, size: int, stride: int, padding: int = 0) -> Array:
    """Maximum over windows, padded with minus infinity: [b, h, w, c] -> [b, h', w', c], sizes rounded down.

    Of equal values the first in reading order gets the gradient, as in PyTorch and `reduce_window`: columns go first.
    """
    for axis in (2, 1):
        x = _pad(x, axis, padding, padding, "constant", constant_values=-jnp.inf)
        x = functools.reduce(_first_max, _shifted(x, axis, size, stride))
    return x


def _first_max(a: Array, b: Array) -> Array:
    """The maximum; of equal values `a`, where `jnp.maximum` gives each half of the gradient. NaN stays."""
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def avg_pool_2x2(x: Array, *, ceil: bool = False) -> Array:
    """Mean of 2x2 windows with stride 2; an odd last row or column is dropped, or averaged alone when `ceil`."""
    for axis in (1, 2):
        if ceil:  # a repeated edge leaves the mean of the cut window as it is
            x = _pad(x, axis, 0, x.shape[axis] % 2, "edge")
        first, second = _shifted(x, axis, 2, 2)
        x = 0.5 * (first + second)
    return x


def blur_pool(x: Array) -> Array:
    """A [1, 2, 1] binomial blur with reflected borders, then every second pixel (Zhang, 2019)."""
    for axis in (1, 2):
        left, middle, right = _shifted(_pad(x, axis, 1, 1, "reflect"), axis, 3, 2)
        x = 0.25 * (left + 2 * middle + right)
    return x


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


def adaptive_avg_pool(x: Array, height: int, width: int) -> Array:
    """Mean over `height` x `width` near-equal, possibly overlapping windows; enlarges too: [b, h, w, c]."""
    for axis, size in ((1, height), (2, width)):
        if x.shape[axis] != size:
            matrix = jnp.asarray(_window_means(x.shape[axis], size), x.dtype)
            x = jnp.tensordot(matrix, x, axes=(1, axis), precision=jax.lax.Precision.HIGHEST)
            x = jnp.moveaxis(x, 0, axis)
    return x


@functools.cache
def _window_means(n: int, out: int) -> np.ndarray:
    """[out, n] matrix: row i averages entries floor(i n / out) to ceil((i + 1) n / out) - 1."""
    matrix = np.zeros((out, n), np.float32)
    for i in range(out):
        start, stop = i * n // out, -(-(i + 1) * n // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def _mean(x: Array) -> Array:
    return x.mean((1, 2))


def _max(x: Array) -> Array:
    b, h, w, c = x.shape
    return max_over_tokens(x.reshape(b, h * w, c))


# global_pool -> [b, h, w, c] to [b, c], or [b, 2 c] for "catavgmax"
GLOBAL_POOLS: dict[str, Callable[[Array], Array]] = {
    "avg": _mean,
    "max": _max,
    "avgmax": lambda x: 0.5 * (_mean(x) + _max(x)),
    "catavgmax": lambda x: jnp.concatenate([_mean(x), _max(x)], axis=-1),
}


class FeatureMap(nn.Module):
    """The identity under a name: lets a tool that intercepts modules see the last feature map [b, h, w, c]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return x


def linear(x: Array, features: int, name: str, dtype: Dtype = None) -> Array:
    """torch.nn.Linear with torch's own initialisation: [b, d] -> [b, features]."""
    init = {"kernel_init": torch_uniform, "bias_init": torch_bias(x.shape[-1])}
    return Dense(features, dtype=dtype, name=name, **init)(x)


def hidden_layer(
    x: Array, features: int | None, name: str, act_layer: str, drop_rate: float, dtype: Dtype = None, *, train: bool
) -> Array:
    """What an enhanced head has before its classifier: linear, activation, dropout, [b, d] -> [b, features].

    The identity where `features` is None.
    """
    if features is None:
        return x
    x = pick(ACTIVATIONS, "act_layer", act_layer)(linear(x, features, name, dtype))
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
        s = conv(reduced, 1, "fc1", use_bias=True, bias_init=torch_bias(c), dtype=self.dtype)(s)
        s = ACTIVATIONS[self.act_layer](s)
        s = conv(c, 1, "fc2", use_bias=True, bias_init=torch_bias(reduced), dtype=self.dtype)(s)
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
