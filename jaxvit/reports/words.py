"""What the drawings of a report show, in words and figures: their alternative texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvit.reports.runs import RunFiles
from jaxvit.step.calibration import Reliability

PERCENT = ("accuracy", "mAP")  # panels of figures.CURVES in per cent


def curves(name: str, title: str, drawn: Sequence[tuple[str, str, Sequence[float], Sequence[float]]]) -> str:
    """Of a panel of curves: (run, kind of line, epochs, values) of each, its last value, and its best."""
    parts = []
    for label, kind, x, y in drawn:
        best = max(y) if name in PERCENT else min(y)
        unit, form = (" %", ".1f") if name in PERCENT else ("", ".3g")
        text = f"{label}, {kind}: {y[-1]:{form}}{unit} at epoch {x[-1]:.3g}"
        if name in ("loss", *PERCENT) and best != y[-1]:
            at = x[list(y).index(best)]
            text += f", {'highest' if name in PERCENT else 'lowest'} {best:{form}}{unit} at epoch {at:.3g}"
        parts.append(text)
    return f"{title} by epoch. {'; '.join(parts)}."


def confusion(run: RunFiles, counts: np.ndarray, *, shares: bool) -> str:
    """Of a confusion matrix [k, k]: how many are right, and the largest confusion."""
    what = "shares of each true class" if shares else "counts"
    right = np.trace(counts) / max(counts.sum(), 1)
    wrong = counts - np.diag(np.diag(counts))
    true, said = np.unravel_index(int(wrong.argmax()), wrong.shape)
    most = "no confusions"
    if wrong[true, said]:
        names = run.class_names
        most = f"most confused: {names[true]} as {names[said]}, {_times(int(wrong[true, said]))}"
    return f"Confusion matrix of run {run.label}, {what}: {100 * right:.1f} % on the diagonal; {most}."


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def class_bars(run: RunFiles, f1: np.ndarray) -> str:
    """Of F1 by class, [k]."""
    low, high, names = int(f1.argmin()), int(f1.argmax()), run.class_names
    return (
        f"F1 by class of run {run.label}: lowest {f1[low]:.2f} for {names[low]}, highest {f1[high]:.2f} for "
        f"{names[high]}, mean {f1.mean():.2f} over {len(f1)} classes."
    )


def recall_by_size(runs: Sequence[RunFiles], recalls: Sequence[np.ndarray]) -> str:
    """Of recall against the training images of a class: the smallest and the largest class."""
    parts = []
    for run, recall in zip(runs, recalls, strict=True):
        if run.class_sizes is not None:
            tested = np.flatnonzero(~np.isnan(recall))
            small, large = (int(tested[of(run.class_sizes[tested])]) for of in (np.argmin, np.argmax))
            ends = [f"{recall[k]:.2f} for {run.class_names[k]} ({run.class_sizes[k]:,} images)" for k in (small, large)]
            parts.append(f"{run.label}: {' and '.join(ends)}")
    return f"Recall by size of the class. {'; '.join(parts)}."


def reliability(run: RunFiles, result: Reliability, confidence: float, accuracy: float, temperature: str) -> str:
    """Of a reliability diagram; `confidence` and `accuracy` are means."""
    side = "overconfident" if confidence > accuracy else "underconfident"
    return (
        f"Reliability diagram of run {run.label}{temperature}: expected calibration error {100 * result.ece:.2f} %; "
        f"mean confidence {100 * confidence:.1f} %, accuracy {100 * accuracy:.1f} %, so {side} on average."
    )


def risk(drawn: Sequence[tuple[str, Any]]) -> str:
    """Of risk against coverage: (run, curve) of each."""
    parts = [
        f"{label}: {100 * found.risk[-1]:.1f} % wrong at full coverage, AURC {found.aurc:.4f}" for label, found in drawn
    ]
    return f"Risk against coverage. {'; '.join(parts)}."


def precision_recall(run: RunFiles, drawn: Sequence[tuple[str, float]]) -> str:
    """Of precision against recall: (class, average precision) of the drawn classes."""
    parts = [f"{name} {value:.2f}" for name, value in drawn]
    return f"Precision against recall of run {run.label}; average precision: {', '.join(parts)}."


def similarity(first: str, second: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray) -> str:
    """Of a matrix of CKA values between layers."""
    i, j = divmod(int(values.argmin()), values.shape[1])
    return (
        f"Linear CKA between {len(rows)} layers of run {first} and {len(columns)} of run {second}: mean "
        f"{values.mean():.2f}, lowest {values[i, j]:.2f} between {rows[i]} and {columns[j]}."
    )


def laws(drawn: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> str:
    """Of accuracy against training images: (recipe, images, mean accuracies in per cent) of each."""
    parts = [f"{label}: {y[0]:.1f} % with {x[0]:,} images, {y[-1]:.1f} % with {x[-1]:,}" for label, x, y in drawn]
    return f"Accuracy against training images, with the fitted power law. {'; '.join(parts)}."
