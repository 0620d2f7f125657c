"""Runs of one cross-validation: mean and deviation over the folds, and all images together."""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from jaxvit.reports import numbers, tables
from jaxvit.reports.blocks import Table
from jaxvit.reports.runs import RunFiles

POOLED = ("balanced_accuracy", "macro_f1")  # beside the accuracy, of all images together


def fold(run: RunFiles) -> tuple[int, int] | None:
    """(i, k) of a run that tested on fold i of k; None for one that did not."""
    i, slash, k = str(run.config.get("data.fold") or "").partition("/")
    return (int(i), int(k)) if slash else None


def together(runs: Sequence[RunFiles]) -> RunFiles:
    """The first of the runs with the test images of all folds in the order of the data set.

    Each image is predicted by the run that did not see it. All else stays that of the first run: curves, samples,
    summary, and of several labels per image the thresholds.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    known: dict[str, np.ndarray | None] = {}
    order = np.argsort(np.concatenate([run.index for run in runs]), kind="stable")  # type: ignore[misc]
    for name in ("logits", "labels", "index", "names"):
        arrays = [getattr(run, name) for run in runs]
        there = all(array is not None for array in arrays)
        known[name] = np.concatenate(arrays)[order] if there else None
    return dataclasses.replace(first, **known)


def recipes(runs: Sequence[RunFiles]) -> list[list[RunFiles]]:
    """The runs that differ only in their fold, in lists."""
    groups: dict[str, dict[int, RunFiles]] = {}
    for run in runs:
        found = fold(run)
        if found is not None and run.logits is not None:
            words = {name: value for name, value in run.config.items() if name != "data.fold"}
            groups.setdefault(json.dumps([words, found[1]], sort_keys=True), {})[found[0]] = run
    return [list(group.values()) for group in groups.values()]


def table(groups: Sequence[Sequence[RunFiles]]) -> Table | None:
    """A row for each list of two folds or more; None if there are none.

    "All images" is the accuracy over the test images of all folds together, each predicted by the run that did not
    see it; its interval is Wilson's, of 95 %. Balanced accuracy and macro F1 are of all images together too. Of several
    labels per image there is the mean average precision alone, without an interval: each fold has its own thresholds.
    """
    rows, raw = [], []
    for group in groups:
        if len(group) < 2:
            continue
        k = fold(group[0])[1]  # type: ignore[index]
        whole = together(group)
        values = np.array([tables.accuracy(run) for run in group], np.float64)
        mean, sd, every, n = values.mean(), values.std(ddof=1), tables.accuracy(whole), len(whole.correct)
        low, high = (None, None) if whole.several else numbers.wilson(int(whole.correct.sum()), n)
        names = ", ".join(dict.fromkeys(run.label for run in group))
        interval = tables.ABSENT if low is None or high is None else f"{100 * low:.2f}–{100 * high:.2f} %"
        pooled = {} if whole.several else tables.of_classes(whole)
        of_classes = [pooled.get(name) for name in POOLED]
        rows.append(
            [names, f"{len(group)} of {k}", f"{100 * mean:.2f} ± {100 * sd:.2f} %", f"{100 * every:.2f} %"]  # type: ignore[operator]
            + [interval, f"{n:,}", *(tables.ABSENT if x is None else f"{100 * x:.2f} %" for x in of_classes)]
        )
        raw.append([names, len(group), k, mean, sd, every, low, high, n, *of_classes])
    if not rows:
        return None
    head = ["runs", "folds", "of", "mean", "sd", "all_images", "low", "high", "images", *POOLED]
    caption = (
        "Runs that differ only in their fold; ± is the standard deviation over folds (n − 1). For all images together, "
        "each is predicted by the run that was not trained on it; the interval covers 95 %. Balanced accuracy and "
        "macro F1 are those of all images together."
    )
    figure = "mAP" if groups[0][0].several else "top-1"
    columns = ["runs", "folds", f"{figure} of a fold", "all images", "interval", "images"]
    columns += ["balanced accuracy", "macro F1"]
    return Table(columns, rows, caption, left=2, csv=("folds.csv", head, raw), title="Folds", paste="table_folds")
