"""A model card: README.md of a run's weights on the Hugging Face hub, with its pictures, from the run's files alone."""

import json
from typing import Any

import numpy as np
import yaml

from jaxvit.reports import figures, numbers, page, tables
from jaxvit.reports.blocks import Table
from jaxvit.reports.report import MANY
from jaxvit.reports.runs import RunFiles
from jaxvit.runtime import escape

RECIPE = (
    "num_epochs", "batch_size", "optim.name", "optim.learning_rate", "optim.weight_decay", "optim.schedule.name",
    "optim.sam.rho", "loss.name", "data.fraction", "dtype", "seed", "pretrained",
)  # fmt: skip


def write(run: RunFiles, config: dict[str, Any], name: str, repo: str, licence: str, timm_loads: bool) -> dict:
    """The files of the card by name: README.md, curves.svg and confusion.svg, those that the run has.

    `config` is the `config.json` that is uploaded, `name` the timm name, `licence` "" where it is not known.
    """
    files = {}
    curves = figures.curves("loss", [run])
    if curves is not None:
        files["curves.svg"] = curves.encode()
    if run.logits is not None and run.labels is not None and not run.several:
        counts = numbers.confusion(run.labels, run.predictions, len(run.class_names))
        order = np.arange(len(counts)) if len(counts) <= MANY else numbers.similarity_order(counts)
        files["confusion.svg"] = figures.confusion(run, counts, order, shares=True).encode()
    files["README.md"] = _text(run, config, name, repo, licence, timm_loads, files).encode()
    return files


def _text(
    run: RunFiles, config: dict[str, Any], name: str, repo: str, licence: str, timm_loads: bool, files: dict
) -> str:
    head = {"tags": ["image-classification", "jax", "jaxvit", *(["timm"] if timm_loads else [])]}
    head |= {"pipeline_tag": "image-classification", "library_name": "timm" if timm_loads else "jaxvit"}
    head |= {"license": licence} if licence else {}
    summary, data = run.summary, str(run.config["data.name"])
    shown = data.partition(":")[0] + ("" if ":" not in data else f" {data.rstrip('/').rpartition('/')[2]}")
    names = {"num_train": "training", "num_val": "validation", "num_test": "test"}
    sizes = [f"{summary[word]:,} {kind}" for word, kind in names.items() if summary.get(word) is not None]
    classes = ", ".join(run.class_names[:100]) + (", ..." if len(run.class_names) > 100 else "")
    cfg = config["pretrained_cfg"]
    words = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")
    recipe = [[word, _public(str(run.config[word]))] for word in RECIPE if run.config.get(word) is not None]
    parts = [
        "---\n" + yaml.safe_dump(head, sort_keys=False) + "---",
        f"# {escape.markdown(repo.rpartition('/')[2])}",
        escape.markdown(f"{name}, trained by jaxvit on {shown}: {len(run.class_names)} classes."),
        "## Metrics",
        "On the test split; the interval is Wilson's.",
        page.markdown_table(tables.comparison([run])),
        "![confusion matrix](confusion.svg)" if "confusion.svg" in files else "",
        "## Data",
        escape.markdown(f"{shown}: {', '.join(sizes)} images. Classes: {classes}."),
        "## Recipe",
        page.markdown_table(Table(("option", "value"), recipe, left=2)),
        "![loss by epoch](curves.svg)" if "curves.svg" in files else "",
        "## Preprocessing",
        page.markdown_table(Table(("word", "value"), [[w, json.dumps(cfg[w])] for w in words if w in cfg], left=2)),
        "## How to load it",
        escape.markdown_code(f'import jaxvit\n\nmodel, variables = jaxvit.load_pretrained("hf_hub:{repo}")'),
        escape.markdown_code(f'import timm\n\nmodel = timm.create_model("hf_hub:{repo}", pretrained=True)')
        if timm_loads
        else "timm has no name for a field of this model: only jaxvit loads it.",
        "## Licence",
        escape.markdown(licence or "Not stated by the publisher; those of the data and of earlier weights apply."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _public(value: str) -> str:
    """A value without the directories of who trained: of a path the last part."""
    return (
        value if value.startswith(("hf_hub:", "hf-hub:")) else value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    )
