"""Builds a report from the files of runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.reports import (
    confidence,
    figures,
    folds,
    neighbours,
    numbers,
    page,
    pdf,
    pictures,
    pretraining,
    tables,
    words,
)
from jaxvit.reports import deep as deep_lib
from jaxvit.reports import several as several_labels
from jaxvit.reports.blocks import Block, Figure, Picture, Pictures, Section, Table, Text
from jaxvit.reports.runs import RunFiles, read_runs
from jaxvit.runtime import escape
from jaxvit.runtime.paths import expand
from jaxvit.workdir import run_files

MANY = 20  # classes from which on a matrix is ordered by similarity, and takes the width of the page for their names
FEW = 12  # classes up to which matrices stand three in a row


def write_report(
    workdirs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    deep: bool = False,
    augmentations: bool = False,
    to_pdf: bool = False,
) -> list[Path]:
    """Writes index.html, report.md, tables and figures/ about one or several runs; returns them, index.html first.

    Args:
      workdirs: of the runs, which must be of one data set.
      out: the directory to write; of one run its own `report/` by default.
      deep: look into the models as well, with the test images where they can be loaded.
      augmentations: show the fixed sample as the training step changes it.
      to_pdf: print report.pdf as well, on A4, by an installed Chromium, Chrome or Edge; it is the second of the files.

    Raises:
      UserError: no run, a damaged file, runs of different data sets, several runs without `out`, no browser to print.
      RunError: the browser did not print.
    """
    if out is None and len(workdirs) > 1:
        raise UserError("several runs but no --out; expected a directory to write to, for example --out runs/report")
    if to_pdf:
        pdf.find_browser()
    runs = read_runs(workdirs)
    target = runs[0].path / "report" if out is None else expand(out)
    check_target(target)
    known = [run for run in runs if run.logits is not None]
    images = deep_lib.test_images(runs[0]) if deep else None
    more = images.by_index if images is not None and not isinstance(images, str) else None
    classifiers = _classifiers(runs)
    one: list[tuple[str, list[Block]]] = []
    if not runs[0].several:
        one = [
            ("Confusion", confusion(known, more)),
            ("Classes", classes(known)),
            ("Calibration", confidence.calibration(known)),
            ("Abstention", confidence.held_back(known)),
            ("Confident mistakes", mistakes(known, more) + neighbours.blocks(known, classifiers, images)),
        ]
    elif known:
        one = of_several(known, more)
    parts: list[tuple[str, list[Block]]] = [
        ("Summary", summary(runs)),
        ("Differences", [] if runs[0].several else list(tables.differences(runs))),
        ("Leaks and duplicates", leaks(runs)),
        ("Pretraining", pretraining.blocks(runs)),
        ("Training", training(runs)),
        *one,
        ("Unknown images", confidence.unknown(runs)),
        ("Where the models look", pictures.heat(runs, classifiers)),
        ("Inside the models", deep_lib.blocks(runs, classifiers, images) if deep and images is not None else []),
        ("Augmentation", augmentation(runs, augmentations)),
        ("Config", list(tables.config_tables(runs))),
        ("To repeat", repeat(runs)),
    ]
    sections = [Section(title, blocks) for title, blocks in parts if blocks]
    title = f"{_data_name(runs[0])}: " + (runs[0].label if len(runs) == 1 else f"{len(runs)} runs")
    return page.write(target, title, _subtitle(runs), sections, to_pdf)


def of_several(runs: Sequence[RunFiles], more: dict[int, np.ndarray] | None) -> list[tuple[str, list[Block]]]:
    """The sections on the classes and mistakes of several labels per image."""
    worst = [block for run in runs for block in several_labels.mistakes(run, pictures.sample_images(run, more))]
    return [
        ("Classes", several_labels.classes(runs)),
        ("Calibration", confidence.calibration(runs)),
        ("Precision and recall", several_labels.curves(runs)),
        ("Worst mistakes", worst),
    ]


def check_target(out: Path) -> None:
    """Raises UserError where `out` cannot become a directory, before the work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write to {str(out)!r}: {getattr(error, 'strerror', None) or error}") from None
    if not os.access(out, os.W_OK):
        raise UserError(f"cannot write to {str(out)!r}: no permission")


def _data_name(run: RunFiles) -> str:
    kind, _, rest = str(run.config["data.name"]).partition(":")
    return f"{kind} {Path(rest).name}" if rest else kind


def _subtitle(runs: Sequence[RunFiles]) -> str:
    run, parts = runs[0], [f"{len(runs[0].class_names)} classes"]
    for word, name in (("num_train", "training"), ("num_val", "validation"), ("num_test", "test")):
        if run.summary.get(word) is not None:
            parts.append(f"{run.summary[word]:,} {name} images")
    ends = sorted(str(r.summary["finished"])[:10] for r in runs if r.summary.get("finished"))
    return ", ".join(parts) + (f"; last run finished {ends[-1]}" if ends else "")


def _classifiers(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """The best model of each run; a UserError in its place if there is none."""
    from jaxvit import inference

    out: dict[str, Any] = {}
    for run in runs:
        if any(r.samples is not None for r in runs):
            try:
                out[run.label] = inference.from_run(run.path)
            except UserError as error:
                out[run.label] = error
    return out


def summary(runs: Sequence[RunFiles]) -> list[Block]:
    """What is missing, the runs side by side, seeds."""
    blocks: list[Block] = []
    for run in runs:
        if not run.finished:
            done = max((line["epoch"] for line in run.epochs), default=0)
            blocks.append(
                Text(
                    f"{run.label} is unfinished: {done} of {run.config.get('num_epochs', '?')} epochs are recorded.",
                    "note",
                )
            )
        if run.logits is None:
            blocks.append(Text(f"{run.label} has no predictions.npz, so its test figures are missing.", "note"))
    blocks.append(tables.comparison(runs))
    return blocks + [table for table in (tables.seeds(runs), folds.table(folds.recipes(runs))) if table is not None]


def leaks(runs: Sequence[RunFiles]) -> list[Block]:
    """Images that stand in several splits, of the runs that looked for them."""
    blocks: list[Block] = []
    for run in runs:
        record, sheet = run.path / "leaks.json", run.path / "leaks.png"
        if not record.is_file():
            continue
        blocks += [Text(f"{run.label}: {line}.") for line in run_files.read_json(record).get("lines", [])]
        if sheet.is_file():
            caption = f"{run.label}: pairs of images that show the same. All pairs are listed in the run's leaks.csv."
            blocks.append(Pictures(f"leaks_{run.slug}", [Picture(sheet.read_bytes())], caption, across=1, large=True))
    return blocks


def training(runs: Sequence[RunFiles]) -> list[Block]:
    """Curves of all runs over each other."""
    if not any(run.epochs for run in runs):
        return [Text("No epoch has been recorded yet.", "note")]
    drawn = [(name, figures.curves(name, runs)) for name in figures.CURVES]
    alts = {name: _curves_in_words(name, runs) for name, svg in drawn if svg}
    changed = " Training images are augmented." if any(pictures.augments(run) for run in runs) else ""
    notes = {"loss": _lines_of_several("loss", runs), "accuracy": _lines_of_several("accuracy", runs, changed)}
    blocks: list[Block] = [
        Figure(f"curve_{name}", svg, notes.get(name, ""), alt=alts[name]) for name, svg in drawn if svg
    ]
    keys = ["run", *dict.fromkeys(key for run in runs for line in run.epochs for key in line)]
    rows = [[run.label, *(line.get(key) for key in keys[1:])] for run in runs for line in run.epochs]
    last = [[run.label, *(_short(run.epochs[-1].get(key)) for key in keys[1:])] for run in runs if run.epochs]
    table = Table(
        keys, last, "Every epoch is in curves.csv.", folded="The last epoch in figures", csv=("curves.csv", keys, rows)
    )
    return [*blocks, table]


def _lines_of_several(name: str, runs: Sequence[RunFiles], more: str = "") -> str:
    """What the kinds of line mean where the legend names the runs; one run's legend names the kinds."""
    if len(runs) < 2:
        return ""
    averaged = any(kind == "ema" for _, kind, *_ in figures.lines(name, runs))
    dotted = "; dotted lines: validation of the averaged weights" if averaged else ""
    return f"Solid lines: validation; thin dashed lines: training{dotted}.{more}"


def _curves_in_words(name: str, runs: Sequence[RunFiles]) -> str:
    kinds = {"train": "training", "val": "validation", "ema": "validation of the averaged weights"}
    kinds |= {"val": "each step"} if name in ("learning_rate", "grad_norm") else {}
    lines = [(runs[i].label, kinds[kind], x, y) for i, kind, x, y in figures.lines(name, runs)]
    return words.curves(name, figures.CURVES[name][0], lines)


def _short(value: Any) -> str:
    return tables.ABSENT if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def confusion(runs: Sequence[RunFiles], more: dict[int, np.ndarray] | None) -> list[Block]:
    """Confusion matrices of all runs side by side, in the order of the first one's similarities for many classes.

    Many classes have no names there; matrices with names take the width of the page each, folded.
    """
    small: list[Figure] = []
    named: list[Figure] = []
    listed: list[Block] = []
    shown: list[Block] = []
    order = np.arange(0)
    for run in runs:
        k, slug = len(run.class_names), run.slug
        assert run.labels is not None
        counts = numbers.confusion(run.labels, run.predictions, k)
        if run is runs[0]:
            order = numbers.similarity_order(counts) if k > MANY else np.arange(k)
        for shares in (True, False):
            what = "shares" if shares else "counts"
            alt = words.confusion(run, counts, shares=shares)
            svg = figures.confusion(run, counts, order, shares=shares)
            if k > MANY:
                folded = (
                    f"{run.label}: {'shares of each true class' if shares else 'counts'}, with the names of the classes"
                )
                drawing = Figure(f"confusion_{what}_{slug}", svg, "", True, 900 if k > 50 else 560, folded, alt=alt)
                named.append(drawing)
                if shares:
                    svg = figures.confusion(run, counts, order, shares=True, named=False)
                    small.append(Figure(f"confusion_{slug}", svg, "", alt=alt))
            else:  # of one run both are side by side
                group = what if len(runs) > 1 else ""
                folded = "" if shares or len(runs) == 1 else "Counts of images"
                least, scrolls = (340, 0) if k <= FEW else (520, 480)
                drawing = Figure(
                    f"confusion_{what}_{slug}",
                    svg,
                    "",
                    min_width=scrolls,
                    folded=folded,
                    group=group,
                    panel=least,
                    alt=alt,
                )
                small.append(drawing)
        raw = [[run.class_names[i], *map(int, counts[i])] for i in range(k)]
        head = ["true", *run.class_names]
        listed.append(Table(head, [], csv=(f"confusion_{slug}.csv", head, raw)))
        found = pictures.pairs(run, counts, pictures.sample_images(run, more))
        listed += found[:1]
        shown += found[1:]
    small.sort(key=lambda figure: figure.group != "shares")  # those of all runs, then the counts of all runs
    many: list[Block] = [Text(SIMILAR)] if named else []
    return [*many, *small, *named, *listed, *shown]


SIMILAR = "Classes that are confused stand next to each other (average linkage over mutual confusion)."


def classes(runs: Sequence[RunFiles]) -> list[Block]:
    """Precision, recall and F1 by class."""
    if not runs:
        return []
    scores = [numbers.per_class(r.labels, r.predictions, len(r.class_names)) for r in runs]  # type: ignore[arg-type]
    drawn = [
        Figure(f"classes_{run.slug}", figures.class_bars(run, i, s[:, 2]), "", alt=words.class_bars(run, s[:, 2]))
        for i, (run, s) in enumerate(zip(runs, scores, strict=True))
    ]
    tested = [np.where(s[:, 3] > 0, s[:, 1], np.nan) for s in scores]  # without test images there is no recall
    apart = figures.recall_by_size(runs, tested)
    if apart is not None:
        caption = (
            "Share of the test images of a class that are classified correctly, against its number of training images."
        )
        alt = words.recall_by_size(runs, tested)
        drawn.append(Figure("recall_by_size", apart, caption, alt=alt))
    rows = []
    for run, s in zip(runs, scores, strict=True):  # as the metrics macro_f1 and balanced_accuracy
        seen = np.concatenate([run.labels, run.predictions])  # type: ignore[list-item]
        occurs = np.bincount(seen, minlength=len(s)) > 0
        means = (s[occurs, 0].mean(), s[s[:, 3] > 0, 1].mean(), s[occurs, 2].mean())
        rows.append([run.label, *(f"{v:.4f}" for v in means)])
    some = " that are tested or predicted; recall over those that are tested" if (scores[0][:, 3] == 0).any() else ""
    caption = f"Means, with equal weight, over the classes{some}."
    mean = Table(["run", "precision", "recall", "F1"], rows, caption, title="All classes")
    return [*drawn, mean, *tables.class_table(runs, scores)]


def mistakes(runs: Sequence[RunFiles], more: dict[int, np.ndarray] | None) -> list[Block]:
    """The most confident mistakes of each run."""
    out: list[Block] = []
    for run in runs:
        assert run.logits is not None
        out += pictures.mistakes(run, numbers.softmax(run.logits), pictures.sample_images(run, more))
    return out


def augmentation(runs: Sequence[RunFiles], show: bool) -> list[Block]:
    """What was used, and, where asked for, how it looks."""
    table = tables.augmentations(runs)
    blocks: list[Block] = [table] if table else [Text("No augmentation and no regularisation options are in use.")]
    seen: list[dict[str, Any]] = []
    for run in runs if show else ():
        options = {word: value for word, value in run.config.items() if word.startswith("augment.")}
        if options not in seen:  # runs that augment alike have the same pictures
            seen.append(options)
            blocks += pictures.augmented(run)
    return blocks


def repeat(runs: Sequence[RunFiles]) -> list[Block]:
    """The commands and the environments."""
    blocks: list[Block] = [
        Text(("" if len(runs) == 1 else f"# {escape.plain(run.label)}\n") + str(run.summary["command"]), "code")
        for run in runs
        if run.summary.get("command")
    ]
    table = tables.environment(runs)
    return blocks + ([table] if table else [])
