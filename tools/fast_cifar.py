"""The CIFAR speed run: seeds of a fast recipe one after the other; seconds, with compilation and without, and accuracy.

    python tools/fast_cifar.py OUT [--data npz:DIR] [--config configs/cifar10_fast_resnet18.py] [--seeds 5]
        [--config.WORD=VALUE ...]

Each seed is a process. The first compiles everything, as its cache of compiled programs is new; the others find it.
`wall_seconds` is the whole process: start, reading, compilation, training, evaluation, files. OUT/fast.json has all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jaxvit.console import table  # noqa: E402


def spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation, least and most."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "sd": deviation, "least": min(values), "most": max(values)}


def run(args: argparse.Namespace, words: list[str], seed: int) -> dict[str, Any]:
    """Trains with one seed; returns its row."""
    workdir = args.out / f"seed{seed}"
    command = [sys.executable, str(ROOT / "main.py"), "--config", args.config, "--workdir", str(workdir)]
    command += [f"--config.seed={seed}", *([f"--config.data.name={args.data}"] if args.data else []), *words]
    cache = str((args.out / "cache").resolve())
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    begun = time.monotonic()
    subprocess.run(command, env=environment, check=True)
    wall = time.monotonic() - begun
    found = json.loads((workdir / "summary.json").read_text())
    return {
        "seed": seed,
        "wall_seconds": wall,
        "compile_seconds": found["compile_seconds"],
        "train_seconds": found["train_seconds"],
        "images_per_second": found["images_per_second"],
        "test_accuracy": found["final"]["test/accuracy"],
        "environment": found["environment"],
        "command": command,
    }


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", help="of config.data.name; default: the config's")
    parser.add_argument("--config", default=str(ROOT / "configs" / "cifar10_fast_resnet18.py"))
    parser.add_argument("--seeds", type=int, default=5)
    args, words = parser.parse_known_args()
    if any(not word.startswith("--config.") for word in words):
        parser.error(f"config words are written --config.WORD=VALUE, not {' '.join(words)}")
    if (args.out / "cache").exists():
        parser.error(f"{args.out} has runs already; a first compilation is wanted, so name a new directory")
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(args.seeds):
        rows.append(run(args, words, seed))
        figures = {
            word: [row[word] for row in rows] for word in ("train_seconds", "images_per_second", "test_accuracy")
        }
        found = {
            "wall_seconds_first": rows[0]["wall_seconds"],
            **{word: spread(values) for word, values in figures.items()},
            **({"wall_seconds_warm": spread([row["wall_seconds"] for row in rows[1:]])} if seed else {}),
            "runs": rows,
        }
        (args.out / "fast.json").write_text(json.dumps(found, indent=1) + "\n")
    shown = [
        (row["seed"], f"{100 * row['test_accuracy']:.2f}", f"{row['train_seconds']:.1f}",
         f"{row['compile_seconds']:.1f}", f"{row['wall_seconds']:.1f}", f"{row['images_per_second']:,.0f}")
        for row in rows
    ]  # fmt: skip
    accuracy = found["test_accuracy"]
    title = f"test accuracy {100 * accuracy['mean']:.2f} % (sd {100 * accuracy['sd']:.2f})"
    table(title, ("seed", "test, %", "training, s", "compilation, s", "whole process, s", "images/s"), shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
