"""Swin's attention kernel on this GPU against the written-out formula: outputs, gradients, the same bits twice, time.

    python tools/check_kernels.py [--batch 64] [--json FILE]

Float32 with full products, so that what differs is the kernel; bfloat16 for the times, which are those of one
attention, forward and backward, without the linear layers around it.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from jaxvit.models import window_attention  # noqa: E402
from jaxvit.models.windows import shifted_window_mask, window_partition, window_reverse  # noqa: E402
from jaxvit.runtime.console import table  # noqa: E402

# map side, window, heads: the stages of Swin-T, Swin-B and Swin-B at 384 pixels
STAGES = ((56, 7, 3), (28, 7, 6), (14, 7, 12), (7, 7, 24), (56, 7, 4), (7, 7, 32), (96, 12, 4), (12, 12, 32))
HEAD_DIM = 32
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # of the largest value


def formula(qkv: Any, bias: Any, window: tuple[int, int], shift: tuple[int, int]) -> Any:
    """What `window_attention.attend` computes, written out."""
    (_, h, w, width), heads = qkv.shape, len(bias)
    x = window_partition(jnp.roll(qkv, (-shift[0], -shift[1]), (1, 2)), window)
    q, k, v = jnp.moveaxis(x.reshape(*x.shape[:3], 3, heads, -1), 3, 0)
    logits = jnp.einsum("bwqhd,bwkhd->bwhqk", q * HEAD_DIM**-0.5, k, preferred_element_type=jnp.float32)
    mask = shifted_window_mask((h, w), window, shift)
    bias = bias[None, None] if mask is None else bias[None, None] + mask[None, :, None]
    x = jnp.einsum("bwhqk,bwkhd->bwqhd", jax.nn.softmax(logits + bias, axis=-1).astype(v.dtype), v)
    return jnp.roll(window_reverse(x.reshape(*x.shape[:3], width // 3), window, (h, w)), shift, (1, 2))


def run(attend: Any, qkv: Any, bias: Any, weights: Any) -> Any:
    """Jitted: the output and the gradients of a weighted sum of it."""

    def loss(qkv: Any, bias: Any) -> Any:
        out = attend(qkv, bias)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    (_, out), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(qkv, bias)
    return {"out": out, "dqkv": grads[0], "dbias": grads[1]}


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


def check(side: int, window: int, heads: int, batch: int, interpret: bool) -> dict[str, Any]:
    """One row."""
    half, square = window // 2 if side > window else 0, (window, window)
    row: dict[str, Any] = {"map": side, "window": window, "heads": heads}
    keys, shift = jax.random.split(jax.random.key(0), 3), (half, half)
    n, d = window * window, heads * HEAD_DIM
    bias, weights = jax.random.normal(keys[1], (heads, n, n)), jax.random.normal(keys[2], (batch, side, side, d))
    kernel = partial(window_attention.attend, window=square, shift=shift, interpret=interpret)
    plain = partial(formula, window=square, shift=shift)
    for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
        qkv = jax.random.normal(keys[0], (batch, side, side, 3 * d), dtype)
        ours = jax.jit(partial(run, kernel))
        with jax.default_matmul_precision("highest"):
            wanted = jax.jit(partial(run, plain))(qkv.astype(jnp.float32), bias, weights)
            found, again = (ours(qkv, bias, weights) for _ in range(2))
        row[f"{name}_same_bits"] = all(
            bool((a == b).all()) for a, b in zip(found.values(), again.values(), strict=True)
        )
        for word, array in wanted.items():
            difference = jnp.abs(found[word].astype(jnp.float32) - array).max() / jnp.abs(array).max()
            row[f"{name}_{word}"] = float(difference)
    if not interpret:
        row["kernel_ms"] = 1e3 * seconds(jax.jit(partial(run, kernel)), qkv, bias, weights)
        row["plain_ms"] = 1e3 * seconds(jax.jit(partial(run, plain)), qkv, bias, weights)
    limits = [row[f"{name}_{word}"] <= limit for name, limit in TOLERANCE.items() for word in wanted]
    row["good"] = all(limits) and row["float32_same_bits"] and row["bfloat16_same_bits"]
    return row


def main() -> int:
    """Prints the table; returns 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--stages", type=int, default=len(STAGES), help="only the first so many")
    parser.add_argument("--interpret", action="store_true", help="by the interpreter, where there is no GPU")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [check(*stage, args.batch, args.interpret) for stage in STAGES[: args.stages]]
    shown = [
        (f"{r['map']}, {r['window']}, {r['heads']}", f"{max(r[f'float32_{w}'] for w in ('out', 'dqkv', 'dbias')):.1e}",
         f"{max(r[f'bfloat16_{w}'] for w in ('out', 'dqkv', 'dbias')):.1e}", f"{r.get('kernel_ms', 0):.2f}",
         f"{r.get('plain_ms', 0):.2f}", "yes" if r["good"] else "NO") for r in rows
    ]  # fmt: skip
    columns = ("map, window, heads", "float32", "bfloat16", "kernel, ms", "plain, ms", "good")
    table(f"{jax.devices()[0].device_kind}, batch {args.batch}: largest differences", columns, shown)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["good"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
