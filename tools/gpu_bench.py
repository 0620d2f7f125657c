"""All GPU figures of the performance page in one command, most valuable first, within a time limit.

    python tools/gpu_bench.py OUT_DIR [--minutes 10] [--torch-python PYTHON] [--quick]

Needs a GPU with jax; timm's columns need torch and timm (in this Python or --torch-python). Each line of JOBS is one
`main.py bench` in a process of its own, so that memory is counted anew and one failure costs one line. What was
measured before the time was up is written: OUT_DIR/NAME.json each and OUT_DIR/index.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

MAIN = Path(__file__).resolve().parent.parent / "main.py"
CIFAR = ("--field", "stem=cifar", "--field", "num_classes=10", "--image-size", "32")
BF16 = ("--dtype", "bfloat16")
TIMM = ("--compare", "timm")
# name, arguments of bench, seconds that it takes at most
JOBS = (
    ("vit_base", ("--model", "vit_base_patch16_224", *BF16, "--batch-size", "256", *TIMM), 150),
    ("swin_tiny", ("--model", "swin_tiny_patch4_window7_224", *BF16, "--batch-size", "256", *TIMM), 170),
    ("resnet18_cifar", ("--model", "resnet18", *CIFAR, *BF16, "--batch-size", "2048", *TIMM), 110),
    ("vit_small", ("--model", "vit_small_patch16_224", *BF16, "--batch-size", "512"), 70),
    ("resnet50", ("--model", "resnet50", *BF16, "--batch-size", "512"), 90),
    ("swin_base", ("--model", "swin_base_patch4_window7_224", *BF16, "--batch-size", "128", *TIMM), 240),
    (
        "vit_base_cudnn",
        ("--model", "vit_base_patch16_224", "--field", "attn_implementation=cudnn", *BF16, "--batch-size", "256",
         "--mode", "train"),
        60,
    ),
    (
        "vit_large_remat_dots",
        ("--model", "vit_large_patch16_224", "--field", "remat=dots", *BF16, "--batch-size", "256", "--mode", "train"),
        90,
    ),
    (
        "vit_base_scan",
        ("--model", "vit_base_patch16_224", "--field", "scan=True", *BF16, "--batch-size", "256", "--mode", "train"),
        60,
    ),
    ("loop_resnet18_cifar", ("--model", "resnet18", "--field", "stem=cifar", "--image-size", "32", *BF16,
                             "--batch-size", "1024", "--mode", "none", "--loop"), 90),
)  # fmt: skip


def main() -> int:
    """Runs the jobs; returns 1 where none gave a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--torch-python")
    parser.add_argument("--quick", action="store_true", help="short timings, no second compilation")
    parser.add_argument("--only", help="names of jobs, separated by commas")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    index = []
    for name, words, need in JOBS:
        if args.only and name not in args.only.split(","):
            continue
        left = end - time.monotonic()
        if left < 0.5 * need:
            index.append({"name": name, "state": "left out: no time"})
            continue
        command = [sys.executable, str(MAIN), "bench", *words, "--json", str(args.out / f"{name}.json")]
        command += ["--seconds", "0.6" if args.quick else "1.5", "--compile-times", "cold"]
        if args.torch_python and "--compare" in words:
            command += ["--torch-python", args.torch_python]
        begun = time.monotonic()
        try:
            done = subprocess.run(command, timeout=left)
            state = "done" if done.returncode == 0 else f"failed with {done.returncode}"
        except subprocess.TimeoutExpired:
            state = "cut off: no time"
        index.append({"name": name, "state": state, "seconds": round(time.monotonic() - begun, 1), "command": command})
        (args.out / "index.json").write_text(json.dumps(index, indent=2) + "\n")
    for entry in index:
        print(f"{entry['name']:<24}{entry['state']}  {entry.get('seconds', '')}")
    return 0 if any(entry["state"] == "done" for entry in index) else 1


if __name__ == "__main__":
    sys.exit(main())
