"""Reduce-on-plateau and early stopping: rules over a validation metric, whose state is data only.

The state is a tuple of scalars to keep in the checkpoint; the update works on the host and under `jit`. A metric
that is NaN counts as no improvement.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvit.errors import UserError, suggest

MODES = ("max", "min")


class PlateauState(NamedTuple):
    """What a plateau rule remembers; `scale` multiplies the learning rate."""

    best: jax.Array
    bad: jax.Array  # evaluations since the best
    cooldown: jax.Array  # evaluations still to be ignored
    scale: jax.Array


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Multiplies the learning rate by `factor` after more than `patience` evaluations without improvement.

    The rule of PyTorch's ReduceLROnPlateau, as a multiplier: rates of groups keep their proportions.
    """

    mode: str = "max"  # whether the metric should rise or fall
    factor: float = 0.1
    patience: int = 10  # evaluations
    threshold: float = 1e-4  # least improvement that counts
    threshold_mode: str = "rel"  # of the best, or "abs"
    cooldown: int = 0  # evaluations after a fall that are not counted
    min_scale: float = 0.0

    def __post_init__(self):
        """Refuses values that make no sense."""
        _check_choice("optim.schedule.mode", self.mode, MODES)
        _check_choice("optim.schedule.threshold_mode", self.threshold_mode, ("rel", "abs"))
        _check(0 < self.factor < 1, f"optim.schedule.factor is {self.factor}; it must lie between 0 and 1.")
        _check(self.patience >= 0, f"optim.schedule.patience is {self.patience}; it must be >= 0.")
        _check(self.cooldown >= 0, f"optim.schedule.cooldown is {self.cooldown}; it must be >= 0.")
        _check(self.threshold >= 0, f"optim.schedule.threshold is {self.threshold}; it must be >= 0.")
        _check(0 <= self.min_scale <= 1, f"optim.schedule.min_scale is {self.min_scale}; it must lie in [0, 1].")

    def init(self) -> PlateauState:
        """The state before the first evaluation."""
        return PlateauState(_worst(self.mode), jnp.int32(0), jnp.int32(0), jnp.float32(1))

    def update(self, state: PlateauState, metric: Any) -> PlateauState:
        """The state after one evaluation."""
        metric = jnp.asarray(metric, jnp.float32)
        sign = 1 if self.mode == "max" else -1
        # relative as PyTorch has it, best * (1 +- threshold), which for a negative best lowers the bar
        margin = self.threshold * (state.best if self.threshold_mode == "rel" else 1.0)
        better = _better(metric, state.best, jnp.where(jnp.isfinite(state.best), margin, 0.0), sign)
        cooling = state.cooldown > 0
        bad = jnp.where(better | cooling, 0, state.bad + 1)
        falls = bad > self.patience
        return PlateauState(
            best=jnp.where(better, metric, state.best),
            bad=jnp.where(falls, 0, bad),
            cooldown=jnp.where(falls, self.cooldown, jnp.maximum(state.cooldown - 1, 0)),
            scale=jnp.where(falls, jnp.maximum(state.scale * self.factor, self.min_scale), state.scale),
        )


class EarlyStoppingState(NamedTuple):
    """What early stopping remembers; `best_index` counts evaluations from 0."""

    best: jax.Array
    bad: jax.Array
    index: jax.Array  # evaluations seen
    best_index: jax.Array  # -1 before the first improvement
    stop: jax.Array


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stops when the metric has not improved by more than `min_delta` for `patience` evaluations in a row."""

    mode: str = "max"
    patience: int = 10
    min_delta: float = 0.0

    def __post_init__(self):
        """Refuses values that make no sense."""
        _check_choice("early_stopping.mode", self.mode, MODES)
        _check(self.patience >= 1, f"early_stopping.patience is {self.patience}; it must be >= 1.")
        _check(
            math.isfinite(self.min_delta) and self.min_delta >= 0,
            f"early_stopping.min_delta is {self.min_delta}; it must be >= 0.",
        )

    def init(self) -> EarlyStoppingState:
        """The state before the first evaluation."""
        return EarlyStoppingState(_worst(self.mode), jnp.int32(0), jnp.int32(0), jnp.int32(-1), jnp.bool_(False))

    def update(self, state: EarlyStoppingState, metric: Any) -> EarlyStoppingState:
        """The state after one evaluation."""
        metric = jnp.asarray(metric, jnp.float32)
        better = _better(metric, state.best, self.min_delta, 1 if self.mode == "max" else -1)
        bad = jnp.where(better, 0, state.bad + 1)
        return EarlyStoppingState(
            best=jnp.where(better, metric, state.best),
            bad=bad,
            index=state.index + 1,
            best_index=jnp.where(better, state.index, state.best_index),
            stop=state.stop | (bad >= self.patience),
        )


def _worst(mode: str) -> jax.Array:
    return jnp.float32(-jnp.inf if mode == "max" else jnp.inf)


def _better(metric: Any, best: Any, margin: Any, sign: int) -> Any:
    return sign * metric > sign * best + margin


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _check_choice(word: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, f"{word} is {value!r}; expected {' or '.join(choices)}.{suggest(value, choices)}")
