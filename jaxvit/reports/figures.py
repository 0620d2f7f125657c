"""The drawings of a report, each an SVG text; matplotlib draws, the page recolours for a dark screen."""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxvit.reports import numbers
from jaxvit.reports.runs import RunFiles
from jaxvit.runtime import drawing, escape
from jaxvit.step.calibration import Reliability

INK, GRID, PAPER = "#24292f", "#d8dee4", "#ffffff"
# Okabe and Ito (2008), without black and with yellow last: told apart by the colour-blind, on white and on black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
DASHES = ("-", (0, (6, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))  # another one when the colours begin again
SEQUENTIAL = "magma_r"  # perceptually uniform, light where there is nothing
HEAT = "heat"  # names a map of colours, which a dark page inverts, and with a "b" or "w" the ink on it there
POINTS = 9
PANEL = (4.3, 3.1)  # inches
MOST_NUMBERS = 20  # classes up to which the cells of a matrix hold their numbers
UNEQUAL = 2  # largest class to smallest, from which on a drawing shows the sizes
FEW = 12  # points up to which each is marked
LABEL = 22  # characters of a class or run name in a drawing
STYLE = {
    "font.size": POINTS, "axes.titlesize": POINTS + 1, "axes.labelsize": POINTS, "xtick.labelsize": POINTS - 1,
    "ytick.labelsize": POINTS - 1, "legend.fontsize": POINTS - 1,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "figure.facecolor": PAPER, "axes.facecolor": "none", "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "jaxvit", "lines.linewidth": 1.5, "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
}  # fmt: skip


def shorten(text: str, most: int = LABEL) -> str:
    """A name in a drawing, cut to `most` characters."""
    return escape.picture(text, most)


def look(i: int) -> dict[str, Any]:
    """Colour and dash of the i-th run, the same in every drawing."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}


def draw(make: Callable[[Any], None], size: tuple[float, float] = PANEL, layout: Any = "constrained") -> str:
    """Returns the SVG of what `make(figure)` draws, `size` in inches."""
    from matplotlib.figure import Figure

    with drawing.style(**STYLE):
        figure = Figure(figsize=size, layout=layout)
        make(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _columns(labels: Sequence[str]) -> int:
    """Columns of a legend that fits the width of a panel."""
    if len(labels) <= 3 and sum(map(len, labels)) <= 40:
        return max(len(labels), 1)
    return 2 if max(map(len, labels)) <= 20 else 1


def _legend(figure: Any) -> None:
    labels = figure.axes[0].get_legend_handles_labels()[1]
    if len(labels) > 1:
        figure.legend(loc="outside lower center", ncols=_columns(labels), handlelength=2.6)


def _whole_ticks(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))


def _series(lines: Sequence[dict], key: str, scale: float = 1.0, per_epoch: float | None = None) -> tuple[list, list]:
    """Epochs x and values y of the lines that have `key`, without what is not finite.

    x is the epoch of a line, or with `per_epoch` steps to an epoch the place of its step: 1 is the end of the first.
    """
    points = sorted(
        (line["step"] / per_epoch if per_epoch else line["epoch"], scale * line[key])
        for line in lines
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    )
    return [x for x, _ in points], [y for _, y in points]


def _rates(run: RunFiles, key: str) -> tuple[list, list]:
    """Learning rates: of single steps where enough of them are recorded, else the means of the epochs."""
    steps = [line for line in run.lines if "train/batch_loss" in line]
    if run.epochs and len(steps) >= max(FEW, len(run.epochs)):
        return _series(steps, key, per_epoch=run.epochs[-1]["step"] / run.epochs[-1]["epoch"])
    return _series(run.epochs, key)


def _floor(series: Sequence[Sequence[float]]) -> float | None:
    """The lower end of a logarithmic axis, where one is needed: peaks, or a median and its peak, a decade apart.

    A cosine alone, though it ends in zero, needs none: its median is half of its height.
    """
    positive = [[y for y in ys if y > 0] for ys in series]
    if not all(positive):
        return None
    peaks = [max(ys) for ys in positive]
    apart = max(peaks) > 10 * min(peaks)
    falls = any(peak > 10 * float(np.median(ys)) for peak, ys in zip(peaks, positive, strict=True))
    return max(min(map(min, positive)), min(peaks) / 1e3) if apart or falls else None


# panel: (title, unit, ((key, kind), ...), scale); how a kind looks says KINDS
CURVES = {
    "loss": (
        "Loss", "cross-entropy (nats)", (("train/loss", "train"), ("val/loss", "val"), ("val_ema/loss", "ema")), 1,
    ),
    "accuracy": (
        "Accuracy", "top-1 (%)",
        (("train/accuracy", "train"), ("val/accuracy", "val"), ("val_ema/accuracy", "ema")), 100,
    ),
    "mAP": (
        "Mean average precision", "mAP (%)", (("val/mAP", "val"), ("val_ema/mAP", "ema")), 100,
    ),
    "pretrain": ("Pretraining", "squared error of masked patches", (("pretrain/loss", "val"),), 1),
    "learning_rate": ("Learning rate", "", (("train/learning_rate", "val"),), 1),
    "grad_norm": ("Gradient norm", "mean of an epoch's steps", (("train/grad_norm", "val"),), 1),
}  # fmt: skip
KINDS = {
    "train": {"linewidth": 1.0, "linestyle": (0, (3, 2)), "alpha": 0.9},
    "val": {},
    "ema": {"linewidth": 1.3, "linestyle": (0, (1, 1.2))},
}
KIND_NAMES = {"train": "training", "val": "validation", "ema": "validation, averaged weights"}


def lines(name: str, runs: Sequence[RunFiles]) -> list[tuple[int, str, list, list]]:
    """The lines of one panel of CURVES that have points: (run, kind, epochs, values)."""
    keys, scale = CURVES[name][2:]
    read = _rates if name == "learning_rate" else lambda run, key: _series(run.epochs, key, scale)
    found = [(i, kind, *read(run, key)) for i, run in enumerate(runs) for key, kind in keys]
    return [line for line in found if line[2]]


def curves(name: str, runs: Sequence[RunFiles]) -> str | None:
    """One panel of CURVES over all runs; None where no run has anything to draw."""
    title, unit, keys, _ = CURVES[name]
    drawn = lines(name, runs)
    if not drawn:
        return None
    alone = len(runs) == 1
    entries = {i: shorten(runs[i].label, 44 if len(runs) > 1 else 26) for i, *_ in drawn}

    def make(figure: Any) -> None:
        axis = figure.subplots()
        for n, (i, kind, x, y) in enumerate(drawn):
            style = look(n if alone else i) | KINDS[kind]
            first = alone or not any(j == i for j, *_ in drawn[:n])
            label = KIND_NAMES[kind] if alone and len(keys) > 1 else None
            if not alone and first:  # the legend shows the run's own line, not the dashes of training
                axis.plot([], [], **look(i), label=entries[i])
            marker = {"marker": "o", "markersize": 3.5} if len(x) <= FEW else {}
            axis.plot(x, y, label=label, **style, **marker)
        axis.set(xlabel="epoch", ylabel=unit, title=title)
        _limits(axis, name, [x for *_, x, _ in drawn], [y for *_, y in drawn])
        _legend(figure)

    names = list(entries.values())
    height = PANEL[1] + (0 if alone else 0.19 * (math.ceil(len(names) / _columns(names)) - 1))
    return draw(make, (PANEL[0], height))


def _limits(axis: Any, name: str, xs: Sequence[Sequence[float]], ys: Sequence[Sequence[float]]) -> None:
    """Whole epochs below, values that fill the height; a logarithmic axis where one run would flatten another."""
    low, high = min(map(min, xs)), max(map(max, xs))
    if high - low < 1:  # a single epoch
        axis.set_xlim(math.ceil(low) - 0.6, math.ceil(high) + 0.6)
    _whole_ticks(axis)
    floor = _floor(ys) if name in ("learning_rate", "grad_norm") else None
    if floor:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axis.set_yscale("log", nonpositive="mask")
        axis.set_ylim(bottom=floor / 1.3)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    elif name not in ("accuracy", "mAP"):
        axis.set_ylim(bottom=max(0.0, axis.get_ylim()[0]))


def reliability(run: RunFiles, i: int, result: Reliability, what: str = "") -> str:
    """Accuracy against confidence, with the share of the answers in each bin under it; `what` is for the title."""

    def make(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        bins, colour = len(result.count), look(i)["color"]
        centres, there = (np.arange(bins) + 0.5) / bins, result.count > 0
        upper.bar(centres[there], result.accuracy[there], 0.86 / bins, color=colour, alpha=0.85)
        upper.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        upper.plot(result.confidence[there], result.accuracy[there], "o", markersize=3.2, color=INK)
        upper.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="accuracy")
        upper.set_title(f"{shorten(run.label, 30 - len(what))}{what}: ECE {100 * result.ece:.2f} %")
        lower.bar(centres, result.count / result.count.sum(), 0.86 / bins, color=colour, alpha=0.85)
        lower.set(xlabel="confidence", ylabel="share")

    return draw(make, (PANEL[0], 3.7))


def matrix(
    values: np.ndarray,
    names: Sequence[str],
    title: str,
    *,
    shares: bool,
    labels: tuple[str, str] | None = None,
    named: bool = True,
) -> str:
    """A square matrix as colours, with numbers where they can be read; names of rows and columns where `named`."""
    k = len(names)
    names = [shorten(name) for name in names]
    dense = k > MOST_NUMBERS
    points = POINTS - 1 if k <= 12 else (6.5 if not dense else max(4.4, 6.5 - k / 50))
    cell = max(2.9 / k, (points * 1.22 / 72 if dense else 0.3) if named else 0.0)
    turned = max(map(len, names)) > 2 or dense
    long = max(len(name) for name in names) * points * 0.6 / 72 if named else 0.0
    margin, below = long + 0.4, 0.42 + (long if turned else 0.2 * named)  # inches beside and below the cells
    side = cell * k
    width, height = margin + side + 0.15, below + side + 0.3

    def make(figure: Any) -> None:
        from matplotlib.colors import PowerNorm

        axis = figure.add_axes((margin / width, 1 - (side + 0.3) / height, side / width, side / height))
        norm = PowerNorm(0.5, vmin=0, vmax=1 if shares else max(values.max(), 1))
        image = axis.imshow(values, cmap=SEQUENTIAL, norm=norm, interpolation="none", aspect="auto", gid=HEAT)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axis.set_xticks(range(k) if named else [], names if named else [], rotation=90 * turned, fontsize=points)
        axis.set_yticks(range(k) if named else [], names if named else [], fontsize=points)
        axis.tick_params(length=0, pad=2)
        across, down = labels or ("predicted", "true")
        axis.set_title(title)
        figure.text((margin + side / 2) / width, 0.22 / height, across, ha="center", va="center")
        figure.text(0.1 / width, 1 - (side / 2 + 0.3) / height, down, ha="left", va="center", rotation=90)
        bar = figure.add_axes((margin / width, 0.2 / height, side / width * 0.25, 0.05 / height))
        _scale(figure, image, bar, shares)
        if not dense:
            _write_cells(axis, values, norm, shares, points)

    return draw(make, (width, height), layout=None)


def _scale(figure: Any, image: Any, place: Any, shares: bool) -> None:
    bar = figure.colorbar(image, cax=place, orientation="horizontal")
    bar.outline.set_visible(False)
    low, high = image.norm.vmin, image.norm.vmax
    middle = (low + high) / 4  # where the colours, which follow the square root, are half-way
    labels = ["0", "25", "100 %"] if shares else [f"{value:g}" for value in (low, middle, high)]
    bar.set_ticks([low, middle, high], labels=labels, fontsize=POINTS - 2)
    bar.ax.tick_params(length=0, pad=1)
    bar.ax.grid(False)


def luminance(colour: Any) -> float:
    """Relative luminance of an sRGB colour in [0, 1] (WCAG 2.1)."""
    colour = np.asarray(colour)
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _light(colour: Any) -> bool:
    """Whether black has the better contrast on a colour than white."""
    return luminance(colour) > 0.179


def inverted(colour: Any) -> np.ndarray:
    """A colour in [0, 1] after the filter invert(1) hue-rotate(180deg) of a dark page (W3C Filter Effects)."""
    turn = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])
    return np.clip(turn @ (1 - np.asarray(colour)), 0, 1)


def _write_cells(axis: Any, values: np.ndarray, norm: Any, shares: bool, points: float) -> None:
    from matplotlib import colormaps

    cmap = colormaps[SEQUENTIAL]
    for (i, j), v in np.ndenumerate(values):
        text = (f"{100 * v:.0f}" if v >= 0.005 else "") if shares else (f"{v:g}" if v else "")
        if text:
            colour = cmap(norm(v))[:3]
            dark, size = (
                f"{HEAT}-{'b' if _light(inverted(colour)) else 'w'}",
                min(points, points * 3.4 / max(len(text), 3)),
            )
            ink = "#000000" if _light(colour) else "#ffffff"
            axis.text(j, i, text, ha="center", va="center", color=ink, fontsize=size, gid=dark)


def confusion(run: RunFiles, counts: np.ndarray, order: np.ndarray, *, shares: bool, named: bool = True) -> str:
    """The confusion matrix of a run, classes in `order`, as counts or as shares of each true class."""
    values = (numbers.row_normalised(counts) if shares else counts)[np.ix_(order, order)]
    what = "share of each true class (%)" if shares else "images"
    title = f"{shorten(run.label, 26)}: {what}"
    return matrix(values, [run.class_names[k] for k in order], title, shares=shares, named=named)


def recall_by_size(runs: Sequence[RunFiles], recalls: Sequence[np.ndarray]) -> str | None:
    """Recall of every class against its training images, all runs; None where the classes are about of one size."""
    drawn = [(i, run.class_sizes, r) for i, (run, r) in enumerate(zip(runs, recalls, strict=True))]
    drawn = [(i, sizes, recall) for i, sizes, recall in drawn if sizes is not None]
    if not any(sizes.max() >= UNEQUAL * max(sizes.min(), 1) for _, sizes, _ in drawn):
        return None

    def make(figure: Any) -> None:
        axis = figure.subplots()
        for i, sizes, recall in drawn:
            axis.plot(
                sizes, recall, "o", markersize=4, alpha=0.85, color=look(i)["color"], label=shorten(runs[i].label)
            )
        if len(drawn) == 1 and len(drawn[0][1]) <= MOST_NUMBERS:
            run, sizes, recall = runs[drawn[0][0]], *drawn[0][1:]
            for text, x, y, left, high in _names_of_points(run.class_names, sizes, recall):
                place = {"ha": "right" if left else "left", "va": "top" if high else "bottom"}
                offset = (-4 if left else 4, -2 if high else 2)
                axis.annotate(text, (x, y), offset, textcoords="offset points", fontsize=POINTS - 2, **place)
        low, high = (of(of(sizes) for _, sizes, _ in drawn) for of in (min, max))
        axis.set_xscale("symlog" if low < 1 else "log")
        axis.set_xlim(low / 1.25 if low else -0.1, high * 1.25)  # of untested classes too, which are no points
        axis.set(
            xlabel="training images of the class", ylabel="recall", ylim=(-0.03, 1.05), title="Recall by class size"
        )
        _legend(figure)

    return draw(make)


def _names_of_points(
    names: Sequence[str], sizes: np.ndarray, recall: np.ndarray
) -> list[tuple[str, float, float, bool, bool]]:
    """(names, size, recall, to the left of it, below it) of points; those that nearly coincide have theirs in a column.

    The names of points in the right or upper half stand on the other side, within the axes.
    """
    across = np.log1p(sizes) / max(float(np.log1p(sizes).max()), 1e-9)
    groups: list[list[int]] = []
    for k in np.lexsort((recall, sizes)):
        if np.isnan(recall[k]):
            continue
        near = (g for g in groups if abs(across[g[0]] - across[k]) < 0.2 and abs(recall[g[0]] - recall[k]) < 0.1)
        group = next(near, None)
        groups.append([k]) if group is None else group.append(k)
    middle = (across.min() + across.max()) / 2
    return [
        (
            "\n".join(shorten(names[k], 12) for k in g),
            sizes[g[0]],
            recall[g[0]],
            across[g[0]] > middle,
            recall[g[0]] > 0.5,
        )
        for g in groups
    ]


def class_bars(run: RunFiles, i: int, f1: np.ndarray) -> str:
    """F1 of every class, lowest first."""
    order = np.argsort(f1, kind="stable")
    few = len(f1) <= 30
    size = (PANEL[0], max(2.0, 0.2 * len(f1) + 0.9)) if few else PANEL

    def make(figure: Any) -> None:
        axis = figure.subplots()
        axis.set_title(f"{shorten(run.label, 30)}: F1 by class")
        if few:
            axis.barh(range(len(f1)), f1[order][::-1], 0.75, color=look(i)["color"])
            axis.set_yticks(range(len(f1)), [shorten(run.class_names[k]) for k in order[::-1]])
            axis.grid(False, axis="y")
            axis.set(xlim=(0, 1), xlabel="F1")
        else:
            axis.bar(range(len(f1)), f1[order], 1.0, color=look(i)["color"])
            axis.set(ylim=(0, 1), xlabel="classes, hardest first", ylabel="F1", xlim=(-1, len(f1)))

    return draw(make, size)
