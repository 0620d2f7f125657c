"""The sections of a report on several labels per image: classes, precision against recall, the worst mistakes."""

from collections.abc import Sequence

import numpy as np

from jaxvit.reports import figures, words
from jaxvit.reports.blocks import Block, Figure, Picture, Pictures, Table, Text
from jaxvit.reports.pictures import NAMED, NUMBERED, to_png, true_name
from jaxvit.reports.runs import RunFiles
from jaxvit.step import multi_label

MOST = 12  # mistakes
CURVES = 7  # classes of a drawing, hardest first: as many as there are colours


def class_scores(run: RunFiles) -> np.ndarray:
    """Average precision, F1, precision, recall, threshold and images of each class, float64 [k, 6]; NaN for none."""
    assert run.logits is not None and run.labels is not None and run.thresholds is not None
    truth = run.labels > 0
    said = multi_label.sigmoid(run.logits) >= run.thresholds
    hits, images, claims = np.sum(said & truth, axis=0), truth.sum(axis=0), said.sum(axis=0)
    f1 = 2 * hits / np.maximum(images + claims, 1)
    precision, recall = hits / np.maximum(claims, 1), hits / np.maximum(images, 1)
    precisions = multi_label.average_precisions(run.logits, run.labels)
    return np.stack([precisions, f1, precision, recall, run.thresholds, images.astype(np.float64)], axis=1)


def classes(runs: Sequence[RunFiles]) -> list[Block]:
    """Average precision and F1 of each class: a drawing, and a table with the thresholds."""
    blocks: list[Block] = []
    rows, raw = [], []
    for i, run in enumerate(runs):
        scores = class_scores(run)
        alt = words.class_bars(run, scores[:, 1])
        blocks.append(Figure(f"classes_{run.slug}", figures.class_bars(run, i, scores[:, 1]), "", alt=alt))
        for k in np.argsort(np.nan_to_num(scores[:, 0], nan=-1.0), kind="stable"):
            first = [run.label] if len(runs) > 1 else []
            shown = [f"{v:.3f}" if np.isfinite(v) else "–" for v in scores[k, :5]]
            rows.append([*first, run.class_names[k], *shown, f"{scores[k, 5]:.0f}"])
            raw.append([run.label, int(k), run.class_names[k], *map(float, scores[k, :5]), int(scores[k, 5])])
    head = ["average precision", "F1", "precision", "recall", "threshold", "images"]
    caption = (
        "Hardest first. Average precision is the area under precision against recall, without a threshold; F1, "
        "precision and recall are at the threshold with the best F1 on validation. A class without test images has no "
        "average precision."
    )
    names = ["run", "label", "class", "average_precision", "f1", "precision", "recall", "threshold", "images"]
    first = ["run"] if len(runs) > 1 else []
    table = Table(
        [*first, "class", *head], rows, caption, 1 + len(first), csv=("classes.csv", names, raw), title="Classes"
    )
    return [*blocks, table]


def curves(runs: Sequence[RunFiles]) -> list[Block]:
    """Precision against recall of the hardest classes, a drawing for each run; all of them as CSV."""
    blocks: list[Block] = []
    raw = []
    for run in runs:
        assert run.logits is not None and run.labels is not None
        drawn = []
        precisions = multi_label.average_precisions(run.logits, run.labels)
        for k in np.argsort(np.nan_to_num(precisions, nan=2.0), kind="stable"):
            if not np.isnan(precisions[k]):
                _, hits, said = multi_label.curve(run.logits[:, k], run.labels[:, k] > 0)
                new = np.diff(hits, prepend=0) > 0  # where recall grows: the area under these steps is the precision
                drawn.append((run.class_names[k], float(precisions[k]), hits[new] / hits[-1], hits[new] / said[new]))
        for name, precision, x, y in drawn:
            chosen = np.unique(np.linspace(0, len(x) - 1, 100).astype(int))
            raw += [[run.label, name, precision, float(x[i]), float(y[i])] for i in chosen]
        more = f" The {CURVES} hardest of {len(drawn)} classes." if len(drawn) > CURVES else ""
        if drawn:
            alt = words.precision_recall(run, [found[:2] for found in drawn[:CURVES]])
            svg = _drawing(run, drawn[:CURVES])
            blocks.append(Figure(f"precision_recall_{run.slug}", svg, more.strip(), alt=alt))
    columns = ["run", "class", "average_precision", "recall", "precision"]
    return [*blocks, Table(columns, [], csv=("precision_recall.csv", columns, raw))] if blocks else []


def _drawing(run: RunFiles, drawn: list[tuple[str, float, np.ndarray, np.ndarray]]) -> str:
    def make(figure) -> None:
        axis = figure.subplots()
        for i, (name, precision, x, y) in enumerate(drawn):
            label = f"{figures.shorten(name, 16)} ({precision:.2f})"
            axis.step(np.append(0, x), np.append(y[:1], y), where="pre", label=label, **figures.look(i))
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=figures.shorten(run.label, 40))
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.6)

    return figures.draw(make, (figures.PANEL[0], figures.PANEL[1] + 0.19 * ((len(drawn) + 1) // 2)))


def mistakes(run: RunFiles, images: dict[int, np.ndarray]) -> list[Block]:
    """The most confident wrong answers, present or absent, as a table with the available pictures."""
    assert run.logits is not None and run.labels is not None and run.index is not None and run.thresholds is not None
    p = multi_label.sigmoid(run.logits)
    wrong = (p >= run.thresholds) != (run.labels > 0)
    loss = np.where(wrong, multi_label.worst(run.logits, run.labels), 0.0)
    order = np.argsort(-loss, axis=None, kind="stable")[:MOST]
    where = [divmod(int(i), loss.shape[1]) for i in order if loss.flat[i] > 0]
    if not where:
        return [Text(f"{run.label}: no mistakes among {len(run.labels):,} test images.")]
    rows, raw, shown = [], [], []
    for i, k in where:
        index, name = int(run.index[i]), run.class_names[k]
        what = "missed" if run.labels[i, k] else "predicted, absent"
        there = true_name(run.labels[i], run.class_names)
        rows.append([run.image_name(index), what, name, there, f"{100 * p[i, k]:.1f} %"])
        raw.append([index, run.image_name(index), what, name, float(p[i, k]), there])
        if index in images:
            lines = (f"{what}, {100 * p[i, k]:.0f}\u00a0%", f"true: {there}", run.image_name(index))
            shown.append(Picture(to_png(images[index]), name, lines))
    named = NAMED if run.names is not None else NUMBERED
    table = Table(
        ["image", "mistake", "class", "true", "probability"], rows, left=4,
        caption=f"{run.label}: absent classes with a high probability, and present classes with a low one. {named}",
        csv=(f"mistakes_{run.slug}.csv", ["index", "image", "mistake", "class", "probability", "true"], raw),
    )  # fmt: skip
    pictures = [Pictures(f"mistakes_{run.slug}", shown, f"{run.label}: the worst mistakes")] if shown else []
    return [*pictures, table]
