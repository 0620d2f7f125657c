"""What a model may have learnt its mistakes from: the training images that are nearest to them in its own features."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvit.errors import RunError, UserError
from jaxvit.reports import numbers
from jaxvit.reports.blocks import Block, Picture, Pictures, Text
from jaxvit.reports.deep import BATCH, TestImages, features_of
from jaxvit.reports.pictures import to_png
from jaxvit.reports.runs import RunFiles

MOST = 2000  # training images that are looked at
MISTAKES = 8
NEAREST = 5


def blocks(runs: Sequence[RunFiles], classifiers: dict[str, Any], images: TestImages | str | None) -> list[Block]:
    """For each run its most confident mistakes, each with the nearest training images; none without test images."""
    if not isinstance(images, TestImages):
        return []
    out: list[Block] = []
    for run in runs:
        classifier = classifiers.get(run.label)
        if classifier is None or isinstance(classifier, UserError):
            continue
        try:
            out += of_run(run, classifier, images, images.train if run.path == images.path else None)
        except (UserError, RunError, OSError, ImportError, ValueError) as error:
            why = (str(error).splitlines() or ["they cannot be read"])[0]
            out.append(Text(f"{run.label}: no training images next to its mistakes: {why}", "note"))
    return out


def of_run(run: RunFiles, classifier: Any, images: TestImages, train: Any = None) -> list[Block]:
    """The mistakes of one run. `train` is its training split where that has been read already."""
    from jaxvit.data.splits import some
    from jaxvit.inference import features, neighbours, open_data, ready

    assert run.labels is not None and run.index is not None
    probabilities, at_hand = numbers.softmax(run.logits), images.by_index  # type: ignore[arg-type]
    wrong = [int(i) for i in numbers.confident_mistakes(probabilities, run.labels) if int(run.index[i]) in at_hand]
    wrong = wrong[:MISTAKES]
    if not wrong:
        return []
    if train is None:
        train = open_data(classifier)[1].train
    split = some(train, MOST)
    opened = ready(classifier, classifier.config, split, "train", len(split), stream=True)
    found = list(features.compute(classifier, opened, min(BATCH, len(split))))
    usable = np.flatnonzero(np.concatenate([mask for _, mask in found])[: len(split)])
    bank = np.concatenate([values for values, _ in found])[usable]
    shown = np.stack([at_hand[int(run.index[i])] for i in wrong])
    rows, similarity = neighbours.nearest(bank, features_of(classifier, shown), NEAREST)
    rows = usable[rows]
    order = np.unique(rows)
    pixels = dict(zip(order.tolist(), _read(opened, order), strict=True))

    names, cells = run.class_names, []
    for i, image, near, values in zip(wrong, shown, rows, similarity, strict=True):
        said = int(run.predictions[i])
        lines = (f"true: {names[int(run.labels[i])]}", run.image_name(int(run.index[i])))
        cells.append(Picture(to_png(image), f"{names[said]} ({100 * probabilities[i, said]:.0f} %)", lines))
        for row, value in zip(near.tolist(), values, strict=True):
            lines = (f"cosine {value:.2f}", str(split.image_names([row])[0]))
            cells.append(Picture(to_png(pixels[row]), names[int(split.labels[row])], lines))
    labels, said = split.labels[rows], np.asarray(run.predictions)[wrong][:, None]
    as_said, as_true = (float((labels == of).mean()) for of in (said, run.labels[wrong][:, None]))
    of_all = f"{len(usable):,} training images" + (
        f" of {len(train):,}, balanced over the classes" if len(train) > MOST else ""
    )
    caption = (
        f"{run.label}: its most confident mistakes, each with the nearest of {of_all} by the cosine of the model's "
        f"features. {100 * as_said:.0f} % of these have the predicted class, {100 * as_true:.0f} % the true one."
    )
    heads = ["mistake", *(f"nearest {k}" for k in range(1, rows.shape[1] + 1))]
    return [Pictures(f"neighbours_{run.slug}", cells, caption, heads, len(heads))]


def _read(opened: Any, positions: np.ndarray) -> np.ndarray:
    """The images at some positions as the model's feed gives them, uint8 [n, h, w, c]."""
    batches = opened.feed.batches(positions, min(BATCH, len(positions)), pad=True)
    return np.concatenate([np.asarray(batch["image"]) for batch in batches])[: len(positions)]
