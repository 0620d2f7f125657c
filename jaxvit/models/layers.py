"""Layers that more than one family uses, with PyTorch's numerical conventions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name

from jaxvit.models import cpu_grad
from jaxvit.runtime.platform import platform

Array = jax.Array
Dtype = Any
Size = int | tuple[int, int]

# torch.nn.Linear and torch.nn.Conv2d: uniform in +-1/sqrt(fan_in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# The normal quantile of 2**-24, the middle of the least step of a uniform float32.
FARTHEST = -5.294704


def trunc_normal(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
    """Normal weights of standard deviation 0.02, cut at two units (not two sigmas), as timm draws a transformer's.

    One number in eight million is drawn from a uniform 0, whose quantile is the cut itself, 100 standard deviations
    out, here as in timm: it is drawn as the middle of its step instead.
    """
    z = jax.random.truncated_normal(key, -100.0, 100.0, shape, dtype)
    return jnp.where(z < -50, jnp.asarray(FARTHEST, dtype), z) * jnp.asarray(0.02, dtype)


# A linear layer whose gradient is fast on the CPU too.
Dense = partial(nn.Dense, dot_general=cpu_grad.dot_general)


@jax.custom_jvp
def exact_gelu(x: Array) -> Array:
    """The exact GELU of torch.nn.GELU, x times the normal distribution function; 16-bit types compute in 32.

    Left to itself the derivative keeps three arrays of the size of x for the backward pass; here it keeps one, its own.
    """
    return _gelu_and_slope(x)[0]


def _gelu_and_slope(x: Array) -> tuple[Array, Array]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    share = 0.5 * (1 + jax.lax.erf(wide * np.asarray(0.5**0.5, wide.dtype)))  # erf takes half the time of erfc
    density = jnp.exp(-0.5 * jnp.square(wide)) * np.asarray((2 * np.pi) ** -0.5, wide.dtype)
    return (wide * share).astype(x.dtype), (share + wide * density).astype(x.dtype)


@exact_gelu.defjvp
def _exact_gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value, slope = _gelu_and_slope(primals[0])
    return value, tangents[0] * slope


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": exact_gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
}


def _is_product(primitive: Any, *_: Any, **params: Any) -> bool:
    """Convolutions, and matmuls with weights; not those of attention, whose results are the largest."""
    if primitive.name == "dot_general":
        (_, _), (batch, _) = params["dimension_numbers"]
        return not batch
    return primitive.name in ("conv_general_dilated", "cpu_convolution")


# remat -> what of a block's forward pass is kept for the backward pass (None: only its input)
REMAT: dict[Any, Any] = {"block": None, True: None, "dots": _is_product}
REMAT_CHOICES = (False, True, "none", *(word for word in REMAT if word is not True))


def rematerialised(run: Callable, remat: bool | str, **options: Any) -> Callable:
    """`run` (a function of a module, or a module class) that computes again in the backward pass what `remat` says."""
    return nn.remat(run, policy=REMAT[remat], **options) if remat in REMAT else run


def to_pair(size: Size) -> tuple[int, int]:
    """Returns (height, width) of a size given as one int or as a pair."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class LayerNorm(nn.LayerNorm):
    """`flax.linen.LayerNorm` over the last axis (Ba et al., 2016), on a GPU with a derivative of its own."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if platform() != "gpu":
            return super().__call__(x)
        scale = self.param("scale", self.scale_init, x.shape[-1:], self.param_dtype)
        bias = self.param("bias", self.bias_init, x.shape[-1:], self.param_dtype)
        dtype = self.dtype or jnp.result_type(x, scale, bias)
        rows = x.reshape(-1, x.shape[-1])
        return _rows_again(rows, scale, bias, self.epsilon, dtype).reshape(x.shape)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def normalised_rows(x: Array, scale: Array, bias: Array, eps: float, dtype: Dtype) -> Array:
    """LayerNorm of rows: x [n, d], scale and bias [d] -> [n, d] in `dtype`, computed in 32 bits or more.

    The gradient of x takes two sums over a row that do not wait for each other. By differentiation of the mean and
    the variance it takes three, one after another, and XLA on a GPU writes down the terms of the sums over rows.
    """
    return (_unit_rows(x, eps)[0] * scale[None] + bias[None]).astype(dtype)


def _unit_rows(x: Array, eps: float) -> tuple[Array, Array]:
    """Rows of mean 0 and variance 1, and the factors that made them so: [n, d], [n, 1]."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = checkpoint_name(jnp.mean(wide, axis=-1, keepdims=True), "layer_norm")
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    factor = checkpoint_name(jax.lax.rsqrt(variance + eps), "layer_norm")
    return (wide - mean) * factor, factor


@normalised_rows.defjvp
def _normalised_rows_jvp(eps: float, dtype: Dtype, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, scale, bias), (dx, dscale, dbias) = primals, tangents
    unit, factor = _unit_rows(x, eps)
    dx = dx.astype(unit.dtype)
    dunit = factor * (dx - jnp.mean(dx, axis=-1, keepdims=True) - unit * jnp.mean(unit * dx, axis=-1, keepdims=True))
    tangent = dunit * scale[None] + unit * dscale[None] + dbias[None]
    return (unit * scale[None] + bias[None]).astype(dtype), tangent.astype(dtype)


# The backward pass has the input, a mean and a factor per row; left to itself XLA keeps the rows in 32 bits as well.
_rows_again = jax.checkpoint(
    normalised_rows, static_argnums=(3, 4), policy=jax.checkpoint_policies.save_only_these_names("layer_norm")
)


def layer_norm(eps: float, name: str, dtype: Dtype = None) -> nn.LayerNorm:
    """LayerNorm as PyTorch computes it: the two-pass variance, in float32."""
    return LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def max_over_tokens(x: Array) -> Array:
    """[b, n, d] -> [b, d]; the gradient goes to the first greatest entry, as in PyTorch's pooling.

    That of `jnp.max` looks for entries equal to the result. Where a program computes x twice with other roundings it
    finds none, and the gradient is NaN.
    """
    first = jnp.argmax(jax.lax.stop_gradient(x), axis=1, keepdims=True)
    places = jax.lax.broadcasted_iota(first.dtype, (1, x.shape[1], 1), 1)
    return jnp.sum(jnp.where(places == first, x, jnp.zeros((), x.dtype)), axis=1)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic depth rates that rise linearly from 0 to `rate` over `depth` blocks."""
    return [float(r) for r in np.linspace(0.0, rate, depth)]


class DropPath(nn.Module):
    """Stochastic depth: drops the whole residual branch of a sample (Huang et al., 2016).

    `x` is [b, ...]; a kept branch is scaled by 1 / (1 - rate). The identity when `rate` is 0 or `train` False.
    """

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        if not train or (isinstance(self.rate, float | int) and self.rate == 0):  # in a scan over blocks it is traced
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return jnp.where(mask, x / keep, 0.0).astype(x.dtype)


class PatchProjection(nn.Module):
    """A convolution whose stride equals its kernel, as one matmul: [b, h, w, c] -> [b, h/p, w/p, features].

    The parameters are those of the convolution: kernel [ph, pw, c, features] and bias [features].
    """

    features: int
    patch_size: tuple[int, int]
    use_bias: bool = True
    dtype: Dtype = None
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, images: Array) -> Array:
        (ph, pw), (b, h, w, c) = self.patch_size, images.shape
        kernel = self.param("kernel", self.kernel_init, (ph, pw, c, self.features))
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        images, kernel, bias = promote_dtype(images, kernel, bias, dtype=self.dtype)
        x = images.reshape(b, h // ph, ph, w // pw, pw, c).transpose(0, 1, 3, 2, 4, 5)
        x = cpu_grad.matmul(x.reshape(b, h // ph, w // pw, ph * pw * c), kernel.reshape(-1, self.features))
        return x if bias is None else x + bias.reshape(1, 1, 1, -1)


class Mlp(nn.Module):
    """The two-layer perceptron of a transformer block: [..., d] -> [..., d]."""

    hidden_dim: int
    act: str = "gelu"
    drop_rate: float = 0.0
    dtype: Dtype = None
    use_bias: bool = True
    norm: Callable[..., nn.Module] | None = None  # a norm of the hidden units (BEiT-3)

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        dense = partial(Dense, use_bias=self.use_bias, dtype=self.dtype, kernel_init=trunc_normal)
        d = x.shape[-1]
        x = dense(self.hidden_dim, name="fc1")(x)
        x = nn.Dropout(self.drop_rate)(ACTIVATIONS[self.act](x), deterministic=not train)
        if self.norm is not None:
            x = self.norm(name="norm")(x)
        x = dense(d, name="fc2")(x)
        return nn.Dropout(self.drop_rate)(x, deterministic=not train)
