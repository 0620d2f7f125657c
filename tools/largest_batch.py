"""The largest batch of a model with each remat policy on a GPU that is not here, from the compiler's own account.

    python tools/largest_batch.py --topology h200:1 --model vit_large_patch16_224 swin_base_patch4_window7_224

A step's memory is nearly a line in the batch: two plans (`main.py plan`) begin it, further ones follow it to `--share`
of the device's memory. What the file of `--json` has is not planned again. ViTs are planned with one compiled block.
Needs the `cuda` extra.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jaxvit.models.layers import REMAT_CHOICES  # noqa: E402
from jaxvit.plan import chips  # noqa: E402
from jaxvit.runtime.console import table  # noqa: E402

POLICIES = tuple(word for word in REMAT_CHOICES if isinstance(word, str))
MULTIPLE = 8
FIRST = (64, 128)
CLOSE = 0.95  # of the memory that may be used: near enough


def plan(args: argparse.Namespace, model: str, remat: str, batch_size: int) -> dict[str, Any]:
    """Returns what `main.py plan` says."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "plan.json"
        command = [sys.executable, str(ROOT / "main.py"), "plan", "--config", str(args.config)]
        command += ["--topology", args.topology, "--json", str(file)]
        words = {"model.name": model, "model.remat": remat, "batch_size": batch_size}
        if "swin" not in model:
            words["model.scan"] = True
        command += [f"--config.{word}={value}" for word, value in words.items()] + args.override
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())


def largest(args: argparse.Namespace, model: str, remat: str, known: dict[int, int]) -> dict[str, Any]:
    """Returns one row: the batch, and what was planned to find it; memory in bytes, `known` for some batches."""
    planned, plans = dict(known), {}

    def look(batch: int) -> None:
        plans[batch] = plan(args, model, remat, batch)
        planned[batch] = plans[batch]["memory_bytes"]

    for batch in FIRST:
        if batch not in planned:
            look(batch)
    room = args.share * chips.parse(args.topology).chip.memory
    while True:
        (a, first), (b, second) = sorted(planned.items())[-2:]
        each = (second - first) / (b - a)
        batch = int((b + (room - second) / each) // MULTIPLE * MULTIPLE)
        if batch in planned:
            break
        look(batch)
        if CLOSE * room <= planned[batch] <= room:
            break
    batch = max(n for n, size in planned.items() if size <= room)
    if batch not in plans:
        look(batch)
    found = plans[batch]
    return {
        "model": model, "remat": remat, "topology": args.topology, "dtype": found["dtype"], "batch_size": batch,
        "memory_bytes": found["memory_bytes"], "state_bytes": found["state_bytes"],
        "step_seconds_at_least": found["step_seconds"], "images_per_second_at_most": found["images_per_second"],
        "planned": {str(n): planned[n] for n in sorted(planned)},
    }  # fmt: skip


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["vit_large_patch16_224", "swin_base_patch4_window7_224"])
    parser.add_argument("--remat", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--topology", default="h200:1")
    parser.add_argument("--config", type=Path, default=ROOT / "results/plan/h200.yaml")
    parser.add_argument("--share", type=float, default=0.9, help="of the memory, for what XLA does not plan")
    parser.add_argument("--json", type=Path)
    parser.add_argument("override", nargs="*", help="further --config.OPTION=VALUE, after --")
    args = parser.parse_args()
    before = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    known = {(r["model"], r["remat"]): {int(n): size for n, size in r["planned"].items()} for r in before}
    rows = []
    for model in args.model:
        for remat in args.remat:
            rows.append(largest(args, model, remat, known.get((model, remat), {})))
            print(f"{model} {remat}: batch {rows[-1]['batch_size']}", file=sys.stderr)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    shown = [
        (r["model"], r["remat"], r["batch_size"], f"{r['memory_bytes'] / 2**30:.1f} GiB",
         f"{r['images_per_second_at_most']:,.0f}")
        for r in rows
    ]  # fmt: skip
    table("", ("model", "remat", "largest batch", "memory", "images/s at most"), shown)


if __name__ == "__main__":
    import quiet

    quiet.run(main)
