"""The largest batch of a model with each remat policy on a GPU that is not here, from the compiler's own account.

    python tools/largest_batch.py --topology h200:1 --model vit_large_patch16_224 swin_base_patch4_window7_224

A step's memory is a line in the batch: two plans (`main.py plan`) give it, a third one confirms the batch where it
meets `--share` of the device's memory. ViTs are planned with one compiled block. Needs the `cuda` or `tpu` extra.
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

from jaxvit.console import table  # noqa: E402
from jaxvit.models.layers import REMAT_CHOICES  # noqa: E402

POLICIES = tuple(word for word in REMAT_CHOICES if isinstance(word, str))
MULTIPLE = 8
FIRST = (64, 128)


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


def largest(args: argparse.Namespace, model: str, remat: str) -> dict[str, Any]:
    """Returns one row: the batch, and what was planned to find it; memory in bytes."""
    planned = {n: plan(args, model, remat, n) for n in FIRST}
    while True:
        (a, first), (b, second) = sorted(planned.items())[-2:]
        room = args.share * second["capacity_bytes"]
        each = (second["memory_bytes"] - first["memory_bytes"]) / (b - a)
        batch = int((b + (room - second["memory_bytes"]) / each) // MULTIPLE * MULTIPLE)
        if batch in planned:
            break
        planned[batch] = plan(args, model, remat, batch)
        if planned[batch]["memory_bytes"] <= room and batch > b:
            break
    found = planned[batch]
    return {
        "model": model, "remat": remat, "topology": args.topology, "dtype": found["dtype"], "batch_size": batch,
        "memory_bytes": found["memory_bytes"], "memory_an_image_bytes": each, "state_bytes": found["state_bytes"],
        "step_seconds_at_least": found["step_seconds"], "images_per_second_at_most": found["images_per_second"],
        "planned": {n: p["memory_bytes"] for n, p in planned.items()},
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
    parser.add_argument("override", nargs="*", help="further --config.WORD=VALUE, after --")
    args = parser.parse_args()
    rows = []
    for model in args.model:
        for remat in args.remat:
            rows.append(largest(args, model, remat))
            print(f"{model} {remat}: batch {rows[-1]['batch_size']}", file=sys.stderr)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    shown = [
        (r["model"], r["remat"], r["batch_size"], f"{r['memory_bytes'] / 2**30:.1f} GiB",
         f"{r['memory_an_image_bytes'] / 2**20:.0f} MiB", f"{r['images_per_second_at_most']:,.0f}")
        for r in rows
    ]  # fmt: skip
    table("", ("model", "remat", "largest batch", "memory", "an image", "images/s at most"), shown)


if __name__ == "__main__":
    main()
