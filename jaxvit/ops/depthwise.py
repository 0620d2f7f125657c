"""The three products of a depthwise convolution with stride 1, as the CPU likes them: no sums over channels.

XLA's own is a loop over channels of convolutions of one; on one core that took 10 to 40 times as long for the kernels
of 7x7 that ConvNeXt has. Here channels are the vectors, and each place of the kernel is a shifted product. The outputs
and the gradient of the input are sums of such products, which XLA computes in one loop. The gradient of the kernel is
summed image by image and row by row, its columns last: a reduction over all places at once is not vectorised.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
Pair = tuple[int, int]
MOST = 11  # of a kernel's side: the code grows with its area


def suits(channels: int, *, strides: Pair, padding: tuple[Pair, ...], size: Pair, groups: int, features: int) -> bool:
    """Whether it is depthwise, with stride 1 and a kernel that is not large, and pads no more than it reaches."""
    depthwise = groups == channels == features > 1 and strides == (1, 1)
    return depthwise and all(n <= MOST and max(pads) < n for n, pads in zip(size, padding, strict=True))


def convolution(x: Array, kernel: Array, padding: tuple[Pair, ...]) -> Array:
    """x [b, h, w, c], kernel [i, j, 1, c] -> [b, h', w', c]."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (rows, columns), (_, h, w, _) = kernel.shape[:2], x.shape
    h, w = h - rows + 1, w - columns + 1
    sums = [
        sum(x[:, i : i + h, j : j + w] * kernel[None, None, i, j] for j in range(1, columns))
        + x[:, i : i + h, :w] * kernel[None, None, i, 0]
        for i in range(rows)
    ]
    return sum(sums[1:], sums[0])


def input_gradient(dy: Array, kernel: Array, padding: tuple[Pair, ...]) -> Array:
    """Dy [b, h', w', c], kernel [i, j, 1, c] -> [b, h, w, c]."""
    reach = zip(kernel.shape[:2], padding, strict=True)
    back = tuple((n - 1 - low, n - 1 - high) for n, (low, high) in reach)
    return convolution(dy, kernel[::-1, ::-1], back)


def kernel_gradient(x: Array, dy: Array, padding: tuple[Pair, ...], size: Pair) -> Array:
    """x [b, h, w, c], dy [b, h', w', c] -> [i, j, 1, c]."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (rows, columns), (b, h, w, c) = size, dy.shape

    def add(sums: list[Array], place: Array) -> tuple[list[Array], None]:
        image, row = place // h, place % h
        seen = jax.lax.dynamic_slice(x, (image, row, 0, 0), (1, rows, x.shape[2], c))[0]
        part = jax.lax.dynamic_slice(dy, (image, row, 0, 0), (1, 1, w, c))[0]
        return [total + seen[:, j : j + w] * part for j, total in enumerate(sums)], None

    zeros = [jnp.zeros((rows, w, c), x.dtype)] * columns
    sums = jax.lax.scan(add, zeros, jnp.arange(b * h))[0]
    return jnp.stack([total.sum(1) for total in sums], 1)[:, :, None]
