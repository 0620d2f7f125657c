"""Everything of a run that follows from its config, facts of the data and the devices: from shapes, nothing allocated.

Training realises it (weights, data, checkpoints), `plan` compiles it for devices that this machine does not have, and
`bench` and the header print from it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from ml_collections import FrozenConfigDict

from jaxvit import config as config_lib
from jaxvit import optim
from jaxvit.build import batches, binary, class_balance, optimiser, parts, sizes
from jaxvit.build.batches import Batches
from jaxvit.build.facts import Facts
from jaxvit.build.phases import Phase, make_phases, read_phases
from jaxvit.build.resolve import complete
from jaxvit.build.teacher import Teacher, answers_in_step, answers_of_batch
from jaxvit.config.default import Config, default
from jaxvit.data.augment.compose import make_augment
from jaxvit.runtime import numbers, sharding
from jaxvit.step import distillation, losses, steps

DRY_RUN_STEPS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What a run is."""

    config: Config  # complete; cannot be written to
    words: Mapping[str, Any]  # the same as plain values, in the order of their declaration: what config.json holds
    facts: Facts
    mesh: Mesh
    batches: Batches
    resident: frozenset[str]  # the splits that are kept on the device
    cropped: bool  # whether training images are cut from photos, on the host
    sizes: tuple[tuple[int, tuple[int, int]], ...]  # (first epoch, (h, w)) of training images
    model: nn.Module
    variables: Any  # shapes
    pixels: steps.Pixels
    task: steps.Task
    schedule: Callable[[Any], Any]  # step -> learning rate
    phases: tuple[Phase, ...]
    eval_step: Callable  # compiled
    teacher: Teacher | None
    teacher_cached: bool  # whether the teacher answers once, and its answers come with the batches

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """What the model reads: (h, w, c)."""
        return (*self.config.data.image_size, self.config.model.in_channels)

    @property
    def placed(self) -> NamedSharding | None:
        """How a batch is split over the devices; None on a single one."""
        return sharding.batch_sharding(self.mesh) if self.mesh.size > 1 else None

    @property
    def mapped(self) -> bool:
        """Whether each device runs its own program."""
        return self.config.parallel.mode == "pmap"

    def is_sharp(self, step: int) -> bool:
        """Whether step number `step` is sharpness-aware: the key of a phase's steps."""
        kinds, sam = list(self.phases[0].train_steps), self.config.optim.sam
        if self.config.fast_dev_run:  # each kind once
            return kinds[step % len(kinds)]
        every, start = sam.every, sam.start_fraction
        return sam.rho > 0 and bool(optim.sam_active(step, self.batches.total_steps, every=every, start_fraction=start))

    @property
    def largest(self) -> Phase:
        """The phase with the largest images; of several the last, in which most of the model trains."""
        return max(self.phases, key=lambda phase: (math.prod(phase.image_size), phase.epoch))

    def batch(self, phase: Phase) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, types and places of what a training step of a phase reads in addition to the state."""
        n, split = self.batches.size, sharding.batch_sharding(self.mesh)
        size = phase.image_size if self.cropped else self.config.data.image_size
        stored = self.facts.shape or (*size, len(self.config.data.mean))
        label = ((self.facts.num_classes,), jnp.uint8) if self.facts.several else ((), jnp.int32)
        known = {"image": (stored, jnp.uint8), "label": label, "mask": ((), jnp.bool_)}
        if self.teacher_cached:
            known["teacher_logits"] = ((self.task.num_classes,), jnp.float32)
        return {name: jax.ShapeDtypeStruct((n, *shape), kind, sharding=split) for name, (shape, kind) in known.items()}

    def resident_bytes(self) -> int:
        """Bytes of the images that are kept on the device."""
        return sum(size for name, size in _bytes(self.config, self.facts).items() if name in self.resident)


def draw(
    given: Config,
    facts: Facts,
    *,
    devices: Sequence[Any] | None = None,
    teacher: Teacher | None = None,
    model: nn.Module | None = None,
    variables: Any = None,
    pieces: int | None = None,
    schedule: Callable[[Any], Any] | None = None,
    task: steps.Task | None = None,
) -> Blueprint:
    """Draws the blueprint of a run.

    Args:
      given: the config, as the user has it.
      facts: of its data.
      devices: those to plan for; None: those that are here.
      teacher: where the config names one and it is known; its weights may be shapes.
      model: the one that weights brought along; None: the config's.
      variables: theirs, of which shapes and types are read; None: those that the model would draw.
      pieces: parts to compute a batch in, in place of the config's.
      schedule: goes before the config's.
      task: goes before the config's, where `model` is another kind of model than a classifier.

    Raises:
      UserError: config, data and devices do not fit each other.
    """
    config = complete(given, facts)
    binary.check(config, facts)
    class_balance.check(config, facts)
    entries = read_phases(config.optim.freeze, config.optim.unfreeze, config.num_epochs)
    size, cut = batches.split_batch(config, facts.num_train)
    mesh = batches.make_mesh(config, size, pieces or cut, devices)
    by_size = sizes.train_sizes(config)
    steps_per_epoch, num_epochs = max(facts.num_train // size, 1), config.num_epochs
    if config.fast_dev_run:  # an epoch of each size
        steps_per_epoch, num_epochs = min(steps_per_epoch, DRY_RUN_STEPS), len(by_size)
        by_size = [(epoch, pixels) for epoch, (_, pixels) in enumerate(by_size)]
    with config.unlocked(), config.ignore_type():
        config.parallel.num_devices, config.num_epochs = mesh.size, num_epochs
        config.imports = parts.imports(config)
        if pieces is not None and pieces > 1:
            config.micro_batch = size // pieces

    # Numbers that shape nothing are arguments of the step. Where several processes train, or each device has a program
    # of its own, they are constants.
    mapped, alone = config.parallel.mode == "pmap", jax.process_count() == 1
    lifted = alone and not mapped
    asked = optimiser.with_numbers(config) if lifted else config
    optimiser.make_schedule(config, steps_per_epoch)  # says what cannot be in plain numbers
    schedule = schedule or optimiser.make_schedule(asked, steps_per_epoch)
    gradient = optimiser.make_gradient(asked, size // mesh.size if mapped else size, pieces)

    model = parts.make_model(config) if model is None else model
    if task is None:
        parts.record_fields(config, model)
    shapes = _shapes(config, model) if variables is None else jax.tree.map(_shape, variables)

    most, cropped = config.data.resident_mb * 2**20, facts.shape is None and parts.make_crop(config) is not None
    kept = {name for name, size in _bytes(config, facts).items() if size <= most}
    resident = frozenset(kept - {"train"} if cropped else kept)  # photos are cut anew in every epoch
    plain = config.augment.to_dict() == default().augment.to_dict()
    cached = teacher is not None and alone and plain and "train" in resident
    shown = {pixels for _, pixels in by_size} - {tuple(config.data.image_size)}
    sizes.check_model(model, shapes, sorted(shown), config.model.in_channels)
    task = task or _make_task(asked, facts, teacher, cached)
    image_shape = (*config.data.image_size, config.model.in_channels)
    per_dispatch = batches.steps_per_dispatch(
        config.steps_per_dispatch,
        steps_per_epoch,
        able="train" in resident and not mapped and not cached,
        dry_run=config.fast_dev_run,
        flops=lambda: batches.flops_per_step(model, image_shape, size, sharp=config.optim.sam.rho > 0),
    )
    held_out = [n for name, n in facts.sizes().items() if name != "train"] or [facts.num_train]
    split = sharding.batch_parts(mesh)
    eval_size = math.ceil(batches.eval_batch_size(config.data.image_size, size, max(held_out)) / split) * split
    place = sharding.replicated(mesh) if mesh.size > 1 else None
    jit = functools.partial(numbers.compiled, place=place) if lifted else jax.jit
    phases = make_phases(
        asked, mesh, phases=entries, sizes=by_size, variables=shapes,
        model=lambda size: sizes.at_any_size(model) if size in shown else model,
        pixels=functools.partial(_make_pixels, asked, cropped), task=task, gradient=gradient,
        schedule=schedule, many=per_dispatch > 1, jit=jit,
    )  # fmt: skip
    pixels = _make_pixels(asked, cropped, tuple(config.data.image_size))
    words = config_lib.to_dict(config)
    words["data"]["rescan"] = False  # was asked of this start, and is not a property of the run
    return Blueprint(
        config=FrozenConfigDict(config),
        words=words,
        facts=facts,
        mesh=mesh,
        batches=Batches(size, eval_size, steps_per_epoch, num_epochs, per_dispatch),
        resident=resident,
        cropped=cropped,
        sizes=tuple(by_size),
        model=model,
        variables=shapes,
        pixels=pixels,
        task=task,
        schedule=schedule,
        phases=phases,
        eval_step=jax.jit(steps.make_eval_step(model=model, pixels=pixels), out_shardings=sharding.replicated(mesh)),
        teacher=teacher,
        teacher_cached=cached,
    )


def _make_pixels(config: Config, cropped: bool, size: tuple[int, int]) -> steps.Pixels:
    d, options = config.data, config.augment.to_dict()
    smaller = size if size != tuple(d.image_size) else None
    if cropped:  # on the host
        options |= {"random_resized_crop": None, "train_crop_mode": None}
    return steps.Pixels(
        to_float=parts.make_to_float(config.model.in_channels),
        normalise=parts.make_normalise(size, d.interpolation, d.mean, d.std),
        augment=make_augment(options, smaller, d.interpolation),
    )


def _make_task(config: Config, facts: Facts, teacher: Teacher | None, cached: bool) -> steps.Task:
    known = {"num_classes": config.model.num_classes, "label_smoothing": config.loss.label_smoothing}
    weights, log_prior = class_balance.class_weights(config, facts), class_balance.log_prior(config, facts)
    options = {**config.loss.to_dict(), "pos_weight": binary.pos_weight(config, facts)}
    loss = losses.make_loss(options, weights, log_prior)
    known["several"] = facts.several
    if teacher is None:
        return steps.Task(**known, objective=losses.make_objective(loss))
    d = config.distill
    return steps.Task(
        **known,
        objective=distillation.make_objective(d.mode, alpha=d.alpha, temperature=d.temperature, loss=loss),
        teacher_inputs=answers_of_batch if cached else answers_in_step(teacher),
    )


def _bytes(config: Config, facts: Facts) -> dict[str, int]:
    """Bytes of the images of each split, uint8."""
    stored = facts.shape or (*config.data.image_size, len(config.data.mean))
    return {name: size * math.prod(stored) for name, size in facts.sizes().items()}


def _shapes(config: Config, model: nn.Module) -> Any:
    shapes = parts.variable_shapes(model, config.data.image_size, config.model.in_channels)
    if config.dtype == "float64":
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float64), shapes)
    return shapes


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
