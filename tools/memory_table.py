"""Memory of training steps with each remat policy, from XLA's plan: compiled, never run.

    python tools/memory_table.py [--model NAME ...] [--batch 32] [--dtype bfloat16] [--json FILE]

On a machine without a GPU the plan is the CPU's: kernels and fusions differ, what is kept for the backward pass does
not much. `temporary` is what a step needs beside its state.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402

from jaxvit.bench.subjects import Settings, make_subject  # noqa: E402
from jaxvit.models.layers import REMAT_CHOICES  # noqa: E402
from jaxvit.runtime.console import table  # noqa: E402

POLICIES = tuple(word for word in REMAT_CHOICES if isinstance(word, str))


def row(name: str, batch: int, dtype: str, remat: str, fields: dict[str, Any], mu_dtype: str | None) -> dict[str, Any]:
    """One compilation."""
    subject = make_subject(Settings(name, dtype, fields=tuple({**fields, "remat": remat}.items())), abstract=True)
    step, state, images = subject.training(batch, mu_dtype)
    begun = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, images).compile()
    seconds = time.perf_counter() - begun
    memory: Any = compiled.memory_analysis()
    return {
        "model": name, "batch_size": batch, "dtype": dtype, "remat": remat, "fields": fields, "mu_dtype": mu_dtype,
        "temporary_bytes": memory.temp_size_in_bytes, "state_bytes": memory.argument_size_in_bytes,
        "compile_seconds": seconds, "backend": jax.default_backend(),
    }  # fmt: skip


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["vit_large_patch16_224", "swin_base_patch4_window7_224"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--mu-dtype")
    parser.add_argument("--scan", action="store_true", help="ViT: one compiled block for all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for name in args.model:
        fields = {"scan": True} if args.scan and "swin" not in name else {}
        for remat in POLICIES:
            rows.append(row(name, args.batch, args.dtype, remat, fields, args.mu_dtype))
            print(f"{name} {remat} done", file=sys.stderr)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    shown = [
        (r["model"], r["batch_size"], r["remat"], f"{r['temporary_bytes'] / 2**30:.2f}",
         f"{r['state_bytes'] / 2**30:.2f}", f"{r['compile_seconds']:.0f} s") for r in rows
    ]  # fmt: skip
    columns = ("model", "batch", "remat", "temporary, GiB", "state, GiB", "compiled in")
    table(
        f"training step in {args.dtype}, planned for {jax.default_backend()}", columns, shown, left=("model", "remat")
    )
    return 0


if __name__ == "__main__":
    import quiet

    quiet.run(main)
