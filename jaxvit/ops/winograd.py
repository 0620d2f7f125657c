"""3x3 convolutions, stride 1, padding 1, with 16 products where 36 are usual (Winograd; Lavin and Gray, 2016).

A tile of 2x2 outputs, from the 4x4 inputs around it and the kernel w:

    y = A' [(G w G') * (B' x B)] A        (* by elements, ' transposes)

Summed over the input channels, the product by elements is a matmul for each of the 16 places: [tiles, c] x [c, d]. Both
gradients are of the same kind:

    dx: the convolution of dy with the kernel turned by 180 degrees        dw = G' [(B' x B) * (A dy A')] G

The coefficients are 0, 1, -1 and 1/2, and the sums run over c where the usual ones run over 9 c: rounding errors are no
larger than those of the usual form.

Rows are transformed as four arrays, columns as one more axis of each (`along_columns`). With sixteen arrays a product
takes twice as long to compile, and with one array for all places it runs up to half as long again.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]], np.float32)
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]], np.float32)


def convolution(x: Array, kernel: list[Array]) -> Array:
    """x [b, h, w, c], the tiles of a kernel [3, 3, c, d] -> [b, h, w, d]."""
    pairs = zip(input_tiles(x), kernel, strict=True)
    return joined([jnp.einsum("jbhwc,jcd->jbhwd", v, u) for v, u in pairs], x.shape[1:3])


def input_gradient(dy: Array, kernel: list[Array]) -> Array:
    """Dy [b, h, w, d], the tiles of a kernel [3, 3, c, d] turned by 180 degrees -> [b, h, w, c]."""
    pairs = zip(input_tiles(dy), kernel, strict=True)
    return joined([jnp.einsum("jbhwd,jcd->jbhwc", v, u) for v, u in pairs], dy.shape[1:3])


def kernel_gradient(x: Array, dy: Array) -> Array:
    """x [b, h, w, c], dy [b, h, w, d] -> [3, 3, c, d]."""
    flat = [[tile.reshape(4, -1, tile.shape[-1]) for tile in tiles] for tiles in (input_tiles(x), output_tiles(dy))]
    m = [jnp.einsum("jnc,jnd->jcd", v, u) for v, u in zip(*flat, strict=True)]  # one axis of sums: twice as fast
    rows = m[0] + 0.5 * (m[1] + m[2]), 0.5 * (m[1] - m[2]), 0.5 * (m[1] + m[2]) + m[3]  # G' m
    return jnp.stack([along_columns(G.T, list(row)) for row in rows])


def input_tiles(x: Array) -> list[Array]:
    """B' x B of each 4x4 window with stride 2: [b, h, w, c] -> four times [4, b, th, tw, c]."""
    h, w = x.shape[1:3]
    th, tw = (h + 1) // 2, (w + 1) // 2
    x = jnp.pad(x, ((0, 0), (1, 2 * th - h + 1), (1, 2 * tw - w + 1), (0, 0)))
    d = [x[:, i : i + 2 * th - 1 : 2] for i in range(4)]
    rows = d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]  # B' x
    return [along_columns(B.T, [row[:, :, j : j + 2 * tw - 1 : 2] for j in range(4)]) for row in rows]


def output_tiles(dy: Array) -> list[Array]:
    """A dy A' of each 2x2 tile: [b, h, w, d] -> four times [4, b, th, tw, d]."""
    h, w = dy.shape[1:3]
    dy = jnp.pad(dy, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    first, second = dy[:, ::2], dy[:, 1::2]
    rows = first, first + second, first - second, -second  # A dy
    return [along_columns(A, [row[:, :, j::2] for j in range(2)]) for row in rows]


def kernel_tiles(kernel: Array) -> list[Array]:
    """G w G': [3, 3, c, d] -> four times [4, c, d]."""
    first, second, third = kernel
    ends, middle = 0.5 * (first + third), 0.5 * second
    rows = first, ends + middle, ends - middle, third  # G w
    return [along_columns(G, list(row)) for row in rows]


def joined(products: list[Array], map_size: tuple[int, ...]) -> Array:
    """A' m A, the tiles put together to a map: four times [4, b, th, tw, d] -> [b, h, w, d]."""
    m = products
    rows = m[0] + m[1] + m[2], m[1] - m[2] - m[3]  # A' m
    y = jnp.stack([along_columns(A.T, list(row), 3) for row in rows], 2)  # [b th 2 tw 2 d]
    b, th, _, tw, _, d = y.shape
    return y.reshape(b, 2 * th, 2 * tw, d)[:, : map_size[0], : map_size[1]]


def along_columns(matrix: np.ndarray, parts: Sequence[Array], axis: int = 0) -> Array:
    """The matrix times the parts, the result's axis put in at `axis`.

    The zeros are multiplied too: that is one loop for XLA, where a `stack` of sums is a loop for each, and a copy.
    """
    shape = [1] * (parts[0].ndim + 1)
    shape[axis] = len(matrix)
    terms = [jnp.expand_dims(part, axis) * matrix[:, i].reshape(shape) for i, part in enumerate(parts)]
    return sum(terms[1:], terms[0])
