"""A model with weights to pass on: from a run's best checkpoint, or from a weight file by its timm name."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvit import confidence, inference, pretrained
from jaxvit.build.parts import pretrained_name
from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair
from jaxvit.models.registry import model_entry, split_tag, tag_info
from jaxvit.pretrained.files import sha256
from jaxvit.runtime import console
from jaxvit.runtime.console import count
from jaxvit.step.calibration import at_temperature

FILES = ("model.safetensors", "config.json")


@dataclasses.dataclass(frozen=True)
class Source:
    """The model and its known origin."""

    name: str  # timm's, with the tag where the weights are that tag's
    model: Any  # a linen module
    variables: Any
    class_names: list[str] | None  # None where nobody named them
    data_config: dict[str, Any]  # what `jaxvit.preprocess` takes
    facts: list[tuple[str, str]]  # lines for a person: word, text
    licence: str | None = None  # of weights trained here, "" where unknown; None: the name's own
    thresholds: np.ndarray | None = None  # of several labels per image: the probability that says each class
    temperature: float = 1.0  # that the weights of the classifier were divided by
    config: Any = None  # of the run that it comes from


def from_run(workdir: str, temperature: str | float | None = None) -> Source:
    """The best checkpoint of a run, with logits divided by a temperature where one is asked for."""
    classifier = inference.from_run(workdir)
    if temperature is not None:
        classifier = confidence.with_temperature(classifier, confidence.requested(temperature, workdir))
    config: Any = classifier.config
    start, licence = config.pretrained, ""
    facts = [("from", f"the best checkpoint of {workdir}"), ("trained on", config.data.name)]
    if start:
        licence = tag_info(start)["license"] or "" if pretrained_name(start) else ""
        facts += [("started from", start), ("licence", licence or "the licence of the weights it started from")]
    name = split_tag(classifier.name)[0]
    parts = (classifier.model, classifier.variables, classifier.class_names, classifier.data_config)
    facts += divided(classifier.temperature)
    return Source(name, *parts, facts, licence, classifier.thresholds, classifier.temperature, config)


def divided(temperature: float) -> list[tuple[str, str]]:
    """A line on the temperature, if any."""
    return (
        [("temperature", f"{temperature:.4g}: the classifier's weights are divided by it")] if temperature != 1 else []
    )


def from_file(
    name: str | None, checkpoint: str | None, temperature: str | float | None = None, **changes: Any
) -> Source:
    """A weight file or a repository, or the hub's where `checkpoint` is None; `changes` go to `pretrained.load`."""
    by = 1.0 if temperature is None else confidence.requested(temperature, None)
    loaded = pretrained.load(name, checkpoint, **changes)
    variables = confidence.divide_logits(loaded.model, loaded.variables, by) if by != 1 else loaded.variables
    file = loaded.checkpoint
    facts = [("from", file.source or str(file.path)), ("SHA-256", file.sha256)]
    facts += [("changed", note) for note in loaded.notes]
    facts += [("licence", loaded.licence or "none recorded"), *divided(by)]
    names = inference.class_names(loaded)
    thresholds = inference.thresholds(loaded)
    if thresholds is not None:
        thresholds = at_temperature(thresholds, by)
    licence = loaded.licence if any(map(pretrained.is_repository, (name, checkpoint))) else None
    return Source(loaded.name, loaded.model, variables, names, loaded.data_config, facts, licence, thresholds, by)


def check_choice(workdir: str | None, model: str | None, checkpoint: str | None, word: str) -> None:
    """Raises UserError unless exactly one of a run and a named model or file is given."""
    if (workdir is None) == (model is None and checkpoint is None):
        raise UserError(f"give one of {word} DIR (a run) and --model NAME --checkpoint FILE")


def check_bare(workdir: str, others: list[Any]) -> None:
    """Raises UserError if a run is combined with options that only a named model takes."""
    if any(other is not None for other in others):
        raise UserError(f"{workdir!r} is a run and has its own model and weights; the other options need --model")


def write_safetensors(given: Source, target: Path) -> None:
    """Writes the two files that timm loads."""
    pretrained.save(
        given.model,
        given.variables,
        target,
        name=given.name,
        data_config=given.data_config,
        label_names=given.class_names,
        licence=given.licence,
        thresholds=None if given.thresholds is None else given.thresholds.tolist(),
    )


def timm_reads(target: Path) -> bool:
    """Whether timm can express everything in the files just written."""
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    return "jaxvit" not in config and bool(model_entry(config["architecture"])[0].timm_modules)


def write_and_say(given: Source, target: Path) -> None:
    """Writes the two files, and says what they are and how they are loaded."""
    write_safetensors(given, target)
    lines = describe(given) + written(target, FILES)
    if timm_reads(target):
        lines.append(("timm", f'timm.create_model("local-dir:{target}", pretrained=True)'))
    lines.append(("jaxvit", f'jaxvit.load_pretrained("{given.name}", "{target}")'))
    say(lines)


def describe(given: Source) -> list[tuple[str, str]]:
    """Lines about the model and where it came from."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(given.variables["params"]))
    height, width = to_pair(given.model.image_size)
    images = f"{height}x{width}x{given.model.in_channels}"
    classes = f"{given.model.num_classes} classes" if given.model.num_classes else "features"
    return [("model", f"{given.name}, {count(parameters)} parameters, {images}, {classes}"), *given.facts]


def written(target: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """Lines that name the files with size and SHA-256."""
    files = [target / name for name in names]
    return [("wrote", f"{file}  {file.stat().st_size:,} bytes, SHA-256 {sha256(file)}") for file in files]


def say(lines: list[tuple[str, str]]) -> None:
    """Prints (word, text) in two columns; control characters in names are not for the terminal."""
    for word, text in lines:
        console.say(f"{word:<13}{text}")
