"""What a config asks of training, as functions: schedule, optimiser, gradient, average, the steps of each phase.

All of it can be made from shapes alone, as a plan for absent hardware does.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxvit import models, optim, tree
from jaxvit.build import parts
from jaxvit.build.phases import trainable_masks
from jaxvit.config.default import Config
from jaxvit.data.augment.compose import make_augment
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.layers import to_pair
from jaxvit.runtime import numbers, sharding
from jaxvit.step import gradients, steps
from jaxvit.step.state import TrainState, create_state


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a run in which the same parameters train; most runs have one."""

    epoch: int  # the first, counted from 0
    trainable: Any
    train_steps: dict[bool, Callable]  # compiled: True with sharpness-aware gradients, where they are on, False without
    many_steps: dict[bool, Callable]  # the same, several at once, where the run takes several
    create: Callable  # variables -> its state at step 0
    template: Any  # of that state: shapes, types and places


def make_pixels(config: Config) -> steps.Pixels:
    """What lies between images and model, as the sections `data` and `augment` of a resolved config say."""
    d = config.data
    return steps.Pixels(
        to_float=parts.make_to_float(config.model.in_channels),
        normalise=parts.make_normalise(d.image_size, d.interpolation, d.mean, d.std),
        augment=make_augment(config.augment.to_dict()),
    )


def make_task(config: Config, **taught: Any) -> steps.Task:
    """What is asked of the model's outputs; `taught` is what a teacher changes of it."""
    return steps.Task(num_classes=config.model.num_classes, label_smoothing=config.loss.label_smoothing, **taught)


def make_phases(
    config: Config,
    mesh: Mesh,
    phases: Sequence[tuple[int, str]],
    variables: Any,
    *,
    model: Any,
    pixels: steps.Pixels,
    task: steps.Task,
    gradient: dict[bool, Callable],
    schedule: Callable[[Any], Any],
    many: Callable[[Callable], Callable] | None = None,
    jit: Callable = jax.jit,
) -> list[Phase]:
    """Returns the phases of `read_phases` with their steps; `variables` may be shapes.

    `many` makes one program of several steps out of a step (`multi_step.make_many`); None: there is none.
    `jit` compiles them: `numbers.compiled` where `config` is one of `with_numbers`.
    """
    mapped = config.parallel.mode == "pmap"

    def one_step(gradient: Callable, trainable: Any, tx: Any) -> Callable:
        update = steps.Update(
            tx=tx, schedule=schedule, trainable=trainable, gradient=gradient, average=_make_average(config)
        )
        axis_name = sharding.MAPPED if mapped else None
        step = steps.make_train_step(model=model, pixels=pixels, task=task, update=update, axis_name=axis_name)
        step = steps.skip_bad(step) if config.loss.on_nan == "skip" else step
        return sharding.map_over_devices(step, mesh) if mapped else step

    def make_phase(epoch: int, trainable: Any) -> Phase:
        tx = make_optimizer(config, variables["params"], trainable, schedule)

        def create(variables: Any) -> TrainState:
            return create_state(variables, tx, trainable, jax.random.key(config.seed), ema=config.ema.decay > 0)

        shapes = jax.eval_shape(create, variables)
        places = sharding.state_shardings(shapes, mesh, rules)
        template = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, places)
        compiled = functools.partial(jit, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
        made = {sam: one_step(make, trainable, tx) for sam, make in gradient.items()}
        several = {sam: compiled(many(step)) for sam, step in made.items()} if many else {}
        return Phase(epoch, trainable, {sam: compiled(step) for sam, step in made.items()}, several, create, template)

    rules = registry.sharding_rules(tree.named_leaves(variables["params"]))
    trains = trainable_masks(variables["params"], phases)
    return [make_phase(epoch, mask) for (epoch, _), mask in zip(phases, trains, strict=True)]


def check(config: Config) -> None:
    """Raises UserError where the optimiser or the schedule has no such option, whatever the model and the data are."""
    make_schedule(config, 1000)
    config = copy.deepcopy(config)
    config.optim.layer_decay = None  # of the model's own layers
    params = {"head": {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}}
    make_optimizer(config, params, {"head": {"kernel": True}}, lambda step: config.optim.learning_rate)


def check_names(config: Config, phases: Sequence[tuple[int, str]]) -> None:
    """Raises UserError where `optim.freeze` or `optim.unfreeze` fit no parameter; read off shapes, before data are.

    Nothing is said of a model that weights on the disk describe, nor of one that only the data's size may fit.
    """
    local = config.pretrained is not None and parts.pretrained_name(config.pretrained) is None
    if local or all(freeze in (None, "none") for _, freeze in phases):
        return
    given = {"image_size": config.data.image_size} if config.data.image_size else {}
    try:
        model = models.create_model(config.model.name, **{**given, **parts.model_fields(config)})
        images = jax.ShapeDtypeStruct((1, *to_pair(model.image_size), model.in_channels), "float32")
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    except UserError:
        return
    trainable_masks(params, phases)


def with_numbers(config: Config) -> Config:
    """Returns a copy whose rates, decays, radii and probabilities are `numbers.Number`s: arguments of a step.

    Constants of its program remain what shapes it (whole numbers, words, tuples), the fields of the model, and whether
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
    name = words.pop("name")
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
    options: dict[str, Any] = config.optim.options.to_dict()
    options = {word: tuple(value) if isinstance(value, list) else value for word, value in options.items()}
    twice = sorted(set(options) & {*shared, "mu_dtype", "learning_rate"})
    if twice:
        raise UserError(f"optim.options.{twice[0]} is not read; the config word is optim.{twice[0]}")
    return optim.make_optimizer(
        params,
        schedule=schedule,
        trainable=trainable,
        mu_dtype=config.optim.mu_dtype,
        **{word: config.optim[word] for word in shared},
        **options,
    )


def num_parts(config: Config) -> int:
    """Parts that a batch is computed in: optim.accum_steps, or what micro_batch comes to."""
    if not config.micro_batch:
        return config.optim.accum_steps
    if config.optim.accum_steps > 1 or config.batch_size % config.micro_batch:
        raise UserError(f"micro_batch {config.micro_batch} does not divide batch_size, or optim.accum_steps is set too")
    return config.batch_size // config.micro_batch


def split_batch(config: Config, num_train: int) -> tuple[int, int]:
    """(images a step, parts that it is computed in): the config's, or what the training images give."""
    sam, accum_steps = config.optim.sam, num_parts(config)
    m = sam.m if sam.rho and sam.m else config.batch_size
    if config.batch_size % m:
        raise UserError(f"optim.sam.m {m} does not divide batch_size {config.batch_size}")
    batch_size = min(config.batch_size, num_train)
    batch_size -= batch_size % math.lcm(accum_steps, min(m, batch_size))
    if batch_size < 1:
        raise UserError(f"{num_train} training images are fewer than optim.accum_steps or optim.sam.m ask for")
    return batch_size, max(accum_steps, batch_size // m)


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


def _make_average(config: Config) -> Callable:
    """(old average, new weights, steps done) -> new average; keeps nothing where ema.decay is 0."""
    decay, warmup = config.ema.decay, config.ema.warmup
    if decay == 0:
        return lambda ema, variables, step: ema
    return lambda ema, variables, step: optim.ema.update(ema, variables, optim.ema.decay_at(step, decay, warmup=warmup))
