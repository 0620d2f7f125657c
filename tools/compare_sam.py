"""Does SAM or ASAM around AdamW beat AdamW? Three seeds on the digits, at equal epochs and at equal time.

    python tools/compare_sam.py runs/digits_sam [--epochs 20] [--seeds 3]

A SAM step takes two gradients, so AdamW is also given twice the epochs: equal epochs compares `adamw` with `sam` and
`asam`, equal time `adamw_2x` with them. rho is the published one (0.05, and 0.5 for ASAM), nothing is tuned. The best
epoch is chosen on validation scans. Writes results/digits_sam/runs.json and README.md; finished runs are not repeated.
"""

import argparse
import json
import statistics
from pathlib import Path

from jaxvit import summary
from jaxvit.commands.parser import use_compile_cache
from jaxvit.config import default
from jaxvit.train import train_and_evaluate

MODELS = {
    "vit": {
        "name": "vit_tiny_patch16_224", "patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 4,
        "global_pool": "avg", "class_token": False, "drop_path_rate": 0.1,
    },
    "cnn": {"name": "resnet18", "stem": "cifar", "layers": (1, 1), "channels": (16, 32), "block": "basic"},
}  # fmt: skip
METHODS = {
    "adamw": {},
    "adamw_2x": {},
    "sam": {"rho": 0.05},
    "asam": {"rho": 0.5, "adaptive": True},
}
EPOCHS = {"adamw_2x": 2}  # times those of the others


def make_config(model: str, method: str, epochs: int, seed: int):
    """The config of one run."""
    config = default()
    config.seed = seed
    config.num_epochs = epochs * EPOCHS.get(method, 1)
    config.batch_size = 32
    config.model.update(MODELS[model])
    config.data.name = "digits"
    config.augment.crop_padding = 1
    config.optim.learning_rate = 2e-3
    config.optim.weight_decay = 0.05
    config.optim.grad_clip_norm = 1.0
    config.optim.schedule.warmup_epochs = 2
    config.loss.label_smoothing = 0.1
    config.parallel.num_devices = 1
    config.optim.sam.update(METHODS[method])
    return config


def write(rows: list[dict], out: Path, epochs: int) -> None:
    """Writes the rows and a table of their means."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "runs.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# AdamW against SAM and ASAM on the digits\n",
        f"`python tools/compare_sam.py runs/digits_sam --epochs {epochs}`. Test accuracy on 450 scans: mean of the",
        "seeds (least to greatest); nothing was tuned, rho is the published one.\n",
        "| model | method | epochs | gradients | validation | test | test loss |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model in MODELS:
        for method in METHODS:
            some = [row for row in rows if (row["model"], row["method"]) == (model, method)]
            if some:
                test, val, loss = ([row[key] for row in some] for key in ("test", "val", "test_loss"))
                spread = f"{min(test):.2%} to {max(test):.2%}"
                cost = 2 if method != "adamw" else 1
                lines.append(
                    f"| {model} | {method.removesuffix('_2x')} | {some[0]['epochs']} | {cost}x | "
                    f"{statistics.mean(val):.2%} | {statistics.mean(test):.2%} ({spread}) | "
                    f"{statistics.mean(loss):.3f} |"
                )
    (out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Runs what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/digits_sam"))
    args = parser.parse_args()
    use_compile_cache()
    rows = []
    for seed in range(args.seeds):
        for model in MODELS:
            for method in METHODS:
                config = make_config(model, method, args.epochs, seed)
                directory = args.workdir / f"{model}_{method}_{seed}"
                final = train_and_evaluate(config, directory)
                seconds = json.loads((directory / "summary.json").read_text())["train_seconds"]
                rows.append({
                    "model": model, "method": method, "seed": seed, "epochs": config.num_epochs,
                    "val": summary.decisive(final)["accuracy"], "test": final["test/accuracy"],
                    "test_loss": final["test/loss"], "train_seconds": round(seconds, 1),
                })  # fmt: skip
                write(rows, args.out, args.epochs)


if __name__ == "__main__":
    main()
