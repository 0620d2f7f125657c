"""Writes the pages of the site that follow from the code: options, commands, models."""

import contextlib
import io
import shutil
import sys
from pathlib import Path
from unittest import mock

import model_pages

from jaxvit import cli
from jaxvit.config import reference

NOTE = "<!-- made by docs/generate.py; not edited by hand -->\n\n"
SECTIONS = {  # of options, by the first part of the name
    "": "The run", "model": "Model", "data": "Data", "augment": "Augmentation", "loss": "Loss",
    "distill": "Distillation", "optim": "Optimiser", "optim.schedule": "Schedule", "optim.sam": "SAM and ASAM",
    "ema": "Average of the weights", "early_stopping": "Early stopping", "sweep": "Sweeps",
    "parallel": "Several devices", "wandb": "Weights & Biases", "checkpoint": "Checkpoints",
}  # fmt: skip


def write(docs: Path) -> None:
    """Writes all of them below `docs/generated/`."""
    pages = {"options.md": options(), "commands.md": commands(), **model_pages.pages(docs.parent)}
    for name, text in pages.items():
        path = docs / "generated" / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != NOTE + text:
            path.write_text(NOTE + text, encoding="utf-8")
    for notebook in (docs.parent / "notebooks").glob("*.ipynb"):  # Sphinx reads nothing outside docs/
        shutil.copy2(notebook, docs / "generated" / notebook.name)


def options() -> str:
    """The reference of the options: a table for each section."""
    rows: dict[str, list[str]] = {}
    for option in reference.options():
        section = option.name.rpartition(".")[0]
        value = "" if option.default is None else f"`{option.default!r}`"
        cells = (f"`{option.name}`", value, option.takes, option.meaning.replace("|", "\\|"))
        rows.setdefault(section if section in SECTIONS else section.partition(".")[0], []).append(
            "| " + " | ".join(cells) + " |"
        )
    parts = ["# Options", (
        "An option is set in a config file (`config.optim.sam.rho = 0.5`) or on the command line "
        "(`--config.optim.sam.rho=0.5`). An empty default is None. `python main.py configs --options PATTERN` shows "
        "this table in the terminal."
    )]  # fmt: skip
    for section, lines in rows.items():
        title = SECTIONS.get(section, section.replace("_", " ").capitalize())
        head = ["| option | default | takes | meaning |", "| --- | --- | --- | --- |"]
        parts += [f"## {title}", "\n".join([*head, *lines])]
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """The help of training and of every command, as argparse prints it."""
    parts = ["# Command line", "In a checkout, use `python main.py` instead of `jaxvit`."]
    parts += ["## Train", f"```text\n{_help()}```"]
    for name in cli.COMMANDS:
        parts += [f"## {name}", f"```text\n{_help(name)}```"]
    return "\n\n".join(parts) + "\n"


def _help(*words: str) -> str:
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["jaxvit"]),
        mock.patch.dict("os.environ", {"COLUMNS": "100"}),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        cli._dispatch([*words, "--help"])
    return out.getvalue()
