"""How the weights of a config move: schedule, optimiser, gradient, average; and its numbers as arguments of a step."""

import copy
from collections.abc import Callable, Collection
from typing import Any

import jax

from jaxvit import optim
from jaxvit.build.batches import num_parts
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.runtime import numbers
from jaxvit.step import gradients


def check(config: Config) -> None:
    """Raises UserError where the optimiser or the schedule has no such option, whatever the model and the data are."""
    make_schedule(config, 1000)
    config = copy.deepcopy(config)
    config.optim.layer_decay = None  # of the model's own layers
    params = {"head": {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}}
    make_optimizer(config, params, {"head": {"kernel": True}}, lambda step: config.optim.learning_rate)


def with_numbers(config: Config) -> Config:
    """Returns a copy whose rates, decays, radii and probabilities are `numbers.Number`s: arguments of a step.

    Constants of its program remain what shapes it (whole numbers, text, tuples), the fields of the model, and whether
    a thing is on: 0 stays 0.
    """
    config = copy.deepcopy(config)
    with config.unlocked(), config.ignore_type():
        for section in ("optim", "loss", "ema", "augment", "distill"):
            config[section].update(numbers.tagged(config[section].to_dict(), section))
    return config


def make_schedule(config: Config, steps_per_epoch: int) -> Callable[[Any], Any]:
    """Step -> learning rate, as the config's section `optim.schedule` says."""
    words = config.optim.schedule.to_dict()
    name, own = words.pop("name"), words.pop("options")
    words |= _own_options(own, {*words, "learning_rate", "total_steps", "steps_per_epoch"}, "optim.schedule")
    # A short trial of a long recipe keeps the recipe's shape: the warm-up is never more than half of it.
    words["warmup_epochs"] = min(words["warmup_epochs"], config.num_epochs / 2)
    total: Any = steps_per_epoch * config.num_epochs
    if isinstance(config.optim.learning_rate, numbers.Number):
        words["warmup_epochs"] = numbers.Number(words["warmup_epochs"], "warmup_epochs")
        total = numbers.Number(total, "total_steps")
    return optim.make_schedule(
        name,
        learning_rate=config.optim.learning_rate,
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        **{word: value for word, value in words.items() if value is not None},
    )


def make_optimizer(config: Config, params: Any, trainable: Any, schedule: Callable[[Any], Any]) -> Any:
    """The optimiser, as the config's section `optim` says; `params` may be shapes."""
    shared = ("name", "weight_decay", "b1", "b2", "eps", "momentum", "nesterov", "grad_clip_norm", "layer_decay")
    options = _own_options(config.optim.options.to_dict(), {*shared, "mu_dtype", "learning_rate"}, "optim")
    return optim.make_optimizer(
        params,
        schedule=schedule,
        trainable=trainable,
        mu_dtype=config.optim.mu_dtype,
        family=registry.registered_family(config.model.name),
        **{word: config.optim[word] for word in shared},
        **options,
    )


def _own_options(options: dict[str, Any], declared: Collection[str], section: str) -> dict[str, Any]:
    """The entries of a section's `options`. Raises UserError where one is an option of the section itself."""
    twice = sorted(set(options) & set(declared))
    if twice:
        raise UserError(f"{section}.options.{twice[0]} is ignored; the option is {section}.{twice[0]}")
    return {word: tuple(value) if isinstance(value, list) else value for word, value in options.items()}


def make_gradient(config: Config, batch_size: int, pieces: int | None = None) -> dict[bool, Callable]:
    """The gradient functions by whether they are sharpness-aware; only those that a run will use."""
    sam, accum_steps = config.optim.sam, pieces or num_parts(config)
    plain = gradients.make_gradient(accum_steps=accum_steps)
    if sam.rho == 0:
        return {False: plain}
    if sam.rho_min is not None and sam.rho_min > sam.rho:
        raise UserError(f"optim.sam.rho_min {sam.rho_min} is above optim.sam.rho {sam.rho}")
    words = ("rho", "adaptive", "eta", "method", "alpha", "rho_min")
    sharp = gradients.make_gradient(
        accum_steps=accum_steps,
        perturbations=max(batch_size // (sam.m or batch_size), 1),
        max_learning_rate=config.optim.learning_rate,
        min_learning_rate=config.optim.schedule.min_learning_rate,
        **{word: sam[word] for word in words},
    )
    always = sam.every == 1 and sam.start_fraction == 0
    return {True: sharp} if always else {True: sharp, False: plain}


def make_average(config: Config) -> Callable:
    """(old average, new weights, steps done) -> new average; keeps nothing where ema.decay is 0."""
    decay, warmup = config.ema.decay, config.ema.warmup
    if decay == 0:
        return lambda ema, variables, step: ema
    return lambda ema, variables, step: optim.ema.update(ema, variables, optim.ema.decay_at(step, decay, warmup=warmup))
