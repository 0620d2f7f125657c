"""Attention within the (shifted) windows of a map as one GPU kernel, forward and backward (Pallas, by Triton).

Each window of n tokens and each head needs

    o = softmax(q k^T / sqrt(hd) + bias + mask) v

with n of 49 or so: little arithmetic, and [n, n] logits that are three times the size of q. Written to memory they are
most of what a Swin moves. Here they stay in registers; memory sees the queries, keys and values once, and the
outputs once. The shift, the cut into windows and the way back are addresses: a program reads the rows of the map that
belong to its window and writes its results to the same rows. The mask follows from the positions.

A program takes one head and several windows, one after another, so that the bias is read and its gradient is written
once for all of them: partial sums [groups, heads, n, n], added up outside, which gives the same bits on every run.
Tiles are powers of two (49 tokens in 64). More than 64 tokens are cut into blocks of queries, each of which sees all
keys; the gradients of keys and values are then sums over blocks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton as plgpu
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvit.errors import UserError
from jaxvit.runtime.platform import platform

Array = jax.Array
Pair = tuple[int, int]
MASK_VALUE = -100.0  # added to the logits of pairs from different regions; finite, as in the paper's code
NEVER = -1e30  # the logit of columns that only fill a tile
MOST_QUERIES = 64  # in a tile
PROGRAMS = 1024  # about as many as a large GPU holds at once; more windows make longer programs
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


class Geometry(NamedTuple):
    """What a kernel is made for. `map_size` is a multiple of `window`."""

    map_size: Pair
    window: Pair
    shift: Pair
    heads: int
    rolled: bool = False  # the map was shifted already; only the mask is wanted
    interpret: bool = False

    @property
    def tokens(self) -> int:
        """In a window."""
        return self.window[0] * self.window[1]

    @property
    def keys(self) -> int:
        """Columns of a tile."""
        return max(16, pl.next_power_of_2(self.tokens))

    @property
    def queries(self) -> int:
        """Rows of a tile."""
        return min(self.keys, MOST_QUERIES)

    @property
    def blocks(self) -> int:
        """Tiles that hold the queries of a window."""
        return pl.cdiv(self.tokens, self.queries)

    @property
    def windows(self) -> int:
        """On a map."""
        (h, w), (wh, ww) = self.map_size, self.window
        return (h // wh) * (w // ww)

    def group(self, batch_size: int) -> int:
        """Windows that a program takes: a power of two."""
        fair = self.windows * batch_size * self.heads * self.blocks // PROGRAMS
        return pl.next_power_of_2(max(fair, 1) // 2 + 1)


def attend(
    qkv: Array, bias: Array, window: Pair, shift: Pair = (0, 0), *, rolled: bool = False, interpret: bool = False
) -> Array:
    """Attention in windows: maps [b, h, w, 3 heads hd], bias [heads, n, n] -> [b, h, w, heads hd].

    Args:
      qkv: in timm's order: all queries by head, all keys, all values. The window divides the map.
      bias: for each pair of tokens of a window; float32.
      window: height and width in tokens.
      shift: how many tokens below and right of the corner the windows begin; those at the far ends wrap around, and
        what was not adjacent is kept apart.
      rolled: the map was shifted already; only what was not adjacent is kept apart.
      interpret: run the kernel by JAX's own operations: slow, on any device.

    Raises:
      UserError: no kernel can be made for this platform or dtype.
    """
    if not interpret and platform() != "gpu":
        raise UserError(f"attn_implementation='pallas' needs a GPU, this is a {platform()}; expected None or 'xla'.")
    if qkv.dtype not in DTYPES:
        raise UserError(f"attn_implementation='pallas' computes in 16 or 32 bits, not in {qkv.dtype}; use 'xla'.")
    made_for = Geometry((qkv.shape[1], qkv.shape[2]), window, shift, len(bias), rolled, interpret)
    return _attend(made_for, qkv, bias.astype(jnp.float32))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(g: Geometry, qkv: Array, bias: Array) -> Array:
    return _mappable(_outputs, g)(qkv, bias)


def _attend_fwd(g: Geometry, qkv: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    return _attend(g, qkv, bias), (qkv, bias)


def _attend_bwd(g: Geometry, kept: tuple[Array, Array], dout: Array) -> tuple[Array, Array]:
    return _mappable(_gradients, g)(*kept, dout)


_attend.defvjp(_attend_fwd, _attend_bwd)


def _mappable(run: Callable, g: Geometry) -> Callable:
    """`run` for that geometry, with a rule for `jax.vmap`: the mapped axis becomes one of heads.

    So each member has its own bias, and a gradient of it, and images stay split over devices as they are.
    """
    mappable = custom_vmap(partial(run, g))

    @mappable.def_vmap
    def mapped(size: int, axes: Any, *args: Array) -> tuple[Any, Any]:
        dim = args[0].shape[-1] // 3  # of a member's heads together
        members = [a if on else jnp.broadcast_to(a, (size, *a.shape)) for a, on in zip(args, axes, strict=True)]
        found = _mappable(run, g._replace(heads=size * g.heads))(*(_as_heads(a, dim) for a in members))
        apart = jax.tree.map(lambda a: _as_members(a, size, dim), found)
        return apart, jax.tree.map(lambda _: True, apart)

    return mappable


def _as_heads(a: Array, dim: int) -> Array:
    """Members' maps [m, b, h, w, k dim] -> [b, h, w, k m dim], or their biases [m, heads, n, n] -> [m heads, n, n]."""
    if a.ndim == 4:
        return a.reshape(-1, *a.shape[2:])
    m, b, h, w, width = a.shape
    return a.reshape(m, b, h, w, width // dim, dim).transpose(1, 2, 3, 4, 0, 5).reshape(b, h, w, m * width)


def _as_members(a: Array, m: int, dim: int) -> Array:
    """The inverse of `_as_heads`."""
    if a.ndim == 3:
        return a.reshape(m, -1, *a.shape[1:])
    b, h, w, width = a.shape
    return a.reshape(b, h, w, -1, m, dim).transpose(4, 0, 1, 2, 3, 5).reshape(m, b, h, w, width // m)


def _by_batch(rule: str) -> Callable[[Callable], Callable]:
    """Lets XLA split a function of maps over devices by images; else it would gather them, not seeing into a kernel."""

    def wrap(run: Callable) -> Callable:
        def split(g: Geometry, mesh: Any, given: Any, made: Any) -> tuple[Any, Callable, Any, Any]:
            images = next(iter(given[0].sharding.spec), None)
            whole, parts = NamedSharding(mesh, P()), NamedSharding(mesh, P(images))

            def place(arrays: Any) -> Any:
                return jax.tree.map(lambda array: parts if len(array.shape) == 4 else whole, arrays)

            def part(*args: Array) -> Any:
                out = run(g, *args)
                return (out[0], lax.psum(out[1], images)) if isinstance(out, tuple) and images else out

            return mesh, part, place(made), place(given)

        either = custom_partitioning(run, static_argnums=(0,))
        either.def_partition(split, sharding_rule=rule, need_replication_factors=tuple("hwckmnd"))
        return either

    return wrap


@_by_batch("b h w c, k m n -> b h w d")
def _outputs(g: Geometry, qkv: Array, bias: Array) -> Array:
    b, h, w, width = qkv.shape
    out = jax.ShapeDtypeStruct((b * h * w, width // 3), qkv.dtype)
    return _call(_forward, g, b, out, qkv.reshape(-1, width), bias).reshape(b, h, w, -1)


@_by_batch("b h w c, k m n, b h w d -> b h w c, k m n")
def _gradients(g: Geometry, qkv: Array, bias: Array, dout: Array) -> tuple[Array, Array]:
    b, width = qkv.shape[0], qkv.shape[-1]
    rows, d, several = qkv.size // width, width // 3, g.blocks > 1
    groups = pl.cdiv(b * g.windows, g.group(b))
    shapes = (
        jax.ShapeDtypeStruct((g.blocks, rows, width), jnp.float32 if several else qkv.dtype),
        jax.ShapeDtypeStruct((groups, *bias.shape), jnp.float32),
    )
    dqkv, dbias = _call(_backward, g, b, shapes, qkv.reshape(rows, width), bias, dout.reshape(rows, d))
    if several:  # queries are in the first part alone, keys and values in all
        dqkv = jnp.concatenate([dqkv[0, :, :d], jnp.sum(dqkv[:, :, d:], axis=0)], axis=-1)
    return dqkv.reshape(qkv.shape).astype(qkv.dtype), jnp.sum(dbias, axis=0)


def _call(kernel: Any, g: Geometry, batch_size: int, shapes: Any, *args: Array) -> Any:
    """Runs a kernel over heads, groups of windows and blocks of queries; it sees all arrays whole."""
    group, windows = g.group(batch_size), batch_size * g.windows
    head_dim = args[0].shape[-1] // 3 // g.heads
    large = g.queries * max(g.keys, head_dim) > 64 * 64
    return pl.pallas_call(
        partial(kernel, g=g, group=group, windows=windows, head_dim=head_dim),
        grid=(g.heads, pl.cdiv(windows, group), g.blocks),
        out_shape=shapes,
        interpret=g.interpret,
        compiler_params=plgpu.CompilerParams(num_warps=8 if large else 4, num_stages=2),
        name=f"window_attention{kernel.__name__}",
    )(*args)


class _Program(NamedTuple):
    """The indices of one program: its head, its windows, and the tokens in its tile of queries."""

    g: Geometry
    head: Any
    first: Any  # window
    last: Any
    block: Any
    head_dim: int

    @property
    def queries(self) -> Array:
        return self.block * self.g.queries + lax.iota(jnp.int32, self.g.queries)

    @property
    def keys(self) -> Array:
        return lax.iota(jnp.int32, self.g.keys)

    def place(self, window: Any, tokens: Array) -> tuple[Array, Array]:
        """Rows of the flattened maps that hold these tokens of a window, and their regions (0 where all are one)."""
        (h, w), (wh, ww), (sh, sw) = self.g.map_size, self.g.window, self.g.shift
        image, at = lax.div(window, self.g.windows), lax.rem(window, self.g.windows)
        y = lax.div(at, w // ww) * wh + lax.div(tokens, ww)
        x = lax.rem(at, w // ww) * ww + lax.rem(tokens, ww)
        region = jnp.zeros_like(tokens)
        for position, size, side, shift in ((y, h, wh, sh), (x, w, ww, sw)):
            if shift:
                region = 3 * region + (position >= size - side).astype(jnp.int32) + (position >= size - shift)
        if not self.g.rolled:
            y, x = _wrapped(y + sh, h) if sh else y, _wrapped(x + sw, w) if sw else x
        return (image * h + y) * w + x, region

    def tile(self, rows: Array, tokens: Array, part: int) -> tuple[tuple[Array, Array], Array]:
        """(indices, which of them exist) of one head's columns in part 0, 1, 2: queries, keys, values."""
        columns = lax.iota(jnp.int32, max(16, pl.next_power_of_2(self.head_dim)))
        real = (tokens < self.g.tokens)[:, None] & (columns < self.head_dim)[None, :]
        return (rows[:, None], ((part * self.g.heads + self.head) * self.head_dim + columns)[None, :]), real

    def load(self, ref: Any, rows: Array, tokens: Array, part: int = 0) -> Array:
        """One head's columns, 0 where the tile has more than there is."""
        index, real = self.tile(rows, tokens, part)
        return plgpu.load(ref.at[index], mask=real, other=0.0)

    def store(self, ref: Any, rows: Array, tokens: Array, values: Array, part: int = 0, block: Any = None) -> None:
        index, real = self.tile(rows, tokens, part)
        index = index if block is None else (jnp.full_like(index[0], block), *index)
        plgpu.store(ref.at[index], values.astype(ref.dtype), mask=real)

    def square(self, leading: Any) -> tuple[tuple[Any, ...], Array]:
        """(indices, which of them exist) of the tile's pairs in an array [leading, heads, n, n] or [heads, n, n]."""
        q, k = self.queries[:, None], self.keys[None, :]
        index = tuple(jnp.full_like(q, at) for at in (leading, self.head) if at is not None)
        return (*index, q, k), (q < self.g.tokens) & (k < self.g.tokens)

    def weights(self, q: Array, k: Array, bias: Array, regions: tuple[Array, Array]) -> Array:
        """softmax(q k^T / sqrt(hd) + bias + mask), float32; 0 in columns that only fill the tile."""
        logits = _dot(q, k.T) * self.head_dim**-0.5 + bias
        if any(self.g.shift):
            logits += jnp.where(regions[0][:, None] == regions[1][None, :], 0.0, MASK_VALUE)
        logits = jnp.where((self.keys < self.g.tokens)[None, :], logits, NEVER)
        weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
        return weights * (1.0 / jnp.sum(weights, axis=1, keepdims=True))


def _wrapped(position: Array, size: int) -> Array:
    return jnp.where(position >= size, position - size, position)


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _program(g: Geometry, group: int, windows: int, head_dim: int) -> _Program:
    first = pl.program_id(1) * group
    return _Program(g, pl.program_id(0), first, jnp.minimum(first + group, windows), pl.program_id(2), head_dim)


def _forward(qkv_ref: Any, bias_ref: Any, out_ref: Any, **made_for: Any) -> None:
    p = _program(**made_for)
    pairs, real = p.square(None)
    bias = plgpu.load(bias_ref.at[pairs], mask=real, other=0.0)

    def one(window: Any, carry: tuple) -> tuple:
        (own, own_region), (rows, region) = p.place(window, p.queries), p.place(window, p.keys)
        q = p.load(qkv_ref, own, p.queries)
        k, v = (p.load(qkv_ref, rows, p.keys, part) for part in (1, 2))
        weights = p.weights(q, k, bias, (own_region, region))
        p.store(out_ref, own, p.queries, _dot(weights.astype(v.dtype), v))
        return carry

    lax.fori_loop(p.first, p.last, one, ())


def _backward(qkv_ref: Any, bias_ref: Any, dout_ref: Any, dqkv_ref: Any, dbias_ref: Any, **made_for: Any) -> None:
    p = _program(**made_for)
    pairs, real = p.square(None)
    bias = plgpu.load(bias_ref.at[pairs], mask=real, other=0.0)

    def one(window: Any, dbias: Array) -> Array:
        (own, own_region), (rows, region) = p.place(window, p.queries), p.place(window, p.keys)
        q = p.load(qkv_ref, own, p.queries)
        k, v = (p.load(qkv_ref, rows, p.keys, part) for part in (1, 2))
        dout = p.load(dout_ref, own, p.queries)
        weights = p.weights(q, k, bias, (own_region, region))
        p.store(dqkv_ref, rows, p.keys, _dot(weights.astype(v.dtype).T, dout), 2, block=p.block)
        dweights = _dot(dout, v.T)
        dlogits = weights * (dweights - jnp.sum(weights * dweights, axis=1, keepdims=True))
        scaled = (dlogits * p.head_dim**-0.5).astype(q.dtype)
        p.store(dqkv_ref, own, p.queries, _dot(scaled, k), 0, block=0)
        p.store(dqkv_ref, rows, p.keys, _dot(scaled.T, q), 1, block=p.block)
        return dbias + dlogits

    dbias = lax.fori_loop(p.first, p.last, one, jnp.zeros((p.g.queries, p.g.keys), jnp.float32))
    pairs, real = p.square(pl.program_id(1))
    plgpu.store(dbias_ref.at[pairs], dbias, mask=real)
