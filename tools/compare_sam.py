"""Does SAM or ASAM beat the optimiser that it stands around? Three seeds, at equal epochs and at equal time.

    python tools/compare_sam.py runs/digits_sam
    python tools/compare_sam.py runs/cifar10_sam --subject cifar10 --data npz:DATA/cifar10 --models cnn
    python tools/compare_sam.py runs/deit --subject cifar10_finetuned --data npz:DATA/cifar10 --epochs 8 --per-class 100

A SAM step takes two gradients, so the base optimiser is also given twice the epochs: equal epochs compares `base` with
`sam` and `asam`, equal time `base_2x` with them. rho is the published one (0.05, and 0.5 for ASAM), and a fifth of it
for ASAM as well; nothing is tuned. The best epoch is chosen on validation images. Writes runs.json and table.md into
results/SUBJECT_sam; finished runs are not repeated.
"""

import argparse
import json
import shlex
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jaxvit.config.default import default  # noqa: E402
from jaxvit.runtime import compile_cache
from jaxvit.train import summary  # noqa: E402
from jaxvit.train.loop import train_and_evaluate  # noqa: E402

ADAMW = {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05, "grad_clip_norm": 1.0}
SGD = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "nesterov": True}
VIT = {
    "name": "vit_tiny_patch16_224", "patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 4,
    "global_pool": "avg", "class_token": False, "drop_path_rate": 0.1,
}  # fmt: skip
DEIT = {"name": "deit_tiny_patch16_224", "drop_path_rate": 0.1}
FINETUNING = {**ADAMW, "learning_rate": 5e-4, "layer_decay": 0.75}  # of configs/finetune_vit.py
CNN = {"name": "resnet18", "stem": "cifar", "block": "basic"}
# subject -> {model: (its fields, its optimiser)}
SUBJECTS = {
    "digits": {"vit": (VIT, ADAMW), "cnn": ({**CNN, "layers": (1, 1), "channels": (16, 32)}, ADAMW)},
    "cifar10": {"vit": (VIT, ADAMW), "cnn": ({**CNN, "layers": (1, 1, 1), "channels": (16, 32, 64)}, SGD)},
    "cifar10_finetuned": {"deit": (DEIT, FINETUNING)},
}
METHODS = {
    "base": {},
    "base_2x": {},
    "sam": {"rho": 0.05},
    "asam": {"rho": 0.5, "adaptive": True},
    "asam_weak": {"rho": 0.1, "adaptive": True},
}
EPOCHS = {"base_2x": 2}  # times those of the others


def make_config(args: argparse.Namespace, model: str, method: str, seed: int):
    """The config of one run."""
    fields, optimizer = SUBJECTS[args.subject][model]
    config = default()
    config.seed = seed
    config.num_epochs = args.epochs * EPOCHS.get(method, 1)
    config.batch_size = 32
    config.model.update(fields)
    if args.subject == "cifar10_finetuned":
        config.pretrained = args.pretrained
        config.data.image_size = 64
    config.data.name = args.data or args.subject.partition("_")[0]
    config.data.per_class = args.per_class
    config.augment.crop_padding = 1 if args.subject == "digits" else 4
    config.augment.flip = args.subject != "digits"
    config.optim.update(optimizer)
    config.optim.schedule.warmup_epochs = 2
    config.loss.label_smoothing = 0.1
    config.parallel.num_devices = 1
    config.optim.sam.update(METHODS[method])
    return config


def write(rows: list[dict], args: argparse.Namespace) -> None:
    """Writes the rows and a table of their means."""
    out = args.out or Path(f"results/{args.subject}_sam")
    out.mkdir(parents=True, exist_ok=True)
    (out / "runs.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lines = [
        "Test accuracy: mean of the seeds (least to greatest). `gradients`: passes over the training images, which",
        "is what takes the time. Nothing was tuned; rho 0.05 (SAM) and 0.5 (ASAM) are the published ones.\n",
        f"`{args.command}`\n",
        "| model | base | method | rho | epochs | gradients | validation | test | test loss |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model, (_, optimizer) in SUBJECTS[args.subject].items():
        for method in METHODS:
            some = [row for row in rows if (row["model"], row["method"]) == (model, method)]
            if some:
                test, val, loss = ([row[key] for row in some] for key in ("test", "val", "test_loss"))
                epochs = some[0]["epochs"]
                lines.append(
                    f"| {model} | {optimizer['name']} | {method.partition('_')[0]} | "
                    f"{METHODS[method].get('rho', '')} | {epochs} | {epochs * (2 if METHODS[method] else 1)} | "
                    f"{statistics.mean(val):.2%} | "
                    f"{statistics.mean(test):.2%} ({min(test):.2%} to {max(test):.2%}) | {statistics.mean(loss):.3f} |"
                )
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Runs what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--subject", choices=SUBJECTS, default="digits")
    parser.add_argument("--data", help="where its images lie, as config.data.name")
    parser.add_argument("--models", nargs="+", help="those of the subject's that are wanted; default: all")
    parser.add_argument("--pretrained", default="deit_tiny_patch16_224.fb_in1k", help="or a file of these weights")
    parser.add_argument("--per-class", type=int, help="training images of each class")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    words = [f"runs/{args.workdir.name}" if word == str(args.workdir) else word for word in sys.argv[1:]]
    args.command = shlex.join(["python", "tools/compare_sam.py", *words])
    compile_cache.use()
    rows = []
    for seed in range(args.seeds):
        for model in args.models or SUBJECTS[args.subject]:
            for method in METHODS:
                config = make_config(args, model, method, seed)
                directory = args.workdir / f"{model}_{method}_{seed}"
                final = train_and_evaluate(config, directory)
                rows.append({
                    "model": model, "method": method, "seed": seed, "epochs": config.num_epochs,
                    "val": summary.decisive(final)["accuracy"], "test": final["test/accuracy"],
                    "test_loss": final["test/loss"],
                })  # fmt: skip
                write(rows, args)


if __name__ == "__main__":
    import quiet

    quiet.run(main)
