"""The decisions after an evaluation: whether it is the best so far, whether the rate falls, whether training stops.

What the rules remember is plain numbers, {"plateau": [...], "early_stopping": [...]}, and lies in the checkpoint.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxvit import optim
from jaxvit.config.checks import METRICS
from jaxvit.errors import UserError

Memory = dict[str, list[float]]
MODES = METRICS  # the better way of each metric
PLATEAU_WORDS = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_scale")


@dataclasses.dataclass(frozen=True)
class Rules:
    """`metric` picks the best checkpoint and stops early; `plateau_metric` drives reduce-on-plateau."""

    metric: str = "accuracy"
    restore: bool = True
    early_stopping: optim.EarlyStopping | None = None
    plateau_metric: str = "accuracy"
    plateau: optim.Plateau | None = None

    def better(self, val: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
        """Whether the metrics `val` beat `best`; of equal ones those with the lower loss. NaN beats nothing."""
        return best is None or not self.restore or self._key(val) > self._key(best)

    def choose(self, found: Mapping[str, Mapping[str, float]]) -> str:
        """Returns the name of the best of several metrics of one moment; of equal ones the last."""
        return max(reversed(list(found)), key=lambda name: self._key(found[name]))

    def _key(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        sign = 1 if MODES[self.metric] == "max" else -1
        values = (sign * metrics[present(self.metric, metrics)], -metrics["loss"])
        return values if not any(map(np.isnan, values)) else (-np.inf, -np.inf)

    def update(self, memory: Memory, val: Mapping[str, float]) -> Memory:
        """Returns the memory after an evaluation."""
        new = dict(memory)
        for name, rule, metric in (
            ("early_stopping", self.early_stopping, self.metric),
            ("plateau", self.plateau, self.plateau_metric),
        ):
            if rule is not None:
                state = rule.update(_state(rule, memory.get(name)), val[present(metric, val)])
                new[name] = [float(value) for value in state]
        return new

    def stops(self, memory: Memory) -> bool:
        """Whether training stops here."""
        return self.early_stopping is not None and bool(_state(self.early_stopping, memory.get("early_stopping")).stop)

    def lr_scale(self, memory: Memory) -> float:
        """The multiplier on the learning rate."""
        return 1.0 if self.plateau is None else float(_state(self.plateau, memory.get("plateau")).scale)


def present(metric: str, metrics: Mapping[str, float]) -> str:
    """The metric that is meant: of several labels per image, which have no accuracy, the mean average precision."""
    return "mAP" if metric == "accuracy" and "mAP" in metrics else metric


def make_rules(early_stopping: Mapping[str, Any], schedule: Mapping[str, Any]) -> Rules:
    """Builds the rules from the config's sections `early_stopping` and `optim.schedule`.

    Raises:
      UserError: a value that makes no sense, or a mode against the metric.
    """
    words = {word: schedule[word] for word in PLATEAU_WORDS if schedule.get(word) is not None}
    plateau, plateau_metric = None, schedule.get("metric") or early_stopping["metric"]
    if schedule["name"] == "plateau":
        mode = MODES[plateau_metric]
        if words.setdefault("mode", mode) != mode:
            raise UserError(
                f"optim.schedule.mode is {words['mode']!r}; {plateau_metric} improves towards its {mode}imum"
            )
        plateau = optim.Plateau(**words)
    metric, patience = early_stopping["metric"], early_stopping["patience"]
    return Rules(
        metric=metric,
        restore=early_stopping["restore"],
        early_stopping=None
        if patience is None
        else optim.EarlyStopping(mode=MODES[metric], patience=patience, min_delta=early_stopping["min_delta"]),
        plateau_metric=plateau_metric,
        plateau=plateau,
    )


def _state(rule: Any, values: list[float] | None) -> Any:
    """A rule's state from the numbers in a checkpoint; exact, as float32 is a part of JSON's numbers."""
    fresh = rule.init()
    if values is None:
        return fresh
    return type(fresh)(*(jnp.asarray(v, x.dtype) for v, x in zip(values, fresh, strict=True)))
