"""Measures whether the maps point at the right thing, with real weights on real photos; writes results/explain/.

    python tools/measure_explain.py pointing     # two photos side by side, one class asked for: where is the mass?
    python tools/measure_explain.py curves       # deletion and insertion (RISE) against random orders
    python tools/measure_explain.py agreement    # against the PyTorch package grad-cam; needs torch, timm, grad-cam
    python tools/measure_explain.py pictures     # overlays to look at, into --pictures DIR

--data is a directory with `photos/` (labels.csv: file,label) and `weights/deit_tiny_patch16_224.safetensors`. Each
part replaces its own figures in results/explain/deit_tiny.json and leaves the others. Float32 on the CPU.
"""

import argparse
import contextlib
import csv
import json
import os
import sys
import time
from itertools import permutations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from jaxvit import data, explain, models, pretrained  # noqa: E402
from jaxvit.explain import faithfulness, overlay  # noqa: E402

MODEL = "deit_tiny_patch16_224.fb_in1k"
RESULTS = ROOT / "results" / "explain" / "deit_tiny.json"
CAMS = tuple(explain.CAM_METHODS)
OTHER_LAYERS = ("blocks_11/norm2", "blocks_10", "blocks_10/norm1", "blocks_8/norm1", "norm")


class Photos:
    """The photos with their labels, and the model."""

    def __init__(self, directory: Path):
        """Reads everything below `directory`."""
        self.config = models.data_config(MODEL)
        self.model, self.variables = pretrained.load_pretrained(
            MODEL, str(directory / "weights" / "deit_tiny_patch16_224.safetensors")
        )
        with open(directory / "photos" / "labels.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.labels = np.array([int(row["label"]) for row in rows])
        self.names = [Path(row["file"]).stem.split("_", 1)[1].replace("_", " ") for row in rows]
        self.files = [data.open_image(directory / "photos" / row["file"]).convert("RGB") for row in rows]

    def normalise(self, images: Any) -> np.ndarray:
        """uint8 [..., 3] to what the model takes."""
        mean, std = (np.asarray(self.config[word], np.float32) for word in ("mean", "std"))
        return (np.asarray(images, np.float32) / 255 - mean) / std

    def cams(self, images: np.ndarray, classes: Any, method: str, layer: str | None = None) -> np.ndarray:
        """grad_cam in batches of 12."""
        parts = [
            np.asarray(
                explain.grad_cam(self.model, self.variables, images[i : i + 12], classes[i : i + 12], method, layer)
            )
            for i in range(0, len(images), 12)
        ]
        return np.concatenate(parts)


def pointing(photos: Photos) -> dict[str, Any]:
    """All ordered pairs of photos, each class asked for: the share of maps with most of their mass on its half."""
    pairs = list(permutations(range(len(photos.files)), 2))
    sources = {
        "photos squeezed": photos.files,
        "centre crops squeezed": [Image.fromarray(crop) for crop in _crops(photos)],
    }
    figures: dict[str, Any] = {"maps_per_figure": 2 * len(pairs), "default_layer": explain.default_layer(photos.model)}
    for source, pictures in sources.items():
        images = photos.normalise([faithfulness.side_by_side(pictures[a], pictures[b], (224, 224)) for a, b in pairs])
        wanted = [(method, None) for method in CAMS]
        if source == "photos squeezed":
            wanted += [("gradcam", layer) for layer in OTHER_LAYERS]
        for method, layer in wanted:
            right = 0
            for side in (0, 1):
                classes = photos.labels[[pair[side] for pair in pairs]]
                share = faithfulness.share_on(photos.cams(images, classes, method, layer), ("left", "right")[side])
                right += int((share > 0.5).sum())
            row = f"{source}: {method}" + (f" at {layer}" if layer else "")
            figures[row] = round(right / (2 * len(pairs)), 4)
            print(row, figures[row], flush=True)
    return figures


def _crops(photos: Photos) -> list[np.ndarray]:
    mean, std = (np.asarray(photos.config[word], np.float32) for word in ("mean", "std"))
    inputs = [data.preprocess(image, photos.config) for image in photos.files]
    return [np.round(np.clip(x * std + mean, 0, 1) * 255).astype(np.uint8) for x in inputs]


def _views(photos: Photos, count: int) -> np.ndarray:
    """Random crops of the photos, flipped now and then: normalised [count, 224, 224, 3]."""
    rng = np.random.default_rng(0)
    views = []
    for i in range(count):
        image = photos.files[i % len(photos.files)]
        side = int(min(image.size) * rng.uniform(0.7, 1.0))
        left, top = (int(rng.integers(0, s - side + 1)) for s in image.size)
        view = image.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        views.append(np.asarray(view)[:, ::-1] if rng.random() < 0.5 else np.asarray(view))
    return photos.normalise(views)


def curves(photos: Photos, count: int, methods: tuple[str, ...], minutes: float) -> dict[str, Any]:
    """Areas under deletion and insertion for the class predicted, by patches of 16 pixels in 7 steps."""
    rng = np.random.default_rng(1)
    areas: dict[str, dict[str, list[np.ndarray]]] = {}
    started, done = time.monotonic(), 0
    images = _views(photos, count)
    for i in range(0, count, 12):
        batch = images[i : i + 12]
        predicted = np.asarray(jax.jit(photos.model.apply)(photos.variables, batch)).argmax(-1)
        orders = {"random": np.stack([rng.permutation(196) for _ in batch])}
        for method in methods:
            maps = (
                explain.attention_rollout(photos.model, photos.variables, batch)
                if method == "attention_rollout"
                else explain.grad_cam(photos.model, photos.variables, batch, predicted, method)
            )
            orders[method] = faithfulness.cell_order(maps, 16)
        plain, blurred = np.zeros_like(batch), faithfulness.blur(batch)
        for name, order in orders.items():
            for kind, start, end in (("deletion", batch, plain), ("insertion", blurred, batch)):
                line = faithfulness.curve(
                    photos.model, photos.variables, start, end, order, predicted, cell=16, steps=7
                )
                areas.setdefault(name, {}).setdefault(kind, []).append(faithfulness.area(line))
        done = i + len(batch)
        print(f"{done}/{count} {time.monotonic() - started:.0f} s", flush=True)
        if time.monotonic() - started > 60 * minutes:
            break
    means = {n: {k: float(np.concatenate(v).mean()) for k, v in kinds.items()} for n, kinds in areas.items()}
    figures: dict[str, Any] = {
        "maps": done,
        "steps": 7,
        "what": "mean area under the probability of the predicted class",
    }
    for name, kinds in means.items():
        figures[name] = {kind: round(value, 4) for kind, value in kinds.items()}
        if name != "random":
            figures[name]["deletion_gain"] = round(means["random"]["deletion"] - kinds["deletion"], 4)
            figures[name]["insertion_gain"] = round(kinds["insertion"] - means["random"]["insertion"], 4)
        print(name, figures[name])
    return figures


def agreement(photos: Photos) -> dict[str, Any]:
    """Correlation of our maps with those of the PyTorch package grad-cam, same weights, layer and class."""
    import torch

    with contextlib.suppress(ImportError):  # only needed where torchvision was built for another torch
        import torchvision_cpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    import pytorch_grad_cam as package
    import timm
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    peer = timm.create_model(MODEL.split(".")[0]).eval()
    state = {k: torch.tensor(v) for k, v in pretrained.export(photos.model, photos.variables).items()}
    peer.load_state_dict(state)
    images = np.stack([data.preprocess(image, photos.config) for image in photos.files])
    inputs = torch.tensor(images).permute(0, 3, 1, 2)
    targets = [ClassifierOutputTarget(int(k)) for k in photos.labels]

    def reshape(x: Any) -> Any:
        return x[:, 1:].reshape(x.shape[0], 14, 14, -1).permute(0, 3, 1, 2)

    theirs = {"gradcam": "GradCAM", "hirescam": "HiResCAM", "layercam": "LayerCAM", "eigencam": "EigenCAM"}
    figures: dict[str, Any] = {"images": len(images)}
    for method, name in theirs.items():
        with getattr(package, name)(peer, [peer.blocks[-1].norm1], reshape_transform=reshape) as cam:
            expected = cam(inputs, targets)
        ours = photos.cams(images, photos.labels, method)
        found = [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(ours, expected, strict=True)]
        if method == "eigencam":  # a component has no sign, and the package leaves it to chance
            figures["eigencam_same_sign"] = sum(x > 0 for x in found)
            found = [x for x in found if x > 0]
        figures[method] = {
            "least_correlation": round(min(found), 6),
            "mean_correlation": round(sum(found) / len(found), 6),
        }
        print(method, figures[method], [round(x, 4) for x in found])
    return figures


def pictures(photos: Photos, directory: Path) -> None:
    """Overlays of every method, rollout, heads and distances."""
    config = photos.config
    images = np.stack([data.preprocess(image, config) for image in photos.files[:6]])
    shown, labels = overlay.to_display(images, config["mean"], config["std"]), photos.labels[:6]
    columns: dict[str, Any] = {
        m: explain.grad_cam(photos.model, photos.variables, images, labels, m) for m in explain.METHODS
    }
    columns["rollout"] = explain.attention_rollout(photos.model, photos.variables, images)
    heat = {name: overlay.overlay(shown, maps) for name, maps in columns.items()}
    raw = [np.round(255 * x).astype(np.uint8) for x in shown]
    rows = [[raw[i], *(pictures[i] for pictures in heat.values())] for i in range(len(raw))]
    titles = [[photos.names[i], *([""] * len(heat))] for i in range(len(raw))]
    overlay.save(overlay.grid(rows, titles, ["image", *heat], cmap="inferno"), directory / "methods", ("png",), 110)
    both = photos.normalise(
        [faithfulness.side_by_side(photos.files[i], photos.files[i + 6], (224, 224)) for i in range(4)]
    )
    view = overlay.to_display(both, config["mean"], config["std"])
    sides = [photos.cams(both, photos.labels[i : i + 4], "gradcam") for i in (0, 6)]
    rows = [
        [np.round(255 * view[i]).astype(np.uint8), *(overlay.overlay(view[i], s[i]) for s in sides)] for i in range(4)
    ]
    titles = [["", photos.names[i], photos.names[i + 6]] for i in range(4)]
    overlay.save(overlay.grid(rows, titles, cmap="inferno"), directory / "pointing", ("png",), 110)
    heads = explain.attention_maps(photos.model, photos.variables, images[:1])[0]
    overlay.save(overlay.head_grid(shown[0], heads), directory / "heads", ("png", "pdf"))
    far = explain.attention_distance(photos.model, photos.variables, images)
    overlay.save(overlay.distance_figure(far), directory / "distance", ("png",))


def main() -> None:
    """Reads the options, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("pointing", "curves", "agreement", "pictures"))
    default = os.environ.get("JAXVIT_SHARED_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--count", type=int, default=204, help="images for the curves")
    parser.add_argument("--minutes", type=float, default=60, help="stop the curves after so long, with what there is")
    parser.add_argument("--methods", nargs="+", default=["gradcam"], help="methods for the curves")
    parser.add_argument("--pictures", type=Path, default=Path("pictures"))
    options = parser.parse_args()
    photos = Photos(options.data)
    if options.part == "pictures":
        pictures(photos, options.pictures)
        return
    parts = {
        "pointing": lambda: pointing(photos),
        "curves": lambda: curves(photos, options.count, tuple(options.methods), options.minutes),
        "agreement": lambda: agreement(photos),
    }
    figures = parts[options.part]()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known["model"] = MODEL
    known[options.part] = {"command": f"python tools/measure_explain.py {' '.join(sys.argv[1:])}", **figures}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    import quiet

    quiet.run(main)
