"""The sections of a report on confidence: reliability, answers held back, unknown images."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvit.confidence.selective import RiskCoverage, risk_coverage
from jaxvit.confidence.temperature import read_temperature
from jaxvit.reports import figures, words
from jaxvit.reports.blocks import Block, Figure, Table, Text
from jaxvit.reports.runs import RunFiles
from jaxvit.step.calibration import BINS, answers, nll, reliability
from jaxvit.workdir import run_files

ACCURACIES = (0.95, 0.99)  # for which the coverage is said
POINTS = 200  # of a curve in its CSV file
SCORES = {"max_softmax": "max softmax", "max_sigmoid": "max sigmoid", "energy": "energy", "knn": "kNN"}


def temperatures(run: RunFiles) -> list[tuple[float, str]]:
    """The temperatures to show a run at, with words for a title: 1, and its own where it has one."""
    if not (run.path / run_files.CALIBRATION).exists():
        return [(1.0, "")]
    t = read_temperature(run.path)
    return [(1.0, ""), (t, f", T = {t:.3g}")]


def calibration(runs: Sequence[RunFiles]) -> list[Block]:
    """Reliability diagrams and calibration errors on the test split, before and after the temperature."""
    blocks: list[Block] = []
    rows, raw = [], []
    for i, run in enumerate(runs):
        assert run.logits is not None and run.labels is not None
        for t, at in temperatures(run):
            confidence, correct = answers(run.logits, run.labels, t)
            result = reliability(confidence, correct)
            name = f"reliability_{run.slug}{'_calibrated' if at else ''}"
            alt = words.reliability(run, result, float(confidence.mean()), float(correct.mean()), at)
            blocks.append(Figure(name, figures.reliability(run, i, result, at), "", alt=alt))
            shares = (f"{100 * v:.2f} %" for v in (result.ece, result.mce, confidence.mean(), correct.mean()))
            rows.append([run.label, f"{t:.3g}", *shares, f"{nll(run.logits, run.labels, t):.4f}"])
            for b in range(BINS):
                said, right_of = (None if np.isnan(v) else float(v) for v in (result.confidence[b], result.accuracy[b]))
                raw.append([run.label, t, b / BINS, (b + 1) / BINS, int(result.count[b]), said, right_of])
    if not blocks:
        return []
    caption = (
        f"Bars: accuracy by confidence in {BINS} equal bins; dots: mean confidence of a bin; "
        "on the dashed line both agree. Above it the model is underconfident, as after label smoothing and mixup. "
        "ECE is the mean gap, weighted by images (Guo et al., 2017)."
    )
    if any(len(temperatures(run)) > 1 for run in runs):
        caption += " T is the temperature that was fitted on the validation split; T = 1 is the model without it."
    if runs[0].several:
        caption += " Each class of each image counts as a separate prediction."
    head = ["run", "T", "ECE", "largest gap", "mean confidence", "accuracy", "NLL"]
    columns = ["run", "temperature", "low", "high", "images", "confidence", "accuracy"]
    return [*blocks, Table(head, rows, caption, csv=("calibration.csv", columns, raw), title="Calibration errors")]


def held_back(runs: Sequence[RunFiles]) -> list[Block]:
    """Risk against coverage of all runs, on the test split: what `predict --min-confidence` would leave out."""
    if not runs:
        return []
    drawn, rows, raw = [], [], []
    for i, run in enumerate(runs):
        assert run.logits is not None and run.labels is not None
        for t, at in temperatures(run):
            found = risk_coverage(*answers(run.logits, run.labels, t))
            drawn.append((i, run, found, at))
            reached = []
            for accuracy in ACCURACIES:
                share, least = found.coverage_at(accuracy)
                reached.append(f"{100 * share:.1f} % (P = {least:.3f})" if share else "none")
            rows.append([run.label, f"{t:.3g}", f"{found.aurc:.4f}", f"{found.best_aurc:.4f}", *reached])
            for at in np.unique(np.linspace(0, len(found.risk) - 1, POINTS).astype(int)):
                raw.append([run.label, t, *map(float, (found.confidence[at], found.coverage[at], found.risk[at]))])
    caption = (
        "Errors among the most confident predictions, against the share of images with a prediction. AURC is the area "
        "under the curve (Geifman & El-Yaniv, 2017); the best AURC is that of a confidence that ranks all correct ones "
        "above all wrong ones. P is the lowest confidence at which the accuracy is reached: predict "
        "--min-confidence P abstains below it."
    )
    head = ["run", "T", "AURC", "best AURC", *(f"coverage at {100 * a:g} % accuracy" for a in ACCURACIES)]
    columns = ["run", "temperature", "min_confidence", "coverage", "risk"]
    table = Table(head, rows, caption, csv=("risk_coverage.csv", columns, raw), title="Risk and coverage")
    alt = words.risk([(run.label + at, found) for _, run, found, at in drawn])
    return [Figure("risk_coverage", _curves(drawn, len(runs) == 1), "", alt=alt), table]


def _curves(drawn: Sequence[tuple[int, RunFiles, RiskCoverage, str]], alone: bool) -> str:
    def make(figure: Any) -> None:
        axis = figure.subplots()
        for i, run, found, at in drawn:
            style = figures.look(i) | ({"linestyle": (0, (3, 2))} if at else {})
            name = ("as it is" if not at else at.lstrip(", ")) if alone else None
            name = figures.shorten(run.label, 40) if not alone and not at else name
            axis.plot(100 * found.coverage, 100 * found.risk, label=name, **style)
        axis.set(
            xlim=(0, 100),
            xlabel="images with a prediction (%)",
            ylabel="wrong among these (%)",
            title="Risk and coverage",
        )
        axis.set_ylim(bottom=0)
        names = axis.get_legend_handles_labels()[1]
        if len(names) > 1:
            figure.legend(loc="outside lower center", ncols=2 if max(map(len, names)) <= 20 else 1, handlelength=2.6)

    height = figures.PANEL[1] + (0 if alone else 0.19 * (len({i for i, *_ in drawn}) - 1))
    return figures.draw(make, (figures.PANEL[0], height))


def unknown(runs: Sequence[RunFiles]) -> list[Block]:
    """How well known images are told from unknown ones, of the runs that `eval --unknown` looked at."""
    blocks: list[Block] = []
    rows, raw = [], []
    for run in runs:
        for path in sorted((run.path / "unknown").glob("*.json")):
            found = run_files.read_json(path)
            if found.get("finished", run.summary.get("finished")) != run.summary.get("finished"):
                blocks.append(Text(f"{path} is of earlier weights; eval --unknown creates it again.", "note"))
                continue
            try:
                name = str(found["unknown"]["data"])
                svg = figures.draw(histograms(found), size_of(found))
                for score, figure in found["scores"].items():
                    values = [float(figure[word]) for word in ("auroc", "fpr_at_95_tpr", "threshold")]
                    shown = (f"{100 * values[0]:.2f} %", f"{100 * values[1]:.2f} %", f"{values[2]:.4g}")
                    counts = (found["known"]["images"], found["unknown"]["images"])
                    rows.append([run.label, name, SCORES[score], *shown, *(f"{n:,}" for n in counts)])
                    raw.append([run.label, name, score, *values, *counts])
            except (KeyError, TypeError, ValueError):
                blocks.append(Text(f"{path} is damaged; eval --unknown creates it again.", "note"))
                continue
            told = ", ".join(f"{SCORES[s]} {100 * float(f['auroc']):.1f} %" for s, f in found["scores"].items())
            alt = f"Histograms of the scores of known images and of {name}, run {run.label}; AUROC: {told}."
            blocks.append(Figure(f"unknown_{run.slug}_{path.stem}", svg, f"{run.label}: {name}", wide=True, alt=alt))
    if not rows:
        return blocks
    caption = (
        "AUROC is the probability that a known image has the higher score; FPR the share of unknown images that pass "
        "at the threshold that 95 % of the known ones pass (the dashed line). Energy: Liu et al., 2020; kNN: Sun et "
        "al., 2022."
    )
    head = ["run", "unknown images", "score", "AUROC", "FPR at 95 % TPR", "threshold", "known", "unknown"]
    columns = ["run", "unknown", "score", "auroc", "fpr_at_95_tpr", "threshold", "known_images", "unknown_images"]
    table = Table(head, rows, caption, left=3, csv=("unknown.csv", columns, raw), title="Known and unknown images")
    return [*blocks, table]


def size_of(found: Mapping[str, Any]) -> tuple[float, float]:
    """Inches of the drawing of `histograms`."""
    return 2.9 * len(found["scores"]), 2.9


def histograms(found: Mapping[str, Any]) -> Callable[[Any], None]:
    """Returns what draws the histograms of known and unknown images on a figure, a panel for each score."""

    def make(figure: Any) -> None:
        axes = np.atleast_1d(figure.subplots(1, len(found["scores"])))
        for axis, (name, score) in zip(axes, found["scores"].items(), strict=True):
            edges = np.asarray(score["histogram"]["edges"], float)
            for i, which in enumerate(("known", "unknown")):
                counts = np.asarray(score["histogram"][which], float)
                heights = 100 * counts / max(counts.sum(), math.ulp(0.0))
                axis.stairs(heights, edges, fill=True, alpha=0.55, color=figures.COLOURS[i], label=which)
            axis.axvline(score["threshold"], color=figures.INK, linewidth=0.9, linestyle=(0, (4, 2)))
            axis.set(xlabel=SCORES[name], title=f"AUROC {100 * score['auroc']:.1f} %")
        axes[0].set_ylabel("images (%)")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)

    return make
