"""What is searched: `config.sweep.ranges`, each (option, kind, values...), and the config of one draw."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxvit import config as config_lib
from jaxvit import models, optim
from jaxvit.build import checks, parts
from jaxvit.config.default import Config
from jaxvit.config.words import OPEN
from jaxvit.errors import UserError, suggest
from jaxvit.models import registry

EXAMPLE = '("optim.learning_rate", "log", 1e-5, 1e-2)'
KINDS = {
    "log": "a float between two ends, uniform in its logarithm",
    "uniform": "a float between two ends",
    "int": "a whole number between two ends, both included",
    "choice": "one of the values",
}
# Words that decide what is compared, and not how well it does.
FIXED = ("seed", "data.name", "data.dir", "data.archive", "data.val_fraction", "early_stopping.metric", "lr_find")
DIGITS = 4  # of a drawn float, so that a command line can repeat it


class Range(NamedTuple):
    """One config option and the values that it may have: two ends, or all of them for a choice."""

    word: str
    kind: str
    values: tuple[Any, ...]

    def draw(self, trial: Any) -> Any:
        """Returns the value that an Optuna trial has for the option."""
        if self.kind == "choice":
            labels = [label(value) for value in self.values]
            return self.values[labels.index(trial.suggest_categorical(self.word, labels))]
        low, high = self.values
        if self.kind == "int":
            return trial.suggest_int(self.word, low, high)
        return float(f"{trial.suggest_float(self.word, low, high, log=self.kind == 'log'):.{DIGITS}g}")


def label(value: Any) -> str:
    """A value as a command line has it."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def read_ranges(config: Config) -> tuple[Range, ...]:
    """Returns the ranges of `config.sweep.ranges`.

    Raises:
      UserError: there are none, an option or kind is unknown, or a value is not valid.
    """
    entries = config.sweep.ranges
    if not entries:
        raise UserError(f"nothing to search: sweep.ranges is empty; expected for example ({EXAMPLE},)")
    ranges = [_read(entry, config) for entry in entries]
    for i, found in enumerate(ranges):
        if found.word in [other.word for other in ranges[:i]]:
            raise UserError(f"sweep.ranges has {found.word} twice")
        for value in found.values:
            _check_value(config, found.word, value)
    return tuple(ranges)


def check_model(ranges: Sequence[Range], complete: Config) -> None:
    """Raises UserError where the model or a choice of optim.freeze cannot be, unless the model is searched too."""
    if complete.pretrained or any(found.word in ("pretrained", "data.image_size") for found in ranges):
        return
    if any(found.word.startswith("model.") for found in ranges):
        return
    model, size = parts.make_model(complete), complete.data.image_size
    shapes = parts.variable_shapes(model, size, complete.model.in_channels)["params"]
    for value in [value for found in ranges if found.word == "optim.freeze" for value in found.values]:
        try:
            optim.freeze_mask(shapes, value, family=registry.registered_family(complete.model.name))
        except UserError as error:
            raise UserError(f"sweep.ranges: {error}") from None


def _read(entry: Any, config: Config) -> Range:
    if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) < 3:
        raise UserError(f"sweep.ranges has {entry!r}; expected (option, kind, values...), such as {EXAMPLE}")
    word, kind, *values = entry
    _check_word(word, config)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(
            f"sweep.ranges: no kind {kind!r} for {word}; expected {', '.join(KINDS)}.{suggest(str(kind), KINDS)}"
        )
    if kind == "choice":
        values = [tuple(value) if isinstance(value, list) else value for value in values]
        if len({label(value) for value in values}) < max(len(values), 2):
            raise UserError(
                f"sweep.ranges: the choices of {word} are {tuple(values)}; expected two or more, all different"
            )
        return Range(word, kind, tuple(values))
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    whole = kind != "int" or all(v == int(v) for v in numbers)
    if len(numbers) != 2 or len(values) != 2 or not whole or not numbers[0] < numbers[1]:
        wanted = "whole numbers" if kind == "int" else "numbers"
        raise UserError(f"sweep.ranges: {word} is {kind} {tuple(values)}; expected two {wanted}, the lower end first")
    if kind == "log" and numbers[0] <= 0:
        raise UserError(f"sweep.ranges: {word} is log {tuple(values)}; a logarithm needs ends above 0")
    return Range(word, kind, tuple(map(int if kind == "int" else float, numbers)))


def _check_word(word: Any, config: Config) -> None:
    """Raises UserError unless a config may vary the option."""
    known = [w for w in config_lib.declared() if not w.startswith("sweep.")]
    known += [f"model.{field}" for field in models.model_fields(config.model.name)]
    if word in FIXED:
        raise UserError(f"sweep.ranges: {word} must be the same for all trials, because it decides what is compared")
    if word not in known and not str(word).startswith(OPEN[1:]):
        raise UserError(f"sweep.ranges: no config option {word!r}.{suggest(str(word), known)}")


def _check_value(config: Config, word: str, value: Any) -> None:
    try:
        given = apply(config, {word: value})
        checks.check(given)
        if word.startswith("model.") and word != "model.name":
            field = word.removeprefix("model.")
            models.create_model(given.model.name, **{field: given.model[field]})
    except UserError as error:
        raise UserError(f"sweep.ranges: {error}") from None


def apply(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns a copy of the config with the values, and without the search.

    Raises:
      UserError: a value of the wrong type.
    """
    config = copy.deepcopy(config)
    config.sweep = config_lib.default().sweep
    for word, value in values.items():
        *parents, name = word.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        try:
            if word.startswith(OPEN) and word != "model.name":  # checked where they are used
                with config.unlocked(), config.ignore_type():
                    section[name] = value
            else:
                section[name] = value
        except (TypeError, ValueError):
            raise UserError(f"config option {word} is {value!r}; expected {config_lib.expected(word)}") from None
    return config
