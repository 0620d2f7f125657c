"""Convolutions whose products suit XLA on the CPU, in float32. On other platforms they are `jax.lax`'s own.

XLA computes all three products of a convolution (outputs, gradients of the input and of the kernel) as convolutions. On
the CPU these are slow where the maps are small, and the gradient of a kernel most of all: its window is the whole map.
Here each product takes the fastest of the forms measured (docs/PERFORMANCE.md):

    winograd   3x3 with stride 1: 16 matmuls with 4/9 of the work
    patches    the pixels under each output side by side, and one matmul (one for each row of a kernel's gradient)
    plain      XLA's own

The three are linear in each argument and each other's transposes, so they are primitives of JAX, bilinear ones: every
mode of differentiation works, a policy of remat sees one convolution, and a program lowered for a GPU or TPU on a
machine without one has the convolution of `jax.lax` in it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxvit.models import cpu_grad, winograd
from jaxvit.runtime.platform import platform

Array = jax.Array
Pair = tuple[int, int]
NHWC = ("NHWC", "HWIO", "NHWC")
FEW_PIXELS = 64  # outputs, up to which reading the kernel takes longer than the products
PART = 2**18  # numbers of a map: those of tiles and patches, four times as many, then stay in a core's cache
BLOCK = 32  # channels of a block of groups
FEW_CHANNELS = 16  # below, transforms cost more than products


def conv_general_dilated(lhs: Array, rhs: Array, window_strides: Any, padding: Any, **kwargs: Any) -> Array:
    """`jax.lax.conv_general_dilated`, as `flax.linen.Conv` calls it; on the CPU in float32 at least."""
    if platform() == "cpu" and lhs.dtype == rhs.dtype and lhs.dtype in (jnp.bfloat16, jnp.float16):
        x, kernel = lhs.astype(jnp.float32), rhs.astype(jnp.float32)  # XLA's own: 40 times as long
        return conv_general_dilated(x, kernel, window_strides, padding, **kwargs).astype(lhs.dtype)
    if platform() != "cpu" or not suits(lhs, rhs, padding, **kwargs):
        return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs)
    (sh, sw), pads = window_strides, tuple((int(low), int(high)) for low, high in padding)
    groups = int(kwargs.get("feature_group_count", 1))
    if rhs.shape[:2] == (1, 1) and groups == 1 and not any(map(any, pads)):
        return cpu_grad.matmul(lhs[:, ::sh, ::sw], rhs[0, 0])
    return convolution(lhs, rhs, (int(sh), int(sw)), pads, groups)


def suits(
    lhs: Array,
    rhs: Array,
    padding: Any,
    *,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    **_: Any,
) -> bool:
    """Whether it is a convolution of images without dilation, in float32."""
    spec = getattr(dimension_numbers, "lhs_spec", None)
    return (
        lhs.ndim == 4
        and lhs.dtype == rhs.dtype == jnp.float32
        and all(isinstance(n, int) for n in lhs.shape)  # an exported program may leave the batch open
        and rhs.shape[3] >= FEW_CHANNELS
        and not isinstance(padding, str)
        and (spec is None or tuple(spec) == (0, 3, 1, 2))
        and all(d is None or d == 1 or tuple(d) == (1, 1) for d in (lhs_dilation, rhs_dilation))
    )


def convolution(x: Array, kernel: Array, strides: Pair, padding: tuple[Pair, ...], groups: int = 1) -> Array:
    """X [b, h, w, c], kernel [i, j, c / groups, d] -> [b, h', w', d]."""
    how = {"strides": strides, "padding": padding, "groups": groups}
    return forward_p.bind(x, kernel, **how, map_size=x.shape[1:3], size=kernel.shape[:2])


def plain(x: Array, kernel: Array, *, strides: Pair, padding: tuple[Pair, ...], groups: int = 1, **_: Any) -> Array:
    """XLA's own."""
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=NHWC, feature_group_count=groups
    )  # fmt: skip


def plain_input_gradient(dy: Array, kernel: Array, *, map_size: tuple[int, ...], groups: int, **how: Any) -> Array:
    """XLA's own gradient of the input: dy [b, h', w', d], kernel [i, j, c / groups, d] -> [b, h, w, c]."""
    x = jax.ShapeDtypeStruct((dy.shape[0], *map_size, kernel.shape[2] * groups), dy.dtype)
    return jax.linear_transpose(lambda x: plain(x, kernel, groups=groups, **how), x)(dy)[0]


def plain_kernel_gradient(x: Array, dy: Array, *, size: Pair, groups: int, **how: Any) -> Array:
    """XLA's own gradient of the kernel: x [b, h, w, c], dy [b, h', w', d] -> [i, j, c / groups, d]."""
    kernel = jax.ShapeDtypeStruct((*size, x.shape[3] // groups, dy.shape[3]), x.dtype)
    return jax.linear_transpose(lambda kernel: plain(x, kernel, groups=groups, **how), kernel)(dy)[0]


def fast(x: Array, kernel: Array, **how: Any) -> Array:
    """The convolution as the CPU likes it."""
    b, h, w, d = jax.eval_shape(functools.partial(plain, **how), x, kernel).shape
    if b * h * w <= FEW_PIXELS and how["groups"] == 1:  # channels first: the kernel is then read once, as it lies
        return matmul_of_first(channel_patches(x, **how), kernel.reshape(-1, d)).reshape(b, h, w, d)
    if not for_winograd(x, d, **how):
        return plain(x, kernel, **how)

    def convolution(x: Array, kernel: Array) -> Array:
        return by_winograd(winograd.convolution, x, kernel, how["groups"])

    return apart(convolution)(x, kernel)


def fast_input_gradient(dy: Array, kernel: Array, **how: Any) -> Array:
    """The gradient of the input as the CPU likes it."""
    if not for_winograd(dy, kernel.shape[2] * how["groups"], **how):
        return plain_input_gradient(dy, kernel, **how)

    def input_gradient(dy: Array, kernel: Array) -> Array:
        return by_winograd(winograd.input_gradient, dy, kernel[::-1, ::-1], how["groups"])

    return apart(input_gradient)(dy, kernel)


def by_winograd(product: Callable, x: Array, kernel: Array, groups: int) -> Array:
    """A product of maps [b, h, w, c] with a kernel -> [b, h, w, d], some images at a time."""
    if groups == 1:
        tiles = winograd.kernel_tiles(kernel)
        return map_parts(lambda part: product(part, tiles), x)
    kernels = in_blocks(kernel, groups)
    tiles = jax.vmap(winograd.kernel_tiles)(kernels)
    y = map_parts(lambda part: jax.vmap(product, (3, 0), 3)(part, tiles), channels_in(x, len(kernels)))
    return y.reshape(*y.shape[:3], -1)


def fast_kernel_gradient(x: Array, dy: Array, *, groups: int, **how: Any) -> Array:
    """The gradient of the kernel as the CPU likes it."""
    b, h, w, d = dy.shape
    usual = for_winograd(x, d, **how) and b * h * w > FEW_PIXELS
    product = winograd.kernel_gradient if usual else functools.partial(kernel_gradient_by_rows, **how)
    if groups == 1:
        return sum_parts(apart(product), x, dy)
    kernel = jax.ShapeDtypeStruct((*how["size"], x.shape[3] // groups, d), x.dtype)
    blocks = jax.eval_shape(lambda kernel: in_blocks(kernel, groups), kernel).shape[0]
    gradient = sum_parts(apart(jax.vmap(product, 3)), channels_in(x, blocks), channels_in(dy, blocks))
    return jax.linear_transpose(lambda kernel: in_blocks(kernel, groups), kernel)(gradient)[0]


def for_winograd(x: Array, features: int, *, strides: Pair, padding: tuple[Pair, ...], size: Pair, **_: Any) -> bool:
    """Whether it is 3x3 with stride 1 and padding 1, with enough channels."""
    usual = (strides, padding, size) == ((1, 1), ((1, 1), (1, 1)), (3, 3))
    return usual and min(x.shape[3], features) >= FEW_CHANNELS


def in_blocks(kernel: Array, groups: int) -> Array:
    """Kernels of groups as some dense ones: [i, j, c, d] -> [blocks, i, j, c', d'].

    Each block has a few groups on its diagonal: products with its zeros cost less than many small matmuls.
    """
    i, j, c, d = kernel.shape
    few = max(m for m in range(1, groups + 1) if groups % m == 0 and (m == 1 or m * max(c, d // groups) <= BLOCK))
    kernel = kernel.reshape(i, j, c, groups // few, few, d // groups)
    blocks = jnp.einsum("ijckgd,fg->kijfcgd", kernel, jnp.eye(few, dtype=kernel.dtype))
    return blocks.reshape(groups // few, i, j, few * c, -1)


def channels_in(x: Array, blocks: int) -> Array:
    """[b, h, w, c] -> [b, h, w, blocks, c / blocks]."""
    return x.reshape(*x.shape[:3], blocks, -1)


def map_parts(function: Callable[[Array], Array], x: Array) -> Array:
    """The function of some images at a time, put together."""
    n = images_a_part(x)
    if n == len(x):
        return function(x)
    y = jax.lax.map(lambda start: function(part(x, start, n)), jnp.arange(0, len(x), n))
    return y.reshape(-1, *y.shape[2:])


def sum_parts(function: Callable[[Array, Array], Array], x: Array, dy: Array) -> Array:
    """The function of some images at a time, added up."""
    n = images_a_part(x, dy)
    if n == len(x):
        return function(x, dy)

    def add(total: Array | float, start: Any) -> tuple[Array, None]:
        return total + function(part(x, start, n), part(dy, start, n)), None

    zero = jnp.zeros_like(jax.eval_shape(lambda: add(0.0, 0)[0]))
    return jax.lax.scan(add, zero, jnp.arange(0, len(x), n))[0]


def part(x: Array, start: Any, n: int) -> Array:
    """Some images: a slice, which costs less than a loop over an array with one more axis."""
    return jax.lax.dynamic_slice_in_dim(x, start, n)


def images_a_part(*maps: Array) -> int:
    """How many images are taken at a time, so that what is written for them stays in the cache."""
    images = len(maps[0])
    wanted = max(1, PART // max(a[0].size for a in maps))
    fits = [n for n in range(1, images) if images % n == 0 and wanted <= 2 * n <= 4 * wanted]
    return min(fits, key=lambda n: abs(n - wanted)) if fits and wanted < images else images


def apart(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function as a call that XLA does not inline: its arguments and its result are arrays in memory.

    Else XLA fuses what computes an argument (a BatchNorm, its gradient) into each of the many slices that read it, and
    computes it again for each. An `optimization_barrier` is gone before the CPU's fusion. XLA's own convolutions must
    stay outside: in such a call they take four times as long.
    """

    def called(*args: Any) -> Array:
        result: Any = set_xla_metadata(jax.jit(function)(*args), inlineable="false")
        return result

    return called


def matmul_of_first(a: Array, b: Array) -> Array:
    """A [n, c], b [n, d] -> [c, d]."""
    return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())))


def kernel_gradient_by_rows(
    x: Array, dy: Array, *, size: Pair, strides: Pair, padding: tuple[Pair, ...], **_: Any
) -> Array:
    """A matmul for each row of the kernel; what its columns meet lies side by side once for all rows."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    columns = jnp.concatenate(_met(x, 2, size[1], strides[1]), axis=-1)  # [b, h, w', j c]
    rows = (row.reshape(-1, columns.shape[-1]) for row in _met(columns, 1, size[0], strides[0]))
    gradient = jnp.stack([matmul_of_first(row, dy.reshape(-1, dy.shape[3])) for row in rows])
    return gradient.reshape(*size, x.shape[3], dy.shape[3])


def channel_patches(x: Array, *, size: Pair, strides: Pair, padding: tuple[Pair, ...], **_: Any) -> Array:
    """The pixels under each output, channels first: [b, h, w, c] -> [i j c, b h' w']."""
    x = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), *padding))
    places = (place for row in _met(x, 2, size[0], strides[0]) for place in _met(row, 3, size[1], strides[1]))
    return jnp.concatenate([place.reshape(x.shape[0], -1) for place in places])


def _met(x: Array, axis: int, size: int, stride: int) -> list[Array]:
    """What each place of a window meets along one axis, on its way over a padded map."""
    n = (x.shape[axis] - size) // stride + 1
    return [jax.lax.slice_in_dim(x, i, i + (n - 1) * stride + 1, stride, axis) for i in range(size)]


def _primitive(name: str, usual: Callable, on_cpu: Callable) -> Primitive:
    """A bilinear primitive that is `on_cpu` there and `usual` elsewhere, to which the shapes are those of `usual`."""
    new = Primitive(name)

    def abstract(a: Any, b: Any, **how: Any) -> Any:
        shapes = (jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (a, b))
        out = jax.eval_shape(functools.partial(usual, **how), *shapes)
        return ShapedArray(out.shape, out.dtype)

    def batched(args: Any, axes: Any, **how: Any) -> Any:
        return jax.vmap(functools.partial(usual, **how), axes)(*args), 0

    new.def_impl(jax.jit(lambda a, b, **how: new.bind(a, b, **how), static_argnames=_STATIC))
    new.def_abstract_eval(abstract)
    batching.primitive_batchers[new] = batched
    mlir.register_lowering(new, mlir.lower_fun(usual, multiple_results=False))
    own, theirs = (mlir.lower_fun(form, multiple_results=False) for form in (on_cpu, usual))

    def lowered(context: Any, *args: Any, **how: Any) -> Any:
        devices = getattr(context.module_context.axis_context, "num_devices", 1)
        return (own if devices == 1 else theirs)(context, *args, **how)  # parts of a batch do not go over devices

    mlir.register_lowering(new, lowered, platform="cpu")
    return new


_STATIC = ("strides", "padding", "groups", "map_size", "size")
forward_p = _primitive("cpu_convolution", plain, fast)
input_gradient_p = _primitive("cpu_convolution_input_gradient", plain_input_gradient, fast_input_gradient)
kernel_gradient_p = _primitive("cpu_convolution_kernel_gradient", plain_kernel_gradient, fast_kernel_gradient)

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
