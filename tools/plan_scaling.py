"""Weak and strong scaling over slices that are not here: what the chips compute against what they send each other.

    python tools/plan_scaling.py --config results/plan/vit_base.yaml --out results/plan/scaling_vit_base_v5e.json

Runs `main.py plan` for each slice: strong (the config's batch, whatever the slice) and weak (so many images a chip).
`work` is the longer of computing and of moving memory, `sent` the time on the links; a step takes at least the longer
of the two (sending behind computing) and, where nothing overlaps, their sum. Sending stops paying where it takes as
long as the work. Needs the `tpu` extra; a step is compiled once per row.
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

from jaxvit.runtime.console import table  # noqa: E402


def plan(config: Path, topology: str, batch_size: int, overrides: list[str]) -> dict[str, Any]:
    """Returns what `main.py plan` says."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "plan.json"
        command = [sys.executable, str(ROOT / "main.py"), "plan", "--config", str(config), "--topology", topology]
        command += ["--json", str(file), f"--config.batch_size={batch_size}", *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())


def row_of(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """Returns one row from a plan: seconds, bytes, and the rates with and without overlap."""
    limits = found["limits_seconds"]
    work, sent = max(limits["compute"], limits["memory"]), limits["interconnect"]
    return {
        "kind": kind,
        "topology": found["topology"],
        "chips": found["devices"],
        "batch_size": found["batch_size"],
        "images_a_chip": found["batch_size"] / found["devices"],
        "memory_bytes": found["memory_bytes"],
        "fits": found["fits"],
        "flops_a_chip": found["step_flops_per_device"],
        "sent_bytes": found["sent_bytes"],
        "compute_seconds": limits["compute"],
        "memory_seconds": limits["memory"],
        "sent_seconds": sent,
        "sent_of_work": sent / work,
        "images_per_second": found["batch_size"] / max(work, sent),
        "images_per_second_no_overlap": found["batch_size"] / (work + sent),
        "compile_seconds": found["compile_seconds"],
    }


def turning_point(rows: list[dict[str, Any]]) -> float | None:
    """Returns the number of chips at which sending takes as long as the work, between two rows by proportion."""
    for one, two in zip(rows, rows[1:], strict=False):
        if one["sent_of_work"] < 1 <= two["sent_of_work"]:
            part = (1 - one["sent_of_work"]) / (two["sent_of_work"] - one["sent_of_work"])
            return one["chips"] + part * (two["chips"] - one["chips"])
    return None


def main() -> None:
    """Compiles, prints a table, writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "results/plan/vit_base.yaml")
    parser.add_argument("--slices", nargs="+", default=["v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16"])
    parser.add_argument("--batch", type=int, default=1024, help="of the strong rows")
    parser.add_argument("--per-chip", type=int, default=64, help="images of the weak rows")
    parser.add_argument("--out", type=Path)
    args, overrides = parser.parse_known_args()
    from jaxvit.plan import chips

    rows, plans, base = [], {}, {}
    for topology in args.slices:
        n = chips.parse(topology).chips
        for kind, batch in (("strong", args.batch), ("weak", args.per_chip * n)):
            if (topology, batch) not in plans:
                base = plans[topology, batch] = plan(args.config, topology, batch, overrides)
            rows.append(row_of(kind, plans[topology, batch]))
            print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": "python tools/plan_scaling.py " + " ".join(sys.argv[1:]),
        "config": args.config.read_text(),
        "model": base["model"],
        "parameters": base["parameters"],
        "chip": base["chip"],
        "chip_figures": base["chip_figures"],
        "chips_where_sending_takes_as_long_as_the_work": {
            kind: turning_point([row for row in rows if row["kind"] == kind]) for kind in ("strong", "weak")
        },
        "rows": rows,
    }
    shown = [
        (
            r["kind"], r["topology"], f"{r['batch_size']:,}", f"{r['images_a_chip']:g}",
            f"{1e3 * max(r['compute_seconds'], r['memory_seconds']):.1f}", f"{r['sent_bytes'] / 1e6:,.0f}",
            f"{1e3 * r['sent_seconds']:.2f}", f"{r['sent_of_work']:.0%}", f"{r['images_per_second']:,.0f}",
            f"{r['images_per_second_no_overlap']:,.0f}",
        )
        for r in rows
    ]  # fmt: skip
    columns = (
        "kind",
        "slice",
        "batch",
        "a chip",
        "work ms",
        "sent MB",
        "sent ms",
        "sent/work",
        "images/s",
        "no overlap",
    )
    table(f"{base['model']} on {base['chip']}", columns, shown, left=("kind", "slice"))
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    import quiet

    quiet.run(main)
