"""What a training step moves on an H100, by the compiler's count: programs compiled for one that is not here.

    python tools/count_bytes.py OUT.json [--only vit_base,resnet50]

Needs the `cuda` extra and no GPU. Each operation reads its operands and writes its result once, caches aside: a bound
from below at the published 3.35 TB/s, not a rate. The file is written after each program; what it holds of others
stays.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGENET = ("results/plan/h200.yaml",)
# name -> config and words, all in bfloat16
PROGRAMS: dict[str, tuple[str, ...]] = {
    "vit_base": (*IMAGENET, "model.name=vit_base_patch16_224"),
    "scratch_vit": ("configs/scratch_vit_cifar.py",),
    "deit_tiny": ("configs/cifar100_deit_tiny.py", "batch_size=64", "dtype=bfloat16", "pretrained=None"),
    "resnet18": ("configs/cifar100_fast_resnet18.py",),
    "resnet50": (*IMAGENET, "model.name=resnet50", "batch_size=512"),
    "convnext_tiny": (*IMAGENET, "model.name=convnext_tiny"),
    "dinov3_small": (*IMAGENET, "model.name=vit_small_patch16_dinov3", "data.image_size=256"),
    "swinv2_tiny": (*IMAGENET, "model.name=swinv2_tiny_window8_256", "data.image_size=256", "batch_size=128"),
    "swin_tiny": IMAGENET,
    "swin_tiny_pallas": (*IMAGENET, "model.attn_implementation=pallas"),
}
KEPT = ("model", "image_size", "dtype", "batch_size", "bytes_accessed", "memory_bytes", "step_flops_counted",
        "step_seconds", "images_per_second", "mfu", "bound_by")  # fmt: skip


def count(config: str, *words: str) -> dict[str, object]:
    """The plan of one program, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "plan.json"
        options = [f"--config.{word}" for word in words]
        command = [sys.executable, str(ROOT / "main.py"), "plan", "--config", config, "--topology", "h100:1"]
        subprocess.run([*command, "--json", str(file), *options], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        plan = json.loads(file.read_text(encoding="utf-8"))
    return {"config": config, "words": list(words), **{word: plan[word] for word in KEPT}}


def main() -> int:
    """Prints a line for each program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PROGRAMS))
    args = parser.parse_args()
    if unknown := [name for name in args.only if name not in PROGRAMS]:
        parser.error(f"no program {', '.join(unknown)}; expected some of {', '.join(PROGRAMS)}")
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    for name in args.only:
        found[name] = count(*PROGRAMS[name])
        print(f"{name:18s} {found[name]['bytes_accessed'] / 1e9:7.2f} GB", flush=True)
        args.out.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    import quiet

    quiet.run(main)
