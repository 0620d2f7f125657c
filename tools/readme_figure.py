"""Draws the README's picture from a finished run's files: curves, confusion matrix, test images with predictions.

python tools/readme_figure.py runs/digits docs/images/digits.webp      (needs matplotlib)
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import confusion_matrix

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # Okabe and Ito's colours, safe for the colour-blind


def main(workdir: Path, target: Path) -> None:
    """Reads metrics.jsonl, predictions.npz, samples.npz, classes.json and summary.json; writes one picture."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "val/accuracy" in line]
    summary = json.loads((workdir / "summary.json").read_text())
    classes = json.loads((workdir / "classes.json").read_text())
    with np.load(workdir / "predictions.npz") as predictions:
        logits, labels, index = predictions["logits"], predictions["labels"], predictions["index"]
    with np.load(workdir / "samples.npz") as samples:
        images, sample_index, sample_label = samples["image"], samples["index"], samples["label"]

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(10, 3.4), layout="constrained")
    panels: Any = figure.subfigures(1, 3, width_ratios=(1.15, 1, 1.1))
    left, middle, right = panels

    axes = left.subplots()
    epochs = [line["epoch"] for line in lines]
    axes.plot(epochs, [100 * line["train/accuracy"] for line in lines], color=BLUE, label="training (augmented)")
    axes.plot(epochs, [100 * line["val/accuracy"] for line in lines], color=ORANGE, label="validation")
    axes.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 101))
    axes.set_title(f"{summary['parameters'] / 1e6:.2f} M parameters, {summary['train_seconds']:.0f} s of training")
    axes.legend(frameon=False, loc="lower right")

    matrix = confusion_matrix(labels, logits.argmax(1), labels=np.arange(len(classes)))
    axes = middle.subplots()
    axes.imshow(np.sqrt(matrix), cmap="Blues")
    for (i, j), n in np.ndenumerate(matrix):
        if n:
            axes.text(j, i, n, ha="center", va="center", fontsize=7, color="white" if i == j else "black")
    axes.set(xticks=range(len(classes)), yticks=range(len(classes)), xlabel="predicted", ylabel="true")
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes)
    axes.set_title(f"test accuracy {100 * summary['final']['test/accuracy']:.1f} % of {len(labels)}")

    shown = right.subplots(3, 5)
    for axes, image, where, label in zip(shown.flat, images, sample_index, sample_label, strict=False):
        exp = np.exp(logits[index == where][0] - logits[index == where][0].max())
        k, p = int(exp.argmax()), float(exp.max() / exp.sum())
        axes.imshow(image.squeeze(), cmap="gray_r")
        axes.set_title(f"{classes[k]}  {p:.0%}", fontsize=8, color=GREY if k == label else ORANGE)
        axes.axis("off")
    right.suptitle("test scans, prediction and probability", fontsize=9)
    figure.savefig(target, dpi=130, pil_kwargs={"lossless": True})  # of WebP; the other formats lose nothing


if __name__ == "__main__":
    import quiet

    quiet.run(lambda: main(Path(sys.argv[1]), Path(sys.argv[2])))
