"""All GPU figures of the performance page in one command, most valuable first, within a time limit.

    python tools/gpu_bench.py OUT_DIR [--minutes 10] [--torch-python PYTHON] [--quick] [--only NAME,NAME]
    python tools/gpu_bench.py OUT_DIR --tiny      every job with a tiny model, on any machine: does it run?

Needs a GPU with jax; timm's columns need torch and timm (in this Python or --torch-python); the jobs that train need
ml_collections, orbax and tensorboardX. Each job is a process of its own, so that memory is counted anew and one failure
costs one line. What was measured before the time was up is written: OUT_DIR/NAME.json each and OUT_DIR/index.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VIT_B, VIT_L = "vit_base_patch16_224", "vit_large_patch16_224"
SWIN_T, SWIN_B = "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"
CIFAR = ("--field", "stem=cifar", "--field", "num_classes=10", "--image-size", "32")
TIMM, TRAIN, PALLAS = ("--compare", "timm"), ("--mode", "train"), ("--field", "attn_implementation=pallas")
# What makes a model tiny, by the beginning of its name.
TINY = {
    "vit": ("depth=2", "embed_dim=32", "num_heads=2", "num_classes=10"),
    "swin": ("depths=[2]", "num_heads=[2]", "embed_dim=16", "window_size=4", "num_classes=10"),
    "resnet": ("layers=[1,1]", "channels=[8,8]", "num_classes=10"),
}


class Job(NamedTuple):
    """A command: `kind` is bench, profile or train."""

    name: str
    kind: str
    words: tuple[str, ...]
    seconds: int  # that it takes at most


def bench(name: str, model: str, batch: int, seconds: int, *words: str) -> Job:
    """`main.py bench` of one model in bfloat16."""
    return Job(name, "bench", ("--model", model, "--dtype", "bfloat16", "--batch-size", str(batch), *words), seconds)


def profile(name: str, model: str, batch: int, *words: str) -> Job:
    """Where the time of a training step goes."""
    return Job(f"profile_{name}", "profile", ("--model", model, "--batch-size", str(batch), *words), 60)


def train(name: str, *words: str) -> Job:
    """Three epochs of the fast CIFAR recipe on synthetic images: its rate, not what it learns."""
    return Job(name, "train", ("--config.num_epochs=3", "--config.eval_every_epochs=3", *words), 70)


JOBS = (
    bench("vit_base", VIT_B, 256, 150, *TIMM),
    bench("swin_tiny", SWIN_T, 256, 170, *TIMM),
    bench("swin_tiny_pallas", SWIN_T, 256, 80, *PALLAS),  # the ratio to timm: over that of swin_tiny
    bench("resnet18_cifar", "resnet18", 2048, 110, *CIFAR, *TIMM),
    bench("swin_base", SWIN_B, 128, 240, *TIMM),
    bench("swin_base_pallas", SWIN_B, 128, 110, *PALLAS),
    bench("vit_small", "vit_small_patch16_224", 512, 70),
    bench("resnet50", "resnet50", 512, 90),
    profile("swin_tiny", SWIN_T, 256),
    profile("swin_tiny_pallas", SWIN_T, 256, *PALLAS),
    profile("vit_base", VIT_B, 256),
    profile("resnet18_cifar", "resnet18", 2048, *CIFAR),
    bench("vit_base_cudnn", VIT_B, 256, 80, "--field", "attn_implementation=cudnn"),
    train("dispatch_19", "--config.steps_per_dispatch=19"),
    train("dispatch_1", "--config.steps_per_dispatch=1"),
    bench("loop_resnet18_cifar", "resnet18", 1024, 90, *CIFAR, "--mode", "none", "--loop"),
    bench("vit_large_none", VIT_L, 128, 90, "--field", "remat=none", *TRAIN),
    bench("vit_large_dots", VIT_L, 128, 90, "--field", "remat=dots", *TRAIN),
    bench("vit_large_block", VIT_L, 128, 90, "--field", "remat=block", *TRAIN),
    bench("swin_base_dots", SWIN_B, 128, 100, "--field", "remat=dots", *TRAIN),
    bench("swin_base_block", SWIN_B, 128, 100, "--field", "remat=block", *TRAIN),
    bench("vit_base_scan", VIT_B, 256, 60, "--field", "scan=True", *TRAIN),
    profile("resnet50", "resnet50", 512),
    profile("swin_base", SWIN_B, 128),
)


def command(job: Job, args: argparse.Namespace) -> list[str]:
    """The command line of a job."""
    python, result = sys.executable, str(args.out / f"{job.name}.json")
    words = list(job.words)
    if job.kind == "train":
        tiny = ("--config.batch_size=16", "--config.dtype=float32", *_tiny_fields("resnet")) if args.tiny else ()
        recipe, workdir = str(ROOT / "configs" / "cifar10_fast_resnet18.py"), str(args.out / "runs" / job.name)
        data = f"--config.data.name=npz:{args.out / 'data'}"
        return [python, str(ROOT / "main.py"), "--config", recipe, "--workdir", workdir, data, *words, *tiny]
    if args.tiny:
        family = next(name for name in TINY if words[1].startswith(name))
        words = [{"attn_implementation=pallas": "attn_implementation=interpret"}.get(word, word) for word in words]
        words = [word.replace("=cudnn", "=xla").replace("bfloat16", "float32") for word in words]
        words += [part for field in TINY[family] for part in ("--field", field)]
        words += ["--image-size", "32", "--batch-size", "8"]  # the loop wants ten classes in two batches
    if job.kind == "profile":
        dtype = ("--dtype", "float32", "--steps", "2") if args.tiny else ()
        return [python, str(ROOT / "tools" / "profile_step.py"), *words, *dtype, "--json", result]
    seconds, times = ("0.1", "none") if args.tiny else ("0.6" if args.quick else "1.5", "cold")
    words += ["--json", result, "--seconds", seconds, "--compile-times", times]
    if "--compare" in words:
        if args.tiny and not args.torch_python:
            at = words.index("--compare")
            del words[at : at + 2]
        elif args.torch_python:
            words += ["--torch-python", args.torch_python]
    return [python, str(ROOT / "main.py"), "bench", *words]


def _tiny_fields(family: str) -> tuple[str, ...]:
    return tuple(f"--config.model.{field.replace('[', '(').replace(']', ')')}" for field in TINY[family][:2])


def write_images(directory: Path, train: int, test: int) -> None:
    """Synthetic CIFAR, for what does not depend on what is learnt."""
    import numpy as np

    rng = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", train), ("test", test)):
        images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        np.savez(directory / f"{split}.npz", image=images, label=np.arange(n, dtype=np.int32) % 10)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--torch-python")
    parser.add_argument("--quick", action="store_true", help="short timings")
    parser.add_argument("--tiny", action="store_true", help="tiny models: tells whether every job runs")
    parser.add_argument("--only", help="names of jobs, separated by commas")
    args = parser.parse_args(argv)
    unknown = set(args.only.split(",")) - {job.name for job in JOBS} if args.only else set()
    if unknown:
        parser.error(f"no job {', '.join(sorted(unknown))}; there are {', '.join(job.name for job in JOBS)}")
    return args


def main() -> int:
    """Runs the jobs; returns 1 where none gave a figure, or with --tiny where one failed."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    index: list[dict] = []
    for job in JOBS:
        if args.only and job.name not in args.only.split(","):
            continue
        left = end - time.monotonic()
        if left < 0.5 * job.seconds and not args.tiny:
            index.append({"name": job.name, "state": "left out: no time"})
            continue
        if job.kind == "train" and not (args.out / "data").exists():
            write_images(args.out / "data", *((96, 32) if args.tiny else (50_000, 2_000)))
        words, begun = command(job, args), time.monotonic()
        try:
            done = subprocess.run(words, timeout=max(left, 1.0))
            state = "done" if done.returncode == 0 else f"failed with {done.returncode}"
        except subprocess.TimeoutExpired:
            state = "cut off: no time"
        entry = {"name": job.name, "state": state, "seconds": round(time.monotonic() - begun, 1), "command": words}
        summary = args.out / "runs" / job.name / "summary.json"
        if job.kind == "train" and summary.exists():
            found = json.loads(summary.read_text())
            kept = {
                word: found[word] for word in ("images_per_second", "train_seconds", "compile_seconds") if word in found
            }
            (args.out / f"{job.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
        index.append(entry)
        (args.out / "index.json").write_text(json.dumps(index, indent=2) + "\n")
    for entry in index:
        print(f"{entry['name']:<24}{entry['state']}  {entry.get('seconds', '')}")
    states = [entry["state"] for entry in index]
    good = all(state == "done" for state in states) if args.tiny else "done" in states
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
