"""The phases of a run, in each of which the same parameters train on images of one size: their steps and state."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxvit import models, optim, tree
from jaxvit.build import optimiser, parts
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.layers import to_pair
from jaxvit.runtime import sharding
from jaxvit.step import steps
from jaxvit.step.state import TrainState, create_state

EXAMPLE = '((2, "last_2_blocks"), (5, "none"))'


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a run in which the same parameters train on images of one size; most runs have one.

    Phases that differ only in the size share all but the steps.
    """

    epoch: int  # the first, counted from 0
    image_size: tuple[int, int]  # (h, w) of its training images
    trainable: Any
    train_steps: dict[bool, Callable]  # compiled: True with sharpness-aware gradients, where they are on, False without
    many_steps: dict[bool, Callable]  # the same, several at once, where the run takes several
    create: Callable  # variables -> its state at step 0
    template: Any  # of that state: shapes, types and places


def read_phases(freeze: str, unfreeze: Sequence[Any], num_epochs: int) -> list[tuple[int, str]]:
    """Returns (first epoch, counted from 0, what is frozen from there on) of each phase, from the config.

    Raises:
      UserError: an entry is not such a pair, or the epochs do not increase or are not reached.
    """
    phases = [(0, freeze)]
    for entry in unfreeze:
        pair: tuple[Any, ...] = tuple(entry) if isinstance(entry, list | tuple) else ()
        whole = len(pair) == 2 and isinstance(pair[0], int) and not isinstance(pair[0], bool)
        if not whole or not isinstance(pair[1], str):
            raise UserError(
                f"optim.unfreeze has {entry!r}; expected (epochs done, value of optim.freeze), such as {EXAMPLE}"
            )
        if pair[0] <= phases[-1][0]:
            raise UserError(f"optim.unfreeze: epoch {pair[0]} does not come after {phases[-1][0]}; expected {EXAMPLE}")
        if pair[0] >= num_epochs:
            raise UserError(f"optim.unfreeze: epoch {pair[0]} is never reached; num_epochs is {num_epochs}")
        phases.append((pair[0], pair[1]))
    return phases


def trainable_masks(config: Config, params: Any, phases: Sequence[tuple[int, str]]) -> list[Any]:
    """Returns what trains in each phase, trees of bools like the parameters (or their shapes).

    Raises:
      UserError: a phase trains nothing that the one before it did not, or freezes something again.
    """
    family = registry.registered_family(config.model.name)
    found = [optim.freeze_mask(params, freeze, family=family) for _, freeze in phases]
    for (epoch, freeze), before, after in zip(phases[1:], found, found[1:], strict=False):
        old, new = tree.named_leaves(before), tree.named_leaves(after)
        again = [path for path in old if old[path] and not new[path]]
        if again:
            raise UserError(f"optim.unfreeze: {freeze!r} of epoch {epoch} freezes {again[0]}, which was trained before")
        if old == new:
            raise UserError(f"optim.unfreeze: {freeze!r} of epoch {epoch} unfreezes nothing")
    return found


def check_names(config: Config, phases: Sequence[tuple[int, str]]) -> Any:
    """Returns the model of a config, read off its fields before data are; None where data or weights may decide on it.

    Raises UserError where it cannot be at the size that is set, or `optim.freeze` or `optim.unfreeze` fit no parameter.
    """
    if config.pretrained is not None and parts.pretrained_name(config.pretrained) is None:
        return None
    given = {"image_size": config.data.image_size} if config.data.image_size else {}
    frozen = any(freeze not in (None, "none") for _, freeze in phases)
    try:
        model: Any = models.create_model(config.model.name, **{**given, **parts.model_fields(config)})
        shapes = parts.variable_shapes(model, to_pair(model.image_size), model.in_channels) if frozen else None
    except UserError:
        if given or config.model.get("image_size"):
            raise
        return None
    if shapes is not None:
        trainable_masks(config, shapes["params"], phases)
    return model


def make_phases(
    config: Config,
    mesh: Mesh,
    *,
    phases: Sequence[tuple[int, str]],
    sizes: Sequence[tuple[int, tuple[int, int]]],
    variables: Any,
    model: Callable[[tuple[int, int]], Any],
    pixels: Callable[[tuple[int, int]], steps.Pixels],
    task: steps.Task,
    gradient: dict[bool, Callable],
    schedule: Callable[[Any], Any],
    many: bool,
    jit: Callable,
) -> tuple[Phase, ...]:
    """Returns the phases of `read_phases` and `train_sizes` with their steps; of `variables` only shapes are read.

    `model` and `pixels` are those for training images of a size (h, w).
    `many`: whether there are programs of several steps. `jit` compiles: `numbers.compiled` where `config` is one of
    `with_numbers`, else `jax.jit`.
    """
    mapped = config.parallel.mode == "pmap"
    batch_sharding = sharding.batch_sharding(mesh) if mesh.size > 1 else None

    def one_step(gradient: Callable, trainable: Any, tx: Any, size: tuple[int, int]) -> Callable:
        update = steps.Update(
            tx=tx, schedule=schedule, trainable=trainable, gradient=gradient, average=optimiser.make_average(config)
        )
        axis_name = sharding.MAPPED if mapped else None
        known = {"model": model(size), "pixels": pixels(size), "task": task}
        step = steps.make_train_step(**known, update=update, axis_name=axis_name)
        step = steps.skip_bad(step) if config.loss.on_nan == "skip" else step
        return sharding.map_over_devices(step, mesh) if mapped else step

    def make_part(trainable: Any) -> Callable[[int, tuple[int, int]], Phase]:
        tx = optimiser.make_optimizer(config, variables["params"], trainable, schedule)

        def create(variables: Any) -> TrainState:
            return create_state(variables, tx, trainable, jax.random.key(config.seed), ema=config.ema.decay > 0)

        shapes = jax.eval_shape(create, variables)
        places = sharding.state_shardings(shapes, mesh, rules)
        template = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, places)
        compiled = functools.partial(jit, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))

        @functools.cache  # a size that comes again is not compiled again
        def programs(size: tuple[int, int]) -> tuple[dict[bool, Callable], dict[bool, Callable]]:
            made = {sam: one_step(make, trainable, tx, size) for sam, make in gradient.items()}
            several = {sam: compiled(steps.make_many(step, batch_sharding)) for sam, step in made.items() if many}
            return {sam: compiled(step) for sam, step in made.items()}, several

        return lambda epoch, size: Phase(epoch, size, trainable, *programs(size), create, template)

    rules = registry.sharding_rules(tree.named_leaves(variables["params"]))
    trains = trainable_masks(config, variables["params"], phases)
    made = [(epoch, make_part(mask)) for (epoch, _), mask in zip(phases, trains, strict=True)]

    def at(epoch: int, entries: Sequence[tuple[int, Any]]) -> Any:
        return [value for first, value in entries if first <= epoch][-1]

    starts = sorted({epoch for epoch, _ in (*phases, *sizes)})
    return tuple(at(epoch, made)(epoch, at(epoch, sizes)) for epoch in starts)


def thawed(old: TrainState, fresh: TrainState) -> TrainState:
    """Returns `fresh`, the new phase's state at step 0 with the weights of `old`, at the place where `old` stands.

    The optimiser restarts, except for its position in the schedule; the averages of the weights continue.
    """
    ema = fresh.ema
    if ema:
        known = tree.named_leaves(old.ema["params"])
        ema = {
            "params": tree.map_with_path(lambda path, leaf: known.get(path, leaf), ema["params"]),
            "batch_stats": old.ema["batch_stats"],
        }
    opt_state = optim.at_step(fresh.opt_state, old.step)
    return fresh.replace(step=old.step, opt_state=opt_state, ema=ema, lr_scale=old.lr_scale, key=old.key)
