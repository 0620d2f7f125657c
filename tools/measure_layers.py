"""Measures at which layer Grad-CAM points best, of small models of a family trained for it; writes results/explain/.

    python tools/measure_layers.py [--workdir runs/layers] [--models convnext ...] [--count 64]

Weights of the published models are not needed: each model of MODELS is trained on scikit-learn's digits, enlarged to 16
pixels, within a minute of a core; what is trained already is not trained again. Then, for test scans that it has right:
the mean area under deletion and insertion (RISE) at each layer, squares of 2 pixels in 8 steps, and of two scans side
by side, one digit asked for, the share of maps with most of their mass on its half. Float32 on the CPU.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from jaxvit import config as config_lib  # noqa: E402
from jaxvit import explain, inference, train  # noqa: E402
from jaxvit.build import parts  # noqa: E402
from jaxvit.explain import faithfulness  # noqa: E402

RESULTS = ROOT / "results" / "explain" / "layers.json"
EVA = {"patch_size": 2, "embed_dim": 64, "depth": 4, "num_heads": 2, "dynamic_img_size": True}
MODELS: dict[str, dict[str, Any]] = {
    "convnext": {
        "name": "convnext_atto", "patch_size": 1, "depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128),
        "ls_init_value": 0.1,
    },
    "convnext_norm_first": {
        "name": "convnext_tiny_hnf", "patch_size": 1, "depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128),
        "ls_init_value": 0.1,
    },
    "swinv2": {
        "name": "swinv2_tiny_window8_256", "patch_size": 1, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 2),
        "num_heads": (1, 2, 4),
    },
    "eva_token": {**EVA, "name": "vit_small_patch16_dinov3", "global_pool": "token", "init_values": 0.1},
    "eva_mean": {**EVA, "name": "eva02_tiny_patch14_224"},
    "eva_post_norm": {**EVA, "name": "eva02_enormous_patch14_clip_224", "global_pool": "token"},
}  # fmt: skip
OPTIONS = {
    "num_epochs": 8, "batch_size": 32, "data": {"val_fraction": 0.1},
    "optim": {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05, "grad_clip_norm": 1.0,
              "schedule": {"warmup_epochs": 1}},
}  # fmt: skip
CELL, STEPS, BATCH = 2, 8, 64
SIDE = 16  # pixels


def write_scans(directory: Path) -> str:
    """Writes the enlarged scans of each split as arrays; returns the name to load them by."""
    config = config_lib.default()
    config.data.name, config.data.val_fraction, config.seed = "digits", 0.0, 0
    scans = parts.load_data(config)
    directory.mkdir(parents=True, exist_ok=True)
    for split in (scans.train, scans.test):
        images = np.asarray(split.images)[..., :1].repeat(2, axis=1).repeat(2, axis=2).repeat(3, axis=3)  # type: ignore[index]
        np.savez(directory / f"{split.name}.npz", image=images, label=split.labels)
    return f"npz:{directory}"


def trained(name: str, data: str, workdir: Path) -> Any:
    """The classifier of a finished run, trained if it is not there."""
    config = config_lib.default()
    config_lib.update(config, {**OPTIONS, "model": {**MODELS[name], "image_size": SIDE}})
    config.data.name, config.parallel.num_devices = data, 1
    train.train_and_evaluate(config, workdir / name)
    return inference.from_run(workdir / name)


def candidates(model: Any) -> list[str]:
    """Ends of stages, or of blocks if there are no stages, the norms in the last two blocks, norms after all blocks."""
    known = explain.layers(model)
    ends = {name for name in known if "/" not in name}
    blocks = [name for name in known if name.split("/")[-1].startswith("blocks_")][-2:]
    norms = {name for name in known if name.rpartition("/")[0] in blocks and "norm" in name.rpartition("/")[2]}
    return [name for name in known if name in ends | norms and "stem" not in name and "embed" not in name]


def measure(classifier: Any, count: int) -> dict[str, Any]:
    """The figures of one model at each of its layers."""
    model, variables, words = classifier.model, classifier.variables, classifier.data_config
    test = parts.load_data(classifier.config).test
    raw = np.asarray(test.images[: 4 * count])  # type: ignore[index]
    images = ((raw / 255 - words["mean"]) / words["std"]).astype(np.float32)
    apply = jax.jit(model.apply)
    said = np.concatenate([np.asarray(apply(variables, images[i : i + BATCH])).argmax(-1) for i in
                           range(0, len(images), BATCH)])  # fmt: skip
    right = np.flatnonzero(said == test.labels[: len(images)])[:count]
    images, labels = images[right], said[right]
    other = np.roll(np.arange(len(right)), 1)
    keep = labels != labels[other]
    pairs = np.concatenate([images, images[other]], axis=2)[keep]
    pairs = pairs[:BATCH]
    halves = (("left", labels[keep][: len(pairs)]), ("right", labels[other][keep][: len(pairs)]))
    rng = np.random.default_rng(0)
    by_chance = np.stack([rng.permutation((SIDE // CELL) ** 2) for _ in images])
    figures: dict[str, Any] = {"images": len(images), "pairs": len(pairs), "default": explain.default_layer(model)}
    figures["random order"] = dict(zip(("deletion", "insertion"), _areas(model, variables, images, by_chance, labels),
                                       strict=True))  # fmt: skip
    for layer in candidates(model):
        maps = np.concatenate([np.asarray(explain.grad_cam(model, variables, images[i : i + BATCH],
                               labels[i : i + BATCH], layer=layer)) for i in range(0, len(images), BATCH)])  # fmt: skip
        deletion, insertion = _areas(model, variables, images, faithfulness.cell_order(maps, CELL), labels)
        hits = []
        for half, classes in halves:
            for i in range(0, len(pairs), BATCH):
                found = explain.grad_cam(model, variables, pairs[i : i + BATCH], classes[i : i + BATCH], layer=layer)
                hits.append(faithfulness.share_on(found, half) > 0.5)
        figures[layer] = {
            "deletion": deletion,
            "insertion": insertion,
            "pointing": round(float(np.concatenate(hits).mean()), 3),
        }
        print(layer, figures[layer], flush=True)
    return figures


def _areas(model: Any, variables: Any, images: np.ndarray, order: np.ndarray, labels: np.ndarray) -> list[float]:
    """Mean areas of (deletion, insertion)."""
    ends = ((images, np.zeros_like(images)), (faithfulness.blur(images), images))
    found = [
        np.concatenate([
            faithfulness.area(faithfulness.curve(model, variables, start[i : i + BATCH], end[i : i + BATCH],
                              order[i : i + BATCH], labels[i : i + BATCH], cell=CELL, steps=STEPS))
            for i in range(0, len(images), BATCH)
        ]) for start, end in ends
    ]  # fmt: skip
    return [round(float(x.mean()), 3) for x in found]


def main() -> None:
    """Reads the options, trains, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/layers"), help="where the models are trained")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--count", type=int, default=64, help="images")
    options = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known["command"] = f"python tools/measure_layers.py --count {options.count}"
    known["weights"] = "small models trained from scratch on digits, not published ones"
    scans = write_scans(options.workdir / "scans")
    for name in options.models:
        classifier = trained(name, scans, options.workdir)
        summary = json.loads((options.workdir / name / "summary.json").read_text())
        accuracy = round(summary["final"]["test/accuracy"], 3)
        known[name] = {"test_accuracy": accuracy, **measure(classifier, options.count)}
        RESULTS.write_text(json.dumps(known, separators=(",", ":")).replace("},", "},\n") + "\n")


if __name__ == "__main__":
    import quiet

    quiet.run(main)
