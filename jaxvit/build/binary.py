"""Binary cross-entropy and several labels per image: what fits together, and the weights of positive labels."""

from typing import Any

import numpy as np

from jaxvit.build.facts import Facts
from jaxvit.config.checks import METRICS
from jaxvit.config.default import Config
from jaxvit.errors import UserError, suggest
from jaxvit.step import losses, multi_label
from jaxvit.step.metrics import OWN

SEVERAL = (*multi_label.NAMES, "accuracy")  # metrics of several labels; accuracy stands for mAP there
MOST = 1000.0  # of a balanced weight: a class that is rarer still would drown all others


def check(config: Config, facts: Facts) -> None:
    """Raises UserError where the config asks for what the labels cannot be asked."""
    name, given = config.data.name, config.loss.pos_weight
    metrics = {word: _value(config, word) for word in ("early_stopping.metric", "optim.schedule.metric")}
    if isinstance(given, list | tuple) and len(given) != facts.num_classes:
        raise UserError(f"loss.pos_weight has {len(given)} numbers; {name} has {facts.num_classes} classes")
    for word, metric in metrics.items():
        if metric in OWN and OWN[metric].several != facts.several:
            those = "several labels" if facts.several else "one label"
            raise UserError(f"{word} is {metric!r}, a metric that is not of {those} per image, as {name} has")
    if not facts.several:
        for word, metric in metrics.items():
            if metric in SEVERAL and metric not in ("loss", "accuracy", "macro_f1"):
                choices = [m for m in METRICS if m not in SEVERAL or m in ("loss", "accuracy", "macro_f1")]
                raise UserError(
                    f"{word} is {metric!r}; {name} has one label per image: expected {' or '.join(choices)}"
                )
        return
    if config.loss.name not in losses.SEVERAL:
        raise UserError(
            f"{name} has several labels per image, loss.name={config.loss.name} accepts only one\n"
            "--config.loss.name=bce predicts each class independently"
        )
    others = {
        "distill.teacher": "a teacher predicts one class",
        "loss.class_weights": "loss.pos_weight=balanced gives rare classes more weight",
        "loss.logit_adjustment": "loss.pos_weight=balanced gives rare classes more weight",
        "data.sampling": "loss.pos_weight=balanced gives rare classes more weight",
        "data.imbalance": "it needs one label per image",
    }
    for word, why in others.items():
        if _value(config, word):
            raise UserError(f"{word} is set; {name} has several labels per image: {why}")
    for word, metric in metrics.items():
        if metric is not None and metric not in SEVERAL and metric not in OWN:
            near = suggest(metric, SEVERAL)
            raise UserError(
                f"{word} is {metric!r}; {name} has several labels per image: expected {' or '.join(SEVERAL)}.{near}"
            )


def _value(config: Any, word: str) -> Any:
    for part in word.split("."):
        config = config.get(part) if config is not None else None
    return config


def pos_weight(config: Config, facts: Facts) -> np.ndarray | None:
    """The weight of a positive label, float64 [k]; None: 1 everywhere.

    "balanced" is images without the class over images with it, at most MOST.
    """
    given = config.loss.pos_weight
    if given is None:
        return None
    if given == "balanced":
        if facts.class_counts is None:
            return np.ones(facts.num_classes)
        counts = np.maximum(np.asarray(facts.class_counts, np.float64), 1.0)
        return np.clip((facts.num_train - counts) / counts, 1 / MOST, MOST)
    return np.broadcast_to(np.asarray(given, np.float64), facts.num_classes).copy()
