"""Learning-rate schedules by name: functions of the step (0, 1, ...), each the equal of its PyTorch namesake.

All start with an optional linear warm-up. A schedule with a shape (cosine, linear, polynomial, one-cycle, wsd) runs
from the warm-up's end to the last step; one with marks (step, multistep, exponential) counts from step 0.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxvit import plugins
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import numbers

Schedule = Callable[[Any], Any]  # step -> learning rate, float32 scalar


def constant(rate: float, floor: float, total: int, epoch: int) -> Schedule:
    """The same rate throughout."""
    return lambda step: jnp.full_like(step, rate)


def cosine(rate: float, floor: float, total: int, epoch: int) -> Schedule:
    """Half a cosine from rate to floor (Loshchilov & Hutter 2017, without restarts)."""
    return lambda step: floor + (rate - floor) / 2 * (1 + jnp.cos(jnp.pi * _part(step, total)))


def linear(rate: float, floor: float, total: int, epoch: int) -> Schedule:
    """A straight line from rate to floor."""
    return polynomial(rate, floor, total, epoch, power=1.0)


def polynomial(rate: float, floor: float, total: int, epoch: int, *, power: float = 2.0) -> Schedule:
    """A power of what is left: floor + (rate - floor) (1 - t)^power, t the part of training done."""
    _require(power > 0, f"optim.schedule.power is {power}; it must be positive.")
    return lambda step: floor + (rate - floor) * (1 - _part(step, total)) ** power


def step_decay(
    rate: float,
    floor: float,
    total: int,
    epoch: int,
    *,
    step_size: int = 30,
    gamma: float = 0.1,
    unit: str = "epochs",
) -> Schedule:
    """Times gamma after every `step_size` epochs or steps."""
    _require(step_size > 0, f"optim.schedule.step_size is {step_size}; it must be positive.")
    _require(gamma > 0, f"optim.schedule.gamma is {gamma}; it must be positive.")
    every = max(1, round(step_size * _steps_in(unit, epoch)))
    return lambda step: jnp.maximum(rate * gamma ** (step // every), min(floor, rate))


def multistep(
    rate: float,
    floor: float,
    total: int,
    epoch: int,
    *,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
    unit: str = "epochs",
) -> Schedule:
    """Times gamma at each milestone, in epochs or steps."""
    _require(len(milestones) > 0, "optim.schedule.milestones is empty; give at least one, e.g. [60, 120, 160].")
    good = all(isinstance(m, int | float) and 0 < m < math.inf for m in milestones)
    _require(good, f"optim.schedule.milestones is {list(milestones)}; expected numbers above 0, e.g. [60, 120, 160].")
    _require(gamma > 0, f"optim.schedule.gamma is {gamma}; it must be positive.")
    marks = [round(m * _steps_in(unit, epoch)) for m in milestones]
    passed = lambda step: sum((step >= mark).astype(step.dtype) for mark in marks)  # noqa: E731
    return lambda step: jnp.maximum(rate * gamma ** passed(step), min(floor, rate))


def exponential(rate: float, floor: float, total: int, epoch: int, *, gamma: float = 0.97) -> Schedule:
    """Times gamma after every epoch."""
    return step_decay(rate, floor, total, epoch, step_size=1, gamma=gamma)


def onecycle(
    rate: float,
    floor: float,
    total: int,
    epoch: int,
    *,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal: str = "cos",
) -> Schedule:
    """Up from rate / div_factor to rate in the first pct_start of training, then down (Smith & Topin 2018).

    The end is rate / div_factor / final_div_factor, or the floor where that is higher.
    """
    _require(0 < pct_start < 1, f"optim.schedule.pct_start is {pct_start}; it must lie between 0 and 1.")
    _require(
        div_factor > 0 and final_div_factor > 0, "optim.schedule.div_factor and final_div_factor must be positive."
    )
    _require(anneal in ("cos", "linear"), f"optim.schedule.anneal is {anneal!r}; expected 'cos' or 'linear'.")
    start, end = rate / div_factor, max(floor, rate / div_factor / final_div_factor)
    # as PyTorch: the peak and the end lie on the last step of their phase, not on the one after
    peak, last = pct_start * total - 1, total - 1

    def between(a: float, b: float, part: Any) -> Any:
        part = jnp.clip(part, 0.0, 1.0)
        part = (1 - jnp.cos(jnp.pi * part)) / 2 if anneal == "cos" else part
        return a * (1 - part) + b * part

    def schedule(step: Any) -> Any:
        rise = between(start, rate, step * numbers.inverse(peak)) if peak > 0 else jnp.full_like(step, rate)
        fall = between(rate, end, (step - peak) * numbers.inverse(max(last - peak, 1e-9)))
        return jnp.where(step <= peak, rise, fall)

    return schedule


def wsd(
    rate: float,
    floor: float,
    total: int,
    epoch: int,
    *,
    decay_fraction: float = 0.1,
    decay: str = "linear",
) -> Schedule:
    """Warm-up, stable, decay: constant, then down to the floor in the last `decay_fraction` (Hu et al. 2024)."""
    _require(0 < decay_fraction <= 1, f"optim.schedule.decay_fraction is {decay_fraction}; it must lie in (0, 1].")
    shapes = {"linear": lambda t: 1 - t, "cosine": lambda t: (1 + jnp.cos(jnp.pi * t)) / 2}
    shapes["sqrt"] = lambda t: 1 - jnp.sqrt(t)
    _require(decay in shapes, f"optim.schedule.decay is {decay!r}; expected one of {', '.join(shapes)}.")
    length = max(1, round(decay_fraction * total))
    return lambda step: floor + (rate - floor) * shapes[decay](_part(step - (total - length), length))


def plateau(
    rate: float,
    floor: float,
    total: int,
    epoch: int,
    *,
    metric: str | None = None,
    mode: str | None = None,
    factor: float | None = None,
    patience: int | None = None,
    threshold: float | None = None,
    threshold_mode: str | None = None,
    cooldown: int | None = None,
    min_scale: float | None = None,
) -> Schedule:
    """The same rate throughout; the falls come from `optim.Plateau`, which reads the options, as a multiplier."""
    return constant(rate, floor, total, epoch)


# name -> (maker, whether it starts at the warm-up's end)
SCHEDULES: dict[str, tuple[Callable[..., Schedule], bool]] = {
    "constant": (constant, False),
    "cosine": (cosine, True),
    "linear": (linear, True),
    "polynomial": (polynomial, True),
    "onecycle": (onecycle, True),
    "wsd": (wsd, True),
    "step": (step_decay, False),
    "multistep": (multistep, False),
    "exponential": (exponential, False),
    "plateau": (plateau, False),
}


def register_schedule(name: str, *, after_warmup: bool = True) -> Callable[[Any], Any]:
    """Adds a schedule: above a function (rate, floor, total, epoch, *, ...) -> (step -> learning rate).

    `rate` is the peak, `floor` the least rate, `total` the steps of training and `epoch` those of an epoch; what
    follows the star is given by optim.schedule.options. The step is a float32 scalar that is traced. With
    `after_warmup` the steps begin, and `total` counts, where the warm-up ends.

    Raises:
      UserError: a name that exists, or another kind of thing than such a function.
    """

    def register(name: str, make: Callable[..., Any]) -> None:
        plugins.options("schedule", name, make, 4, "(rate, floor, total, epoch, *, ...) -> (step -> learning rate)")
        plugins.claim("schedule", name, SCHEDULES, make)
        SCHEDULES[name] = (make, after_warmup)

    return plugins.decorator(register, name, '@register_schedule("name")')


def make_schedule(
    name: str = "cosine",
    *,
    learning_rate: float,
    total_steps: int,
    steps_per_epoch: int,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
    warmup_learning_rate: float = 0.0,
    min_learning_rate: float = 0.0,
    **options: Any,
) -> Schedule:
    """Builds a schedule: step -> learning rate (float32 scalar; works on ints and on traced steps).

    Args:
      name: one of SCHEDULES.
      learning_rate: the peak.
      total_steps: length of the training in optimiser steps.
      steps_per_epoch: optimiser steps of one epoch.
      warmup_steps: steps of linear warm-up; or give warmup_epochs.
      warmup_epochs: the same in epochs.
      warmup_learning_rate: rate at step 0 of the warm-up.
      min_learning_rate: the floor.
      **options: the schedule's own (`step_size`, `gamma`, `milestones`, `power`, ...); None means the default.

    Raises:
      UserError: unknown name or option, or a value that makes no sense.
    """
    known = schedule_options(name)
    make, after_warmup = SCHEDULES[name]
    options = {key: value for key, value in options.items() if value is not None}
    for key in options:
        if key not in known:
            takes = f" It takes {', '.join(known)}." if known else ""
            others = [f"{other!r}" for other in SCHEDULES if key in schedule_options(other)]
            takes += f" It is one of {', '.join(others)}." if others else ""
            raise UserError(f"the schedule {name!r} has no option {key!r}.{takes}{suggest(key, known)}")
    for word, value in (
        ("learning_rate", learning_rate),
        ("min_learning_rate", min_learning_rate),
        ("warmup_learning_rate", warmup_learning_rate),
        ("warmup_steps", warmup_steps),
        ("warmup_epochs", warmup_epochs),
    ):
        _require(math.isfinite(value) and value >= 0, f"{word} is {value}; it must be a number >= 0.")
    _require(min_learning_rate <= learning_rate, f"min_learning_rate {min_learning_rate} is above {learning_rate}.")
    _require(total_steps > 0 and steps_per_epoch > 0, "total_steps and steps_per_epoch must be positive.")
    _require(not (warmup_steps and warmup_epochs), "give warmup_steps or warmup_epochs, not both.")
    warmup = round(warmup_steps or warmup_epochs * steps_per_epoch)
    if warmup and warmup >= total_steps:
        raise UserError(f"the warm-up of {warmup} steps does not end within the {total_steps} steps of training.")
    offset = warmup if after_warmup else 0
    main = make(learning_rate, min_learning_rate, total_steps - offset, steps_per_epoch, **options)
    if name == "onecycle" and warmup:
        raise UserError("the schedule 'onecycle' has its own warm-up (pct_start); set warmup_epochs to 0.")

    slope = numbers.product(learning_rate - warmup_learning_rate, numbers.inverse(max(warmup, 1)))

    def schedule(step: Any) -> Any:
        step = jnp.asarray(step, jnp.float32)
        rise = warmup_learning_rate + step * slope
        return jnp.where(step < warmup, rise, main(step - offset)).astype(jnp.float32)

    return schedule


def schedule_options(name: str) -> list[str]:
    """Names of the options that the schedule takes in addition to the common ones; UserError for an unknown name."""
    if name not in SCHEDULES:
        raise UserError(f"no schedule {name!r}; expected one of {', '.join(SCHEDULES)}.{suggest(name, SCHEDULES)}")
    return [
        key
        for key, parameter in inspect.signature(SCHEDULES[name][0]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]


def _part(step: Any, total: int) -> Any:
    """Part of `total` done at `step`, in [0, 1]."""
    return jnp.clip(step * numbers.inverse(max(total, 1)), 0.0, 1.0)


def _steps_in(unit: str, epoch: int) -> int:
    _require(unit in ("epochs", "steps"), f"optim.schedule.unit is {unit!r}; expected 'epochs' or 'steps'.")
    return epoch if unit == "epochs" else 1


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
