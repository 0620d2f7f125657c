"""The speed run: seeds of a fast recipe one after the other; time to an accuracy, compilation told apart.

    python3 tools/gpu/seeds.py OUT --config configs/cifar10_fast_resnet18.py [--data npz:DIR] [--seeds 5]
        [--target 0.95] [--config.OPTION=VALUE ...]

Each seed is a process. The first compiles everything, as its cache of compiled programs is new; the others find it.
`wall_seconds` is the whole process: start, reading, compilation, training, evaluation, files; `train_seconds` is what
the training loop took without compilation. OUT/seeds.json is written anew after each seed. With `--mirrored` the test
images are classified once more at the end, each with its mirror image, as published speed runs count.
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

ROOT = Path(__file__).resolve().parent.parent.parent


def spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation, least and most."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "sd": deviation, "least": min(values), "most": max(values)}


def environment(args: argparse.Namespace) -> dict[str, str]:
    """Of all seeds: one cache of compiled programs."""
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str((args.out / "cache").resolve())}


def mirrored_accuracy(args: argparse.Namespace, seed: int) -> float | None:
    """Test accuracy of the mean over each image and its mirror image; None where it cannot be had."""
    workdir, file = args.out / f"seed{seed}", args.out / f"seed{seed}" / "mirrored.json"
    command = [sys.executable, str(ROOT / "main.py"), "eval", "--workdir", str(workdir), "--tta", "flip"]
    try:
        subprocess.run([*command, "--json", str(file)], env=environment(args), check=True)
        found = json.loads(file.read_text())["predictions"]
        return next(entry["accuracy"] for entry in found if entry["of"] == "flip")
    except (subprocess.CalledProcessError, OSError, ValueError, LookupError, StopIteration) as error:
        print(f"seed {seed}: no accuracy with mirror images: {error!r}", flush=True)  # the trainings count all the same
        return None


def run(args: argparse.Namespace, words: list[str], seed: int) -> dict[str, Any]:
    """Trains with one seed; returns its row."""
    workdir = args.out / f"seed{seed}"
    command = [sys.executable, str(ROOT / "main.py"), "--config", args.config, "--workdir", str(workdir)]
    command += [f"--config.seed={seed}", *([f"--config.data.name={args.data}"] if args.data else []), *words]
    begun = time.monotonic()
    subprocess.run(command, env=environment(args), check=True)
    wall = time.monotonic() - begun
    found = json.loads((workdir / "summary.json").read_text())
    accuracy = found["final"]["test/accuracy"]
    return {
        "seed": seed,
        "wall_seconds": wall,
        "compile_seconds": found["compile_seconds"],
        "train_seconds": found["train_seconds"],
        "seconds_to_target": found["train_seconds"] if args.target and accuracy >= args.target else None,
        "images_per_second": found["images_per_second"],
        "test_accuracy": accuracy,
        "environment": found["environment"],
        "command": command,
    }


def gather(rows: list[dict[str, Any]], target: float | None, wanted: int) -> dict[str, Any]:
    """All rows and their means; `complete` once every seed is there."""
    words = ("train_seconds", "compile_seconds", "images_per_second", "test_accuracy")
    reached = [row["seconds_to_target"] for row in rows if row["seconds_to_target"] is not None]
    return {
        "complete": len(rows) == wanted,
        "target": target,
        "reached": len(reached),
        "wall_seconds_first": rows[0]["wall_seconds"],
        **({"wall_seconds_warm": spread([row["wall_seconds"] for row in rows[1:]])} if rows[1:] else {}),
        **({"seconds_to_target": spread(reached)} if reached else {}),
        **{word: spread([row[word] for row in rows]) for word in words},
        "runs": rows,
    }


def main() -> int:
    """Prints a line a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", help="of config.data.name; default: the config's")
    parser.add_argument("--config", default=str(ROOT / "configs" / "cifar10_fast_resnet18.py"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--target", type=float, help="test accuracy, a fraction")
    parser.add_argument("--mirrored", action="store_true", help="classify with mirror images too, at the end")
    args, words = parser.parse_known_args()
    if any(not word.startswith("--config.") for word in words):
        parser.error(f"config options are written --config.OPTION=VALUE, not {' '.join(words)}")
    if (args.out / "cache").exists():
        parser.error(f"{args.out} has runs already; a first compilation is wanted, so name a new directory")
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []

    def write() -> None:
        partial = args.out / ".seeds.tmp"
        partial.write_text(json.dumps(gather(rows, args.target, args.seeds), indent=1) + "\n")
        os.replace(partial, args.out / "seeds.json")

    for seed in range(args.seeds):
        rows.append(run(args, words, seed))
        write()
        row = rows[-1]
        print(
            f"seed {seed}: {100 * row['test_accuracy']:.2f} % in {row['train_seconds']:.1f} s of training, "
            f"{row['compile_seconds']:.1f} s of compilation, {row['wall_seconds']:.1f} s in all",
            flush=True,
        )
    for row in rows if args.mirrored else ():
        row["mirrored_accuracy"] = mirrored_accuracy(args, row["seed"])
        write()
    return 0


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the checkout
    from tools import quiet

    quiet.run(main)
