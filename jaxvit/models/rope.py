"""Rotary position embeddings of patches (Su et al., 2021; in two dimensions Heo et al., 2024).

Two channels of a head are a point in a plane, and a token's place turns it by an angle. The product of a query and a
key then depends on the difference of their places, and no table has to be resampled for another image size.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.models.layers import Array, Dtype

Grid = tuple[int, int]

ROPE_TYPES = ("cat", "mixed", "dinov3")
INDEXINGS = ("ij", "xy")  # the order of a place's two coordinates: (down, across) or (across, down)


class RotaryEmbedding(nn.Module):
    """The angles by which tokens are turned: a grid of patches -> [depth or 1, n, heads or 1, hd/2], float32.

    Of type "cat" they are a place times fixed frequencies, first of one axis, then of the other. "dinov3" counts
    places from -1 to 1 across the image, whatever its size (Simeoni et al., 2025). "mixed" learns the frequencies of
    both axes, for every block and head (Heo et al., 2024).
    """

    head_dim: int
    kind: str = "cat"
    temperature: float = 10000.0
    indexing: str = "ij"
    offset: float = 0.0  # added to every place, in patches
    reference: Grid | None = None  # the grid of pretraining, onto which others are stretched (Fang et al., 2023)
    depth: int = 1
    num_heads: int = 1
    # In training all places are moved together: by up to `shift`, stretched by up to `jitter` along each axis and by up
    # to `rescale` along both.
    shift: float | None = None
    jitter: float | None = None
    rescale: float | None = None

    @nn.compact
    def __call__(self, grid: Grid, *, train: bool = False) -> Array:
        places = jnp.asarray(self.places(grid))
        if train and (self.shift, self.jitter, self.rescale) != (None, None, None):
            places = moved(places, self.make_rng("dropout"), self.shift, self.jitter, self.rescale)
        if self.kind == "mixed":
            shape = (2, self.depth, self.num_heads, self.head_dim // 2)
            freqs = self.param("freqs", self.rotated_frequencies, shape)
            first, second = (places[:, axis].reshape(1, -1, 1, 1) * freqs[axis][:, None] for axis in range(2))
            return first + second
        exponents = np.arange(self.head_dim // 4, dtype=np.float32) / np.float32(self.head_dim // 4)
        bands = np.float32(self.temperature) ** -exponents
        if self.kind == "dinov3":
            bands = np.float32(2 * math.pi) * bands
        return (places[:, :, None] * bands[None, None]).reshape(1, len(places), 1, -1)

    def places(self, grid: Grid) -> np.ndarray:
        """The two coordinates of each patch, row by row: [n, 2] float32."""
        if self.kind == "dinov3":
            axes = [2 * (np.arange(side, dtype=np.float32) + 0.5 + self.offset) / side - 1 for side in grid]
        elif self.kind == "cat":
            wanted = self.reference or grid
            axes = [(np.arange(side) + self.offset) / side * r for side, r in zip(grid, wanted, strict=True)]
        else:
            axes = [np.arange(side) for side in grid]
        both = np.meshgrid(*axes, indexing="ij")
        both = both if self.indexing == "ij" else both[::-1]
        return np.stack([axis.reshape(-1) for axis in both], axis=-1).astype(np.float32)

    def rotated_frequencies(self, key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        """The start of learnt frequencies: those of "cat" along two axes at a right angle, turned for each head."""
        _, depth, heads, half = shape
        size = self.temperature ** -(jnp.arange(half // 2, dtype=dtype) / (half // 2)).reshape(1, 1, -1)
        angle = jax.random.uniform(key, (depth, heads, 1), dtype, maxval=2 * math.pi)
        angles = (angle, angle + math.pi / 2)
        along = [jnp.concatenate([size * turn(a) for a in angles], axis=-1) for turn in (jnp.cos, jnp.sin)]
        return jnp.stack(along)


def moved(places: Array, key: Array, shift: float | None, jitter: float | None, rescale: float | None) -> Array:
    """All places moved and stretched alike, at random (Simeoni et al., 2025): [n, 2] -> [n, 2]."""
    keys = jax.random.split(key, 3)
    if shift is not None:
        places = places + jax.random.uniform(keys[0], (1, 2), minval=-shift, maxval=shift)
    for factor, own, shape in ((jitter, keys[1], (1, 2)), (rescale, keys[2], (1, 1))):
        if factor is not None:
            most = math.log(factor)
            places = places * jnp.exp(jax.random.uniform(own, shape, minval=-most, maxval=most))
    return places


def turned(x: Array, cos: Array, sin: Array, *, halves: bool) -> Array:
    """Turns each pair of channels by its angle, in float32 or wider: [b, n, heads, hd] -> same.

    Args:
      x: queries or keys.
      cos: of the angles, [b or 1, n, heads or 1, hd/2].
      sin: likewise.
      halves: whether a pair is (i, i + hd/2), as in Meta's and Transformers' code, or (2i, 2i + 1).
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    a, b = jnp.split(wide, 2, axis=-1) if halves else (wide[..., ::2], wide[..., 1::2])
    pair = a * cos - b * sin, b * cos + a * sin
    both = jnp.concatenate(pair, axis=-1) if halves else jnp.stack(pair, axis=-1).reshape(x.shape)
    return both.astype(x.dtype)
