"""The outcome of a search: a row per trial, as trials.csv, sweep.png, best.json and a table."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvit.config.default import Config
from jaxvit.errors import RunError
from jaxvit.runtime import console, drawing, escape, files
from jaxvit.sweep.ranges import Range, label
from jaxvit.train.decisions import MODES
from jaxvit.workdir import run_files

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
SHOWN = 10  # rows of the table
LOOKS = {
    "complete": {"marker": "o", "color": "#0072b2"},
    "pruned": {"marker": "x", "color": "#e69f00"},
    "failed": {"marker": "|", "color": "#d55e00"},
}


def name(number: int) -> str:
    """The directory of a trial."""
    return f"trial_{number:04d}"


def finished(study: Any) -> int:
    """How many trials have come to an end."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def read(study: Any) -> list[dict[str, Any]]:
    """A row per finished trial; `value` is None if there is none, `seconds` the time from start to end."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        value = trial.value if trial.value is not None and math.isfinite(trial.value) else None
        rows.append({
            "trial": trial.number,
            "state": STATES[trial.state.name],
            "value": value,
            "epochs": max(trial.intermediate_values, default=0),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            "words": dict(trial.user_attrs.get("words", {})),
            "reason": trial.user_attrs.get("reason", ""),
            "diverged": trial.user_attrs.get("diverged", False),
        })  # fmt: skip
    return rows


def ranked(rows: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The complete trials, best first."""
    complete = [row for row in rows if row["state"] == "complete" and row["value"] is not None]
    return sorted(complete, key=lambda row: row["value"], reverse=MODES[metric] == "max")


def write(
    study: Any, config: Config, ranges: Sequence[Range], directory: Path, command: str = ""
) -> list[dict[str, Any]]:
    """Writes trials.csv and best.json; returns the rows."""
    rows, metric = read(study), config.early_stopping.metric
    words = [found.word for found in ranges]
    columns = ("trial", "state", f"val/{metric}", "epochs", "seconds", *words, "reason")
    keys = ("trial", "state", "value", "epochs", "seconds")
    cells = [(*(row[k] for k in keys), *(row["words"].get(word, "") for word in words), row["reason"]) for row in rows]
    files.write(directory / "trials.csv", escape.csv_bytes(columns, cells))
    best = ranked(rows, metric)[:1]
    if best:
        found = {"trial": name(best[0]["trial"]), f"val/{metric}": best[0]["value"], "words": best[0]["words"]}
        run_files.write_json(directory / "best.json", {**found, "command": repeat(command, best[0]["words"])})
    return rows


def repeat(command: str, words: dict[str, str]) -> str:
    """The command line that trains with the values."""
    return " ".join(filter(None, [command, shlex.join(f"--config.{word}={value}" for word, value in words.items())]))


def show(rows: Sequence[dict[str, Any]], config: Config, directory: Path, command: str) -> None:
    """Prints the best trials, what became of the others, and how to test the best one and train with its values.

    Raises:
      RunError: no trial is complete.
    """
    metric = config.early_stopping.metric
    best = ranked(rows, metric)
    counts = {state: sum(row["state"] == state for row in rows) for state in STATES.values()}
    said = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    if not best:
        raise RunError(
            f"{len(rows)} trials ({said}), none of them is complete; the reasons are in {directory / 'trials.csv'}"
        )
    words = list(best[0]["words"])
    form = "{:.2%}" if metric not in ("loss", "nll") else "{:.4f}"
    shown = [
        (row["trial"], form.format(row["value"]), row["epochs"], *(row["words"][word] for word in words))
        for row in best[:SHOWN]
    ]
    console.table(f"{len(rows)} trials ({said})", ("trial", f"val/{metric}", "epochs", *words), shown)
    trial = directory / name(best[0]["trial"])
    console.say(f"\nthe best trial, {trial}; to train it again:\n{repeat(command, best[0]['words'])}")
    console.say(f"to evaluate it on the test split, which no trial has used: eval --workdir {shlex.quote(str(trial))}")
    console.say(f"all trials: {directory / 'trials.csv'}, picture: {directory / 'sweep.png'}")


def _labels(found: Range) -> list[str]:
    return [label(value) for value in found.values]


def draw(path: Path, rows: Sequence[dict[str, Any]], ranges: Sequence[Range], metric: str) -> None:
    """Draws the values by trial with the best so far, and against each option; nothing without a complete trial."""
    if not any(row["value"] is not None or row["state"] == "failed" for row in rows):
        return
    with drawing.style():
        _draw(path, rows, ranges, metric)


def _draw(path: Path, rows: Sequence[dict[str, Any]], ranges: Sequence[Range], metric: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(ranges) + 1, 4)
    lines = -(-(len(ranges) + 1) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.0 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    history, slices = panels[0], panels[1 : len(ranges) + 1]
    for unused in panels[len(ranges) + 1 :]:
        unused.set_visible(False)
    valued = [row for row in rows if row["value"] is not None]
    for state, look in LOOKS.items():
        some = [row for row in valued if row["state"] == state]
        if some:
            history.scatter([row["trial"] for row in some], [row["value"] for row in some], s=22, label=state, **look)
    for row in (row for row in rows if row["state"] == "failed"):
        history.axvline(row["trial"], color=LOOKS["failed"]["color"], linestyle=":", linewidth=1)
    better = max if MODES[metric] == "max" else min
    complete = [row for row in valued if row["state"] == "complete"]
    if complete:
        so_far = [better(row["value"] for row in complete[: i + 1]) for i in range(len(complete))]
        history.step([row["trial"] for row in complete], so_far, where="post", color="0.4", label="best so far")
        history.legend(frameon=False, fontsize=7)
    history.set(xlabel="trial (dotted: failed)", ylabel=f"validation {metric}")
    history.xaxis.get_major_locator().set_params(integer=True)
    for axes, found in zip(slices, ranges, strict=True):
        _slice(axes, found, valued)
    figure.savefig(path, dpi=150)


def _slice(axes: Any, found: Range, rows: Sequence[dict[str, Any]]) -> None:
    for state, look in LOOKS.items():
        some = [row for row in rows if row["state"] == state and found.word in row["words"]]
        texts = [row["words"][found.word] for row in some]
        if found.kind == "choice":
            x = [_labels(found).index(text) for text in texts]
        else:
            x = [float(text) for text in texts]
        if some:
            axes.scatter(x, [row["value"] for row in some], s=22, **look)
    axes.set_xlabel(found.word)
    if found.kind == "int":
        axes.xaxis.get_major_locator().set_params(integer=True)
    if found.kind == "log":
        axes.set(xscale="log", xlim=(found.values[0] / 1.2, found.values[1] * 1.2))
    if found.kind in ("int", "uniform"):
        low, high = found.values
        axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    if found.kind == "choice":
        axes.set_xticks(range(len(found.values)), [escape.picture(text, 14) for text in _labels(found)], rotation=20)
