"""Test images side by side with what each model looks at: a grid of overlays, and one of the heat alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxvit.errors import UserError
from jaxvit.reports.blocks import Block, Picture, Pictures, Text
from jaxvit.reports.pictures import heat_maps, to_png, true_name
from jaxvit.reports.runs import RunFiles

SHOWN = 8  # images


def grids(runs: Sequence[RunFiles], heads: Mapping[str, str]) -> list[Block]:
    """The overlay grid (original, then a column for each run) and the heat-map grid, over the same test images.

    `heads` are the heads of the columns by the runs' labels.
    """
    first = next((run for run in runs if run.samples is not None), None)
    if first is None or first.samples is None:
        return []
    labels = first.samples["label"]
    chosen = _of_all_classes(labels, min(SHOWN, len(labels)))
    images, labels, index = (first.samples[key][chosen] for key in ("image", "label", "index"))
    out: list[Block] = []
    from jaxvit import inference

    columns: list[tuple[str, list[tuple[Picture, Picture]]]] = []
    for run in runs:
        try:
            columns.append((run.label, heat_maps(inference.from_run(run.path), run.class_names, images, labels)))
        except UserError as error:
            out.append(Text(f"{run.label}: no maps, because {str(error).splitlines()[0]}", "note"))
    if not columns:
        return out
    names = ["original", *(heads.get(label, label) for label, _ in columns)]
    overlays, heats = [], []
    for i, image in enumerate(images):
        lines = (f"true: {true_name(labels[i], first.class_names)}", first.image_name(int(index[i])))
        original = Picture(to_png(image), "", lines)
        overlays += [original, *(column[i][0] for _, column in columns)]
        heats += [original, *(column[i][1] for _, column in columns)]
    caption = (
        "Grad-CAM (Selvaraju et al., 2017) for the class that the model predicts, at the default layer of its family, "
        "laid over test images: bright where the evidence for the class is. ✗ marks a wrong answer."
    )
    second = "The heat maps alone, each scaled to its own maximum: from no evidence (dark) to most (bright)."
    return [
        *out,
        Pictures("overlays", overlays, caption, names, len(names)),
        Pictures("heat_maps", heats, second, names, len(names)),
    ]


def _of_all_classes(labels: np.ndarray, number: int) -> np.ndarray:
    """Positions of `number` images, of each class about as many; `labels` int [n], or 0 and 1 [n, classes]."""
    if labels.ndim == 2:  # of several labels the rarest counts
        rarest = np.where(labels > 0, labels.sum(axis=0, dtype=int), len(labels) + 1).argmin(axis=1)
        labels = np.where(labels.any(axis=1), rarest, labels.shape[1])
    rank = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)])
    return np.sort(np.argsort(rank, kind="stable")[:number])
