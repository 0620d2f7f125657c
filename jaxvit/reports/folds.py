"""Runs of one cross-validation: mean and deviation over the folds, and all images together."""

import json
from collections.abc import Sequence

import numpy as np

from jaxvit.reports import numbers
from jaxvit.reports.blocks import Table
from jaxvit.reports.runs import RunFiles


def fold(run: RunFiles) -> tuple[int, int] | None:
    """(i, k) of a run that tested on fold i of k; None for one that did not."""
    i, slash, k = str(run.config.get("data.fold") or "").partition("/")
    return (int(i), int(k)) if slash else None


def table(runs: Sequence[RunFiles]) -> Table | None:
    """A row for each recipe with two folds or more; None where there are none.

    "All images" is the accuracy over the test images of all folds together, each predicted by the run that did not
    see it; its interval is Wilson's, of 95 %.
    """
    groups: dict[str, dict[int, RunFiles]] = {}
    for run in runs:
        if fold(run) is not None and run.logits is not None and not run.several:
            i, k = fold(run)  # type: ignore[misc]
            words = {name: value for name, value in run.config.items() if name != "data.fold"}
            groups.setdefault(json.dumps([words, k], sort_keys=True), {})[i] = run
    rows, raw = [], []
    for group in groups.values():
        if len(group) < 2:
            continue
        k = fold(next(iter(group.values())))[1]  # type: ignore[index]
        hits = [run.logits.argmax(axis=-1) == run.labels for run in group.values()]  # type: ignore[union-attr]
        values = np.array([found.mean() for found in hits])
        mean, sd, n, right = values.mean(), values.std(ddof=1), sum(map(len, hits)), int(sum(map(np.sum, hits)))
        low, high = numbers.wilson(right, n)
        names = ", ".join(run.label for run in group.values())
        rows.append(
            [names, f"{len(group)} of {k}", f"{100 * mean:.2f} ± {100 * sd:.2f} %", f"{100 * right / n:.2f} %"]
            + [f"{100 * low:.2f}–{100 * high:.2f} %", f"{n:,}"]
        )
        raw.append([names, len(group), k, mean, sd, right / n, low, high, n])
    if not rows:
        return None
    head = ["runs", "folds", "of", "mean", "sd", "all_images", "low", "high", "images"]
    caption = (
        "Runs that differ only in their fold; ± is the standard deviation of a fold (n − 1). Of all images together, "
        "each is predicted by the run that did not see it; the interval is of 95 %."
    )
    columns = ["runs", "folds", "top-1 of a fold", "all images", "interval", "images"]
    return Table(columns, rows, caption, left=2, csv=("folds.csv", head, raw))
