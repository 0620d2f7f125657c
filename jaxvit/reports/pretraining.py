"""The section of a report on what came before the labels: the loss of pretraining, and a few reconstructions."""

import dataclasses
from collections.abc import Sequence

from jaxvit.reports import figures, words
from jaxvit.reports.blocks import Block, Figure, Picture, Pictures, Table
from jaxvit.reports.runs import RunFiles, read_lines
from jaxvit.runtime.console import duration
from jaxvit.workdir import run_files

COLUMNS = ("run", "epochs", "patches seen", "loss", "time", "images/s")


def blocks(runs: Sequence[RunFiles]) -> list[Block]:
    """A curve and a table of all runs that were pretrained, and their pictures; nothing where none was."""
    found = [run for run in runs if (run.path / run_files.PRETRAIN / "summary.json").is_file()]
    if not found:
        return []
    places = {run.label: run.path / run_files.PRETRAIN for run in found}
    phases = [dataclasses.replace(run, epochs=read_lines(places[run.label] / "metrics.jsonl")) for run in found]
    phases = [dataclasses.replace(run, epochs=[e for e in run.epochs if "pretrain/loss" in e]) for run in phases]
    rows, shown = [], []
    for run in found:
        said = run_files.read_json(places[run.label] / "summary.json")
        rows.append([
            run.label, str(said["epochs"]), f"{said['visible']} of {said['patches']}", f"{said['loss']:.4f}",
            duration(said["train_seconds"]), f"{said['images_per_second']:,.0f}",
        ])  # fmt: skip
        sheet = places[run.label] / "reconstructions.png"
        if sheet.is_file():
            caption = f"{run.label}: {caption_of(run)}"
            shown.append(
                Pictures(
                    f"pretraining_{run.slug}", [Picture(sheet.read_bytes(), alt=caption)], caption, across=1, large=True
                )
            )
    raw = [[run.label, e["epoch"], e["pretrain/loss"]] for run in phases for e in run.epochs]
    curve: list[Block] = []
    svg = figures.curves("pretrain", phases)
    if svg:
        drawn = [(run.label, "pretraining", *_series(run)) for run in phases if run.epochs]
        alt = words.curves("pretrain", figures.CURVES["pretrain"][0], drawn)
        curve.append(Figure("pretraining_loss", svg, "Without labels, before the training below.", alt=alt))
    return [*curve, Table(COLUMNS, rows, csv=("pretraining.csv", ["run", "epoch", "loss"], raw)), *shown]


def _series(run: RunFiles) -> tuple[list[float], list[float]]:
    return [e["epoch"] for e in run.epochs], [e["pretrain/loss"] for e in run.epochs]


def caption_of(run: RunFiles) -> str:
    """What the rows of the picture are."""
    said = "an image in each column; its visible patches; the patches that were predicted, among the visible ones."
    if run.config.get("pretrain.norm_pix_loss"):
        said += " A predicted patch has the mean and the contrast of the true one, which norm_pix_loss leaves open."
    return said
