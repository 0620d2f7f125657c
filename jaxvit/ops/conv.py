"""Convolutions of images.

The three products (outputs, gradients of the input and of the kernel) are linear in each argument and each other's
transposes, so they are primitives of JAX, bilinear ones: every mode of differentiation works, a policy of remat sees
one convolution, and a program lowered for a GPU or TPU on a machine without one has the convolution of `jax.lax` in it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import ad

from jaxvit.ops import conv_products
from jaxvit.ops.linear import linear
from jaxvit.ops.lowering import bilinear

Array = jax.Array
Pair = tuple[int, int]
NONE = ((0, 0), (0, 0))
ONE, SEVERAL = "cpu", "cpu_split"  # DEFAULT of a CPU: parts of a batch do not go over devices
DEFAULT = {"cpu": ONE, "default": "plain"}


def conv(
    x: Array,
    kernel: Array,
    strides: Pair = (1, 1),
    padding: tuple[Pair, ...] = NONE,
    groups: int = 1,
    *,
    form: str | None = None,
) -> Array:
    """x [b, h, w, c], kernel [i, j, c / groups, d] -> [b, h', w', d].

    Args:
      x: images.
      kernel: of the same dtype.
      strides: down and across.
      padding: zeros (above, below), (left, right).
      groups: of channels that do not mix.
      form: a key of FORMS; None: the platform's.
    """
    size, whole = kernel.shape[:2], not any(map(any, padding))
    if size == (1, 1) and whole:  # the same numbers; the gradient of a strided convolution is slow on a CPU
        x, strides = x[:, :: strides[0], :: strides[1]], (1, 1)
    elif groups == 1 and whole and form is None and _apart(x.shape[1:3], size, strides):
        return _patches(x, kernel)
    if not all(isinstance(n, int) for n in x.shape):  # an exported program may leave the batch open
        return conv_products.plain(x, kernel, strides=strides, padding=padding, groups=groups)
    how = {"strides": strides, "padding": padding, "groups": groups, "map_size": x.shape[1:3], "size": size}
    return forward_p.bind(x, kernel, form=form, **how)


FORMS: dict[str, Callable[..., Array]] = {
    name: functools.partial(conv, form=name) for name in ("plain", "cpu", "cpu_split")
}


def _apart(map_size: tuple[int, ...], size: tuple[int, ...], strides: Pair) -> bool:
    """Whether no pixel is under two outputs and none is left out: patches, or a kernel of the map's own size."""
    return all(n == k or (s == k and n % k == 0) for n, k, s in zip(map_size, size, strides, strict=True))


def _patches(x: Array, kernel: Array) -> Array:
    """One matmul, several times faster than the convolution on a CPU."""
    (b, h, w, c), (i, j, _, d) = x.shape, kernel.shape
    x = x.reshape(b, h // i, i, w // j, j, c).transpose(0, 1, 3, 2, 4, 5)
    return linear(x.reshape(b, h // i, w // j, i * j * c), kernel.reshape(-1, d))


def conv_general_dilated(x: Array, kernel: Array, window_strides: Any, padding: Any, **kwargs: Any) -> Array:
    """`jax.lax.conv_general_dilated`, as `flax.linen.Conv` calls it."""
    if not _of_images(x, kernel, padding, **kwargs):
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **kwargs)
    pads = tuple((int(low), int(high)) for low, high in padding)
    down, across = window_strides
    return conv(x, kernel, (int(down), int(across)), pads, int(kwargs.get("feature_group_count", 1)))


def _of_images(
    x: Array,
    kernel: Array,
    padding: Any,
    *,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **other: Any,
) -> bool:
    """Whether it is a convolution of images without dilation."""
    spec = getattr(dimension_numbers, "lhs_spec", None)
    return (
        x.ndim == 4
        and x.dtype == kernel.dtype
        and not isinstance(padding, str)
        and (spec is None or tuple(spec) == (0, 3, 1, 2))
        and all(d is None or d == 1 or tuple(d) == (1, 1) for d in (lhs_dilation, rhs_dilation))
        and not any(value for word, value in other.items() if word != "batch_group_count" or value != 1)
    )


def _on_cpu(devices: int) -> str:
    return ONE if devices == 1 else SEVERAL


forward_p = bilinear("convolution", conv_products.FORMS, _on_cpu)
input_gradient_p = bilinear("convolution_input_gradient", conv_products.INPUT_GRADIENT_FORMS, _on_cpu)
kernel_gradient_p = bilinear("convolution_kernel_gradient", conv_products.KERNEL_GRADIENT_FORMS, _on_cpu)

# y = x * k:  dx = dy *' k,  dk = x *" dy, and each of the three is a product of the other two's factors.
ad.defbilinear(
    forward_p,
    lambda dy, x, kernel, **how: input_gradient_p.bind(dy, kernel, **how),
    lambda dy, x, kernel, **how: kernel_gradient_p.bind(x, dy, **how),
)
ad.defbilinear(
    input_gradient_p,
    lambda dx, dy, kernel, **how: forward_p.bind(dx, kernel, **how),
    lambda dx, dy, kernel, **how: kernel_gradient_p.bind(dx, dy, **how),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda dk, x, dy, **how: input_gradient_p.bind(dy, dk, **how),
    lambda dk, x, dy, **how: forward_p.bind(x, dk, **how),
)
