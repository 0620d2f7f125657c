"""How far the same run drifts apart on other devices: the greatest relative difference of its metrics.

Compares loss, accuracy and gradient norm of each placement of tests/runtime/sharding_test.py with those of one
device, over 20 steps (batch 16, images of 8x8, virtual CPU devices).

  python tools/measure_placement.py --models resnet --precision float32 float64 --out results/placement.json
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax  # noqa: E402

from tests.helpers.placements import METHODS, MODELS, PLACES, difference, run_at  # noqa: E402


def cpu_name() -> str:
    """The processor, as the kernel names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    """Runs and adds to the file, row by row."""
    parser = argparse.ArgumentParser(description="How far runs drift apart on other devices.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["adamw", "asam"])
    parser.add_argument("--precision", nargs="+", choices=("float32", "float64"), default=["float32"])
    parser.add_argument("--places", nargs="+", choices=PLACES, default=["2", "8", "fsdp4"])
    parser.add_argument("--out", type=Path, default=Path("results/placement.json"))
    args = parser.parse_args()
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    for model in args.models:
        for method in args.methods:
            for precision in args.precision:
                with tempfile.TemporaryDirectory() as directory:
                    one = run_at(Path(directory), "1", model, method, precision=precision)
                    for place in args.places:
                        found = difference(one, run_at(Path(directory), place, model, method, precision=precision))
                        key = {"model": model, "method": method, "precision": precision, "place": place}
                        row = {**key, "first_step": float(found[0]), "twenty_steps": float(found.max())}
                        rows = [r for r in rows if {k: r[k] for k in key} != key] + [row]
                        print(row, flush=True)
                        _write(args.out, rows)


def _write(path: Path, rows: list[dict]) -> None:
    about = {
        "what": "greatest relative difference to one device, of loss, accuracy and gradient norm",
        "command": "python " + " ".join(sys.argv),
        "cpu": cpu_name(),
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
        "models": MODELS,
        "places": PLACES,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    import quiet

    quiet.run(main)
