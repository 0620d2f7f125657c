"""The three products of a convolution (outputs, gradients of the input and of the kernel), as XLA has them and as the
CPU likes them.

XLA computes all three as convolutions. On the CPU these are slow where the maps are small, and the gradient of a kernel
most of all: its window is the whole map. Here each product takes the fastest of the forms measured
(docs/PERFORMANCE.md):

    winograd   3x3 with stride 1: 16 matmuls with 4/9 of the work
    patches    the pixels under each output side by side, and one matmul (one for each row of a kernel's gradient)
    matmul     1x1
    depthwise  a shifted product for each place of the kernel
    plain      XLA's own
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata

from jaxvit.ops import depthwise, linear, winograd
from jaxvit.ops.layout import row_major_p

Array = jax.Array
Pair = tuple[int, int]
NHWC = ("NHWC", "HWIO", "NHWC")
FEW_PIXELS = 64  # outputs, up to which reading the kernel takes longer than the products
PART = 2**18  # numbers of a map: those of tiles and patches, four times as many, then stay in a core's cache
BLOCK = 32  # channels of a block of groups
FEW_CHANNELS = 16  # below, transforms cost more than products


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
    """XLA's own gradient of the kernel: x [b, h, w, c], dy [b, h', w', d] -> [i, j, c / groups, d].

    On a GPU it comes as [d, i, j, c / groups]. It is transposed at once: were it transposed within the optimiser's
    update, that could not write in place, and weights, momenta and their average were copied in every step.
    """
    kernel = jax.ShapeDtypeStruct((*size, x.shape[3] // groups, dy.shape[3]), x.dtype)
    gradient = jax.linear_transpose(lambda kernel: plain(x, kernel, groups=groups, **how), kernel)(dy)[0]
    return row_major_p.bind(gradient)


def fast(x: Array, kernel: Array, **how: Any) -> Array:
    """The convolution as the CPU likes it."""
    if is_matmul(**how):
        return matmul(x, kernel)
    if depthwise.suits(x.shape[3], features=kernel.shape[3], **_shape(how)):
        return depthwise_convolution(x, kernel, how["padding"])
    if not suits(x, kernel.shape[3]):
        return plain(x, kernel, **how)
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
    if is_matmul(**how):
        return matmul(dy, kernel.transpose(0, 1, 3, 2))
    if depthwise.suits(dy.shape[3], features=kernel.shape[2] * how["groups"], **_shape(how)):
        return depthwise_input_gradient(dy, kernel, how["padding"])
    if not suits(dy, kernel.shape[3]):
        return plain_input_gradient(dy, kernel, **how)
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
    if is_matmul(groups=groups, **how):
        return matmul_kernel_gradient(x, dy)
    if depthwise.suits(x.shape[3], features=dy.shape[3], **_shape(how | {"groups": groups})):
        return depthwise_kernel_gradient(x, dy, how["padding"], how["size"])
    if not suits(x, dy.shape[3]):
        return plain_kernel_gradient(x, dy, groups=groups, **how)
    b, h, w, d = dy.shape
    usual = for_winograd(x, d, **how) and b * h * w > FEW_PIXELS
    product = winograd.kernel_gradient if usual else functools.partial(kernel_gradient_by_rows, **how)
    if groups == 1:
        return sum_parts(apart(product), x, dy)
    kernel = jax.ShapeDtypeStruct((*how["size"], x.shape[3] // groups, d), x.dtype)
    blocks = jax.eval_shape(lambda kernel: in_blocks(kernel, groups), kernel).shape[0]
    gradient = sum_parts(apart(jax.vmap(product, 3)), channels_in(x, blocks), channels_in(dy, blocks))
    return jax.linear_transpose(lambda kernel: in_blocks(kernel, groups), kernel)(gradient)[0]


# Traced once for layers of one shape, so that a program has their code once.
depthwise_convolution = jax.jit(depthwise.convolution, static_argnums=2)
depthwise_input_gradient = jax.jit(depthwise.input_gradient, static_argnums=2)
depthwise_kernel_gradient = jax.jit(depthwise.kernel_gradient, static_argnums=(2, 3))


def _shape(how: dict[str, Any]) -> dict[str, Any]:
    return {word: how[word] for word in ("strides", "padding", "size", "groups")}


def is_matmul(*, size: Pair, strides: Pair, padding: tuple[Pair, ...], groups: int, **_: Any) -> bool:
    """Whether it is 1x1."""
    return size == strides == (1, 1) and groups == 1 and not any(map(any, padding))


def matmul(x: Array, kernel: Array) -> Array:
    """x [b, h, w, c], kernel [1, 1, c, d] -> [b, h, w, d]."""
    return linear.product(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[3])


def matmul_kernel_gradient(x: Array, dy: Array) -> Array:
    """x [b, h, w, c], dy [b, h, w, d] -> [1, 1, c, d]."""
    rows = (a.reshape(-1, a.shape[-1]) for a in (x, dy))
    return linear.kernel_gradient_of_transposed_input(*rows)[None, None]


def suits(x: Array, features: int) -> bool:
    """Whether products of ours are faster: in float32, with enough channels."""
    return x.dtype == jnp.float32 and features >= FEW_CHANNELS


def wide(product: Callable[..., Array]) -> Callable[..., Array]:
    """The product of 16-bit arrays in float32: XLA's own takes 40 times as long on a CPU."""

    def computed(a: Array, b: Array, **how: Any) -> Array:
        if a.dtype not in (jnp.bfloat16, jnp.float16):
            return product(a, b, **how)
        return product(a.astype(jnp.float32), b.astype(jnp.float32), **how).astype(a.dtype)

    return computed


def _if_matmul(fast: Callable[..., Array], plain: Callable[..., Array]) -> Callable[..., Array]:
    """For several devices: parts of a batch do not go over them."""

    def computed(a: Array, b: Array, **how: Any) -> Array:
        return (fast if is_matmul(**how) else plain)(a, b, **how)

    return computed


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


# form -> product, for each of the three
FORMS, INPUT_GRADIENT_FORMS, KERNEL_GRADIENT_FORMS = (
    {"plain": usual, "cpu": wide(own), "cpu_split": wide(_if_matmul(own, usual))}
    for usual, own in (
        (plain, fast), (plain_input_gradient, fast_input_gradient), (plain_kernel_gradient, fast_kernel_gradient)
    )
)  # fmt: skip
