"""Layers that more than one family uses, with PyTorch's numerical conventions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.errors import UserError
from jaxvit.ops import conv as conv_op
from jaxvit.ops import linear, macs, norm
from jaxvit.ops.activations import ACTIVATIONS

Array = jax.Array
Layer = Callable[..., nn.Module]  # a module with its fields set, called with the submodule's name
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


Dense = partial(nn.Dense, dot_general=linear.dot_general)
Conv = partial(nn.Conv, conv_general_dilated=conv_op.conv_general_dilated)


# remat -> what of a block's forward pass is kept for the backward pass (None: only its input)
REMAT: dict[Any, Any] = {"block": None, True: None, "dots": macs.is_product_with_weights}
REMAT_CHOICES = (False, True, "none", *(word for word in REMAT if word is not True))


def rematerialised(run: Callable, remat: bool | str, **options: Any) -> Callable:
    """`run` (a function of a module, or a module class) that computes again in the backward pass what `remat` says."""
    return nn.remat(run, policy=REMAT[remat], **options) if remat in REMAT else run


def to_pair(size: Size) -> tuple[int, int]:
    """Returns (height, width) of a size given as one int or as a pair."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def check_floats(images: Array) -> None:
    """Raises UserError for pixels as they are stored; a model takes normalised ones, and torch refuses these too."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images are {images.dtype}; expected floats, normalised as jaxvit.preprocess makes them.")


def check_patches(size: Size, patch_size: Size, *, crops: bool) -> None:
    """Raises UserError for a size (h, w) that has no whole patches, or has more than these unless a model `crops`."""
    (h, w), (ph, pw) = to_pair(size), to_pair(patch_size)
    small = h < ph or w < pw
    if small or (not crops and (h % ph or w % pw)):
        near = "x".join(str(max(1, round(side / patch)) * patch) for side, patch in ((h, ph), (w, pw)))
        cut = "" if small else ", or crop_to_patches=True cuts it"
        raise UserError(
            f"image {h}x{w} is not divisible by patch size {ph}x{pw}; the nearest image_size is {near}{cut}."
        )


def scaled_normal(scale: float) -> Callable[..., Array]:
    """`trunc_normal` times a factor."""

    def draw(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        return trunc_normal(key, shape, dtype) * jnp.asarray(scale, dtype)

    return draw


class LayerNorm(nn.LayerNorm):
    """`flax.linen.LayerNorm` over the last axis (Ba et al., 2016) by the operation of `jaxvit.ops`."""

    use_fast_variance: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., d] -> [..., d]."""
        scale = self.param("scale", self.scale_init, x.shape[-1:], self.param_dtype)
        bias = self.param("bias", self.bias_init, x.shape[-1:], self.param_dtype)
        return norm.layer_norm(x, scale, bias, eps=self.epsilon, dtype=self.dtype)


def layer_norm(
    eps: float, name: str, dtype: Dtype = None, scale_init: Callable[..., Array] = nn.initializers.ones
) -> nn.LayerNorm:
    """LayerNorm as PyTorch computes it: the two-pass variance, in float32."""
    return LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, scale_init=scale_init, name=name)


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


def watch_or_drop(module: nn.Module, drop_rate: float, train: bool) -> Callable[[Array], Array] | None:
    """What becomes of attention weights before they are used: shown as an intermediate, and some dropped."""
    watched = module.is_mutable_collection("intermediates") and not module.is_initializing()
    if not watched and not (train and drop_rate > 0):
        return None

    def change(weights: Array) -> Array:
        if watched:
            module.sow("intermediates", "attn_weights", weights)
        return nn.Dropout(drop_rate)(weights, deterministic=not train)

    return change


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
