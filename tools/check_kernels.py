"""The attention kernels on the hardware at hand, against the formula: outputs, gradients, the same bits twice, time.

    python tools/check_kernels.py [--batch 64] [--json FILE] [--compare]

Ours for Swin's windows in float32 with full products, so that what differs is the kernel, and in bfloat16; cuDNN's for
a ViT's tokens in bfloat16. Times are those of one attention in bfloat16, forward and backward, without the linear
layers around it; `--compare` takes those of the formula too, which compiles another program for each row. All programs
are compiled first, side by side, and kept in the compile cache.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from jaxvit.ops import cudnn_attention, window_kernel  # noqa: E402
from jaxvit.ops.window_attention import shifted_window_mask, window_partition, window_reverse  # noqa: E402
from jaxvit.runtime import compile_cache  # noqa: E402
from jaxvit.runtime.console import table  # noqa: E402

# map side, window, heads: the stages of Swin-T, Swin-B and Swin-B at 384 pixels
STAGES = ((56, 7, 3), (28, 7, 6), (14, 7, 12), (7, 7, 24), (56, 7, 4), (7, 7, 32), (96, 12, 4), (12, 12, 32))
TOKENS = ((197, 12), (197, 3), (65, 4), (64, 4))  # tokens, heads of 64: ViT-B, DeiT-Ti, ViTs of 32 pixels
HEAD_DIM = 32
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # of the largest value


def formula(qkv: Any, bias: Any, window: tuple[int, int], shift: tuple[int, int]) -> Any:
    """What `window_kernel.attend` computes, written out."""
    (_, h, w, width), heads = qkv.shape, len(bias)
    x = window_partition(jnp.roll(qkv, (-shift[0], -shift[1]), (1, 2)), window)
    q, k, v = jnp.moveaxis(x.reshape(*x.shape[:3], 3, heads, -1), 3, 0)
    logits = jnp.einsum("bwqhd,bwkhd->bwhqk", q * HEAD_DIM**-0.5, k, preferred_element_type=jnp.float32)
    mask = shifted_window_mask((h, w), window, shift)
    bias = bias[None, None] if mask is None else bias[None, None] + mask[None, :, None]
    x = jnp.einsum("bwhqk,bwkhd->bwqhd", jax.nn.softmax(logits + bias, axis=-1).astype(v.dtype), v)
    return jnp.roll(window_reverse(x.reshape(*x.shape[:3], width // 3), window, (h, w)), shift, (1, 2))


def run(attend: Any, *args: Any) -> list[Any]:
    """Jitted: the output and the gradients of a sum of it, weighted by the last argument."""
    *arrays, weights = args

    def loss(*arrays: Any) -> Any:
        out = attend(*arrays)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    (_, out), grads = jax.value_and_grad(loss, argnums=tuple(range(len(arrays))), has_aux=True)(*arrays)
    return [out, *grads]


def seconds(function: Any, *args: Any) -> float:
    """Least time of a call, of some."""
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        for _ in range(5):
            out = function(*args)
        jax.block_until_ready(out)
        best = min(best, (time.perf_counter() - begun) / 5)
    return best


class Case(NamedTuple):
    """One row: a kernel, its formula, their arguments, the types to check it in, and whether its bits must repeat."""

    name: str
    kernel: Any
    plain: Any
    args: tuple[Any, ...]  # the first ones are cast; the last two of a window are a bias and weights
    cast: int
    dtypes: tuple[str, ...]
    repeats: bool
    words: tuple[str, ...]  # what `run` returns

    def given(self, dtype: str) -> tuple[Any, ...]:
        """The arguments in that type."""
        return tuple(a.astype(dtype) if at < self.cast else a for at, a in enumerate(self.args))


def windows(side: int, window: int, heads: int, batch: int, interpret: bool) -> Case:
    """Our kernel for a stage of a Swin."""
    half, square = window // 2 if side > window else 0, (window, window)
    n, d = window * window, heads * HEAD_DIM
    shapes = ((batch, side, side, 3 * d), (heads, n, n), (batch, side, side, d))
    args = [
        jax.random.normal(key, shape) for key, shape in zip(jax.random.split(jax.random.key(0), 3), shapes, strict=True)
    ]
    kernel = partial(window_kernel.attend, window=square, shift=(half, half), interpret=interpret)
    plain = partial(formula, window=square, shift=(half, half))
    name = f"ours: map {side}, window {window}, heads {heads}"
    return Case(name, kernel, plain, tuple(args), 1, ("float32", "bfloat16"), True, ("out", "dqkv", "dbias"))


def tokens(n: int, heads: int, batch: int) -> Case:
    """The kernel of cuDNN for a ViT; its gradient may add in another order each time."""
    keys = jax.random.split(jax.random.key(0), 4)
    args = tuple(jax.random.normal(key, (batch, n, heads, 64)) for key in keys)
    name = f"cuDNN: {n} tokens, heads {heads}"
    return Case(
        name, cudnn_attention.attend, cudnn_attention.by_xla, args, 3, ("bfloat16",), False, ("out", "dq", "dk", "dv")
    )


def compiled(case: Case, compare: bool) -> dict[str, Any]:
    """The programs of a row: the kernel in each type, the formula in float32, and in bfloat16 to be timed."""
    with jax.default_matmul_precision("highest"):
        found = {"plain": jax.jit(partial(run, case.plain)).lower(*case.given("float32")).compile()}
        for dtype in case.dtypes:
            found[dtype] = jax.jit(partial(run, case.kernel)).lower(*case.given(dtype)).compile()
    if compare:
        found["timed"] = jax.jit(partial(run, case.plain)).lower(*case.given("bfloat16")).compile()
    return found


def check(case: Case, programs: dict[str, Any], timed: bool) -> dict[str, Any]:
    """One row."""
    row: dict[str, Any] = {"case": case.name, "good": True}
    for dtype in case.dtypes:
        args = case.given(dtype)
        wanted = programs["plain"](*(a.astype(jnp.float32) for a in args))
        found, again = (programs[dtype](*args) for _ in range(2))
        far = [
            float(jnp.abs(a.astype(jnp.float32) - b).max() / jnp.abs(b).max())
            for a, b in zip(found, wanted, strict=True)
        ]
        same = all(bool((a == b).all()) for a, b in zip(found, again, strict=True))
        row |= {f"{dtype}_{word}": value for word, value in zip(case.words, far, strict=True)}
        row[f"{dtype}_same_bits"] = same
        row["good"] &= max(far) <= TOLERANCE[dtype] and (same or not case.repeats)
    if timed:
        row["kernel_ms"] = 1e3 * seconds(programs["bfloat16"], *args)
        if "timed" in programs:
            row["plain_ms"] = 1e3 * seconds(programs["timed"], *args)
    return row


def largest(row: dict[str, Any], dtype: str) -> str:
    """The largest difference in a row."""
    found = [value for word, value in row.items() if word.startswith(f"{dtype}_") and not word.endswith("_same_bits")]
    return f"{max(found):.1e}" if found else ""


def main() -> int:
    """Prints the table; returns 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--stages", type=int, default=len(STAGES), help="of Swin's windows only the first so many")
    parser.add_argument("--interpret", action="store_true", help="by the interpreter, where there is no GPU")
    parser.add_argument("--compare", action="store_true", help="time the formula too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    compile_cache.use()
    if args.interpret:
        cudnn_attention.KERNEL = "xla"
    cases = [windows(*stage, args.batch, args.interpret) for stage in STAGES[: args.stages]]
    cases += [tokens(*size, args.batch) for size in TOKENS]
    with ThreadPoolExecutor() as pool:  # XLA compiles outside of Python's lock
        programs = list(pool.map(partial(compiled, compare=args.compare), cases))
    rows = [check(case, found, not args.interpret) for case, found in zip(cases, programs, strict=True)]
    shown = [
        (r["case"], *(largest(r, dtype) for dtype in TOLERANCE),
         f"{r.get('kernel_ms', 0):.2f}", f"{r.get('plain_ms', 0):.2f}", "yes" if r["good"] else "NO") for r in rows
    ]  # fmt: skip
    columns = ("kernel", "float32", "bfloat16", "kernel, ms", "formula, ms", "good")
    table(f"{jax.devices()[0].device_kind}, batch {args.batch}: largest differences", columns, shown)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["good"] for row in rows) else 1


if __name__ == "__main__":
    import quiet

    quiet.run(main)
