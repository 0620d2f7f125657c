"""Accuracy against training images over runs that differ in these alone: a drawing, tables, what more would give."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvit.reports import figures, scaling, words
from jaxvit.reports.blocks import Block, Figure, Table, Text
from jaxvit.reports.runs import RunFiles

REPEATS = ("seed", "data.fold", "distill.teacher")  # runs that differ in these are repeats of one size
SIZES = ("data.fraction", "data.per_class")  # what sets the number of training images
EPOCHS = ("num_epochs", "optim.schedule.warmup_epochs")  # may grow as the images become fewer: as many steps for all
TIMES = (2, 4, 10)  # the largest number of images, for which the law is asked
MARKS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
MOST_MARKS = 3  # above what is reached


@dataclasses.dataclass(frozen=True)
class Curve:
    """Runs of one recipe with different numbers of training images."""

    label: str
    points: dict[int, list[float]]  # training images -> accuracies, one of each repeat; ascending
    test_images: int


def curves(runs: Sequence[RunFiles], names: Sequence[str]) -> list[Curve]:
    """The recipes that were trained with two numbers of images or more, one label per image.

    `names` are those of the runs, for labels.

    Recipes that differ in their epochs too are one curve where each number of images has its own number of epochs.
    """
    made = []
    known = [
        i for i, run in enumerate(runs)
        if run.logits is not None and run.summary.get("num_train") and not run.several
    ]  # fmt: skip
    for group in _grouped(runs, known, (*REPEATS, *SIZES, *EPOCHS)):
        epochs: dict[int, set[int]] = {}
        for i in group:
            epochs.setdefault(_images(runs[i]), set()).add(runs[i].config["num_epochs"])
        mixed = any(len(found) > 1 for found in epochs.values())
        for part in _grouped(runs, group, (*REPEATS, *SIZES)) if mixed else [group]:
            points: dict[int, list[float]] = {}
            for i in sorted(part, key=lambda i: _images(runs[i])):
                points.setdefault(_images(runs[i]), []).append(float(np.mean(runs[i].correct)))
            if len(points) > 1:
                tests = min(len(runs[i].correct) for i in part)
                made.append(Curve(_label(runs, names, part), points, tests))
    return made


def _images(run: RunFiles) -> int:
    return int(run.summary["num_train"])


def _grouped(runs: Sequence[RunFiles], chosen: Sequence[int], but: Sequence[str]) -> list[list[int]]:
    """Positions of runs whose configs are alike but for some options."""
    groups: dict[str, list[int]] = {}
    for i in chosen:
        words = {name: value for name, value in runs[i].config.items() if name not in but}
        groups.setdefault(json.dumps(words, sort_keys=True, default=str), []).append(i)
    return list(groups.values())


def _label(runs: Sequence[RunFiles], names: Sequence[str], part: Sequence[int]) -> str:
    """What the names of all runs begin with, without the number that tells them apart; else the model's name."""
    common = os.path.commonprefix([names[i] for i in part])
    return common.rstrip(" ,.:;(-_/0123456789") or str(runs[part[0]].config["model.name"])


def section(runs: Sequence[RunFiles], names: Sequence[str]) -> list[Block]:
    """The blocks on all curves there are; [] where no recipe was trained with different numbers of images."""
    found = curves(
        [run for run in runs if not run.several], [n for n, r in zip(names, runs, strict=True) if not r.several]
    )
    laws: list[tuple[Curve, scaling.Law | None]] = []
    refused: list[Block] = []
    for curve in found:
        try:
            laws.append((curve, scaling.fit(list(curve.points), list(curve.points.values()), curve.test_images)))
        except scaling.NoLaw as error:
            laws.append((curve, None))
            refused.append(Text(f"{curve.label}: no extrapolation; {error}.", "note"))
    fitted = [(curve, law) for curve, law in laws if law is not None]
    if not fitted:
        return refused
    means = [[100 * float(np.mean(values)) for values in curve.points.values()] for curve, _ in laws]
    alt = words.laws([(c.label, list(c.points), mean) for (c, _), mean in zip(laws, means, strict=True)])
    drawing = Figure("images_needed", _drawing(laws), CAPTION, wide=True, alt=alt)
    return [Text(SAYS), *refused, drawing, _more(fitted), _needed(fitted), _points(laws)]


SAYS = (
    "The law is error = a n^-b + c of n training images (Hestness et al., 2017; Rosenfeld et al., 2020), fitted to the "
    "means over the seeds. Intervals cover 90 %, from a bootstrap over seeds and test images. An extrapolation holds "
    "for images of the same kind, drawn in the same way, and for the same recipe; beyond ten times the images it "
    "is a guess."
)
CAPTION = "Points: mean and standard error (seeds, test images). Band: the 90 % interval. Dashed: extrapolation."


def _drawing(laws: Sequence[tuple[Curve, scaling.Law | None]]) -> str:
    def make(figure: Any) -> None:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axis = figure.subplots()
        for i, (curve, law) in enumerate(laws):
            colour, n = figures.look(i)["color"], np.array(list(curve.points))
            mean = 100 * np.array([np.mean(values) for values in curve.points.values()])
            bars = None if law is None else 100 * law.deviations
            label = figures.shorten(curve.label, 44)
            axis.errorbar(n, mean, bars, fmt="o", color=colour, markersize=4, capsize=2.5, linewidth=1, label=label)
            if law is None:
                continue
            for start, end, style in ((n[0], n[-1], "-"), (n[-1], TIMES[-1] * n[-1], (0, (4, 2)))):
                x = np.geomspace(start, end, 60)
                low, high = law.interval(x)
                axis.plot(x, 100 * law.accuracy(x), color=colour, linestyle=style)
                axis.fill_between(x, 100 * low, 100 * high, color=colour, alpha=0.16, linewidth=0)
        axis.set_xscale("log")
        ticks = _ticks(*axis.get_xlim())
        axis.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set(xlabel="training images", ylabel="top-1 (%)", title="Accuracy against training images")
        if len(laws) > 1:
            figure.legend(loc="outside lower center", ncols=1)

    return figures.draw(make, (6.4, 3.6 + 0.19 * (len(laws) if len(laws) > 1 else 0)))


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two numbers; powers of ten alone over three decades or more."""
    steps = (1,) if high > 1000 * low else (1, 2, 5)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]


def _more(fitted: Sequence[tuple[Curve, scaling.Law]]) -> Table:
    """Accuracy at multiples of the largest number of images."""
    head, rows, raw = ["recipe", "training images", "by the law"], [], []
    for curve, law in fitted:
        most = law.images[-1]
        cells = [curve.label, f"{most:,}"]
        for times in (1, *TIMES):
            value, (low, high) = float(law.accuracy(times * most)), law.interval(times * most)
            cells.append(f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})")
            raw.append([curve.label, times, times * most, value, float(low), float(high), law.a, law.b, law.c])
        rows.append([*cells, f"{law.b:.2f}"])
    columns = ["recipe", "times", "images", "accuracy", "low", "high", "a", "b", "c"]
    head += [f"×{times}" for times in TIMES] + ["b"]
    caption, csv = "Top-1 accuracy with more images of the same kind.", ("more_images.csv", columns, raw)
    return Table(head, rows, caption, csv=csv, title="More images")


def _needed(fitted: Sequence[tuple[Curve, scaling.Law]]) -> Table:
    """Images for the next round accuracies."""
    rows, raw = [], []
    for curve, law in fitted:
        most = law.images[-1]
        reached = max(float(law.accuracy(most)), float(1 - law.errors.min()))
        for mark in [mark for mark in MARKS if mark > reached][:MOST_MARKS]:
            value, low, high = law.images_for(mark)
            texts = [_count(count, most) for count in (value, low, high)]
            rows.append([curve.label, f"{100 * mark:g} %", texts[0], f"{texts[1]} to {texts[2]}"])
            raw.append([curve.label, mark, value, low, high])
    caption = (
        f"Training images needed. Counts above {scaling.FURTHEST:g} times those that were measured are omitted: the "
        "accuracy may then be out of reach of this recipe."
    )
    head = ["recipe", "for top-1 of", "images", "interval"]
    csv = ("images_needed.csv", ["recipe", "accuracy", "images", "low", "high"], raw)
    return Table(head, rows, caption, csv=csv, title="Images needed")


def _count(images: float, most: int) -> str:
    """A number of images to two digits."""
    if images > scaling.FURTHEST * most:
        return f"more than {scaling.FURTHEST * most:,.0f}"
    return f"{float(f'{images:.2g}'):,.0f}"


def _points(laws: Sequence[tuple[Curve, scaling.Law | None]]) -> Table:
    rows, raw = [], []
    for curve, law in laws:
        for n, values in curve.points.items():
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
            shown = f"{100 * np.mean(values):.2f}" + ("" if sd is None else f" ± {100 * sd:.2f}") + " %"
            by_law = "–" if law is None else f"{100 * float(law.accuracy(n)):.2f} %"
            rows.append([curve.label, f"{n:,}", str(len(values)), shown, by_law])
            raw.append([curve.label, n, len(values), float(np.mean(values)), sd])
    caption = "Top-1 on the test images; ± is the standard deviation over runs (n − 1)."
    return Table(
        ["recipe", "training images", "runs", "measured", "by the law"], rows, caption, folded="All points",
        csv=("images_and_accuracy.csv", ["recipe", "images", "runs", "accuracy", "sd"], raw),
    )  # fmt: skip
