"""The parts of a run, built from its config: data, model, optimiser, compiled steps, checkpoints."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvit import data, models, optim, pretrained
from jaxvit.build import parts, recipe
from jaxvit.build.phases import read_phases, thawed, trainable_masks
from jaxvit.config.default import Config, default
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import compile_time, multihost, numbers, sharding
from jaxvit.runtime.console import err
from jaxvit.runtime.interrupt import nothing_to_save, something_to_save
from jaxvit.runtime.paths import expand
from jaxvit.step import steps
from jaxvit.step.state import TrainState, ema_variables, init_variables, model_variables
from jaxvit.train import distill, micro_batch, multi_step
from jaxvit.train.decisions import Rules, make_rules
from jaxvit.workdir import resume
from jaxvit.workdir.checkpoint import Checkpoints

DRY_RUN_STEPS = 2


@dataclasses.dataclass
class Run:
    """Everything of a run that does not change while it goes on, or only between two phases."""

    config: Config  # resolved
    workdir: Path
    dataset: data.Dataset
    model: Any
    feeds: dict[str, Any]
    phases: list[recipe.Phase]
    eval_step: Callable
    checkpoints: Checkpoints
    batch_size: int
    eval_batch_size: int
    steps_per_epoch: int
    rules: Rules
    steps_per_dispatch: int
    origin: dict[str, Any]  # SHA-256, licence and notes of the pretrained weights, or nothing
    arrange: Callable[[np.ndarray], np.ndarray] = lambda order: order  # of an epoch, to what the devices read
    teacher: Any = None  # variables of the teacher, where it answers inside the step
    flag: Any = None  # of `interrupt.deferred`, while it trains
    trackers: list[Any] = dataclasses.field(default_factory=list)  # TensorBoard and the like
    stop: multihost.Stop = dataclasses.field(default_factory=multihost.Stop)  # whether some process got a signal
    compiled: set[tuple[bool, int]] = dataclasses.field(default_factory=set)  # kinds and numbers of steps taken
    waited: float = 0.0  # seconds for the first step of each kind, which compiles
    begun: float = dataclasses.field(default_factory=compile_time.seconds)
    taken: bool = False  # whether this process has taken a step
    phase: int = 0  # the one under way
    lost: int = 0  # training images that could not be read, as reported
    saved: tuple[int, float] | None = None  # the newest state of this process: its step, and when it was saved

    @property
    def compile_seconds(self) -> float:
        """Seconds that this run has compiled so far: all of its programs."""
        return compile_time.seconds() - self.begun

    @property
    def trainable(self) -> Any:
        """What trains now: a tree of bools like the parameters."""
        return self.phases[self.phase].trainable

    @property
    def train_steps(self) -> dict[bool, Callable]:
        """The compiled steps of now."""
        return self.phases[self.phase].train_steps

    @property
    def many_steps(self) -> dict[bool, Callable]:
        """The same, `steps_per_dispatch` at once."""
        return self.phases[self.phase].many_steps

    def template_at(self, step: int) -> Any:
        """Goes to the phase in which step number `step` was taken; returns the template of its state."""
        self._go_to(max(step - 1, 0) // self.steps_per_epoch)
        return self.phases[self.phase].template

    def enter(self, epoch: int, state: TrainState) -> TrainState:
        """Returns the state that an epoch, counted from 0, begins with: more of it may train than before."""
        before = self.phase
        if self._go_to(epoch) == before:
            return state
        phase = self.phases[self.phase]
        places = jax.tree.map(lambda x: x.sharding, phase.template)
        make = jax.jit(lambda old: thawed(old, phase.create(model_variables(old))), out_shardings=places)
        err.print(f"epoch {epoch + 1}: {optim.describe_trainable(state.params, phase.trainable)}")
        return jax.tree.map(jnp.copy, make(state))

    def _go_to(self, epoch: int) -> int:
        before, self.phase = self.phase, max(i for i, phase in enumerate(self.phases) if phase.epoch <= epoch)
        if self.phase != before:
            self.compiled = set()
        return self.phase

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.config.num_epochs

    def kind_at(self, step: int) -> bool:
        """Whether step number `step` is sharpness-aware: the key of `train_steps`."""
        sam = self.config.optim.sam
        if self.config.fast_dev_run:  # each kind once
            return list(self.train_steps)[step % len(self.train_steps)]
        active = optim.sam_active(step, self.total_steps, every=sam.every, start_fraction=sam.start_fraction)
        return sam.rho > 0 and bool(active)

    def dispatches(self, order: np.ndarray, epoch: int, start: int) -> Iterator[tuple[int, Any]]:
        """Yields (number of steps, what `take_step` takes) for the rest of an epoch, from its step `start` on."""
        feed, first = self.feeds["train"], epoch * self.steps_per_epoch
        if self.steps_per_dispatch == 1:
            yield from ((1, batch) for batch in feed.batches(self.arrange(order), self.batch_size, start=start))
            return
        last = first + len(order) // self.batch_size
        every = self.config.checkpoint.every_steps
        counts = multi_step.plan(first + start, last, self.steps_per_dispatch, every, self.kind_at)
        yield from multi_step.batches(feed, self.arrange(order), self.batch_size, start, counts)

    def take_step(self, step: int, state: TrainState, batch: Any, count: int = 1) -> tuple[TrainState, dict[str, Any]]:
        """Takes step number `step`, or `count` steps from there, whose metrics are then arrays [count].

        The first of its kind waits for the compilation and adds to `waited`.
        """
        kind = self.kind_at(step)

        def take() -> tuple[TrainState, dict[str, Any]]:
            if count == 1:
                return self.train_steps[kind](state, batch, self.teacher)
            return self.many_steps[kind](state, self.feeds["train"].arrays, batch, self.teacher)

        if (kind, count) in self.compiled:
            return take()
        begun = time.monotonic()
        if not self.taken:  # nothing has been done that is not on disk
            nothing_to_save("stopped while compiling; the same command begins there")
        with err.status("compiling the training step"):
            result = jax.block_until_ready(take())
        self.taken = True
        if self.flag is not None:
            something_to_save()
        self.compiled.add((kind, count))
        self.waited += time.monotonic() - begun
        return result

    def is_save_due(self, step: int, epoch: int) -> bool:
        """Whether the end of `epoch`, of which more follow, is to save a state.

        A rollback must find the same state whatever the clock says, and a state that stays is the first after a
        multiple of `keep_every_steps`: there min_seconds does not count.
        """
        words = self.config.checkpoint
        if words.every_steps and step % words.every_steps == 0:
            return True
        if epoch % words.every_epochs:
            return False
        if self.saved is None or not words.min_seconds or self.config.loss.on_nan == "rollback":
            return True
        before, at = self.saved
        if words.keep_every_steps and before // words.keep_every_steps != step // words.keep_every_steps:
            return True
        late = lambda: time.monotonic() - at >= words.min_seconds and not self.checkpoints.is_saving("last")  # noqa: E731
        return multihost.by_main(late)

    def weights(self, state: TrainState) -> dict[str, Any]:
        """The variables to evaluate by the prefix of their metrics: the raw ones, and the average where it is on."""
        average = {"val_ema": ema_variables(state, self.trainable)} if state.ema else {}
        return {"val": model_variables(state), **average}

    def final_weights(self, state: TrainState) -> Any:
        """The variables that a run ends with: the average where it is on."""
        return list(self.weights(state).values())[-1]


def prepare(given: Config, workdir: Path, *, schedule: Callable[[Any], Any] | None = None) -> tuple[Run, TrainState]:
    """Builds all parts of a run and its state at step 0; `schedule` goes before the config's."""
    begun = compile_time.seconds()
    if given.dtype == "float64" and jnp.result_type(float) != jnp.float64:
        raise UserError("dtype=float64 needs jax.config.update('jax_enable_x64', True), as the command line does")
    rules = make_rules(given.early_stopping, given.optim.schedule)
    phases = read_phases(given.optim.freeze, given.optim.unfreeze, given.num_epochs)
    recipe.check(given)
    recipe.check_names(given, phases)
    _check_sources(given)
    skipped_file = workdir / "skipped_files.txt" if multihost.is_main() else None
    dataset = parts.load_data(given, skipped_file, multihost.by_main(lambda: resume.class_names(workdir)))
    config = parts.resolve(given, dataset)
    _check_data(config, dataset)
    teacher = _load_teacher(config, dataset)
    batch_size, pieces = recipe.split_batch(config, len(dataset.train))
    mesh = make_mesh(config, batch_size, pieces)
    placed = sharding.batch_sharding(mesh) if mesh.size > 1 else None
    whole = sharding.replicated(mesh)
    mapped = config.parallel.mode == "pmap"

    steps_per_epoch = len(dataset.train) // batch_size
    if config.fast_dev_run:
        steps_per_epoch, config.num_epochs = min(steps_per_epoch, DRY_RUN_STEPS), 1
    recipe.make_schedule(config, steps_per_epoch)
    # Numbers that shape nothing are arguments of the step. Where several processes train, or each device has a program
    # of its own, they are constants.
    lifted = jax.process_count() == 1 and not mapped
    asked = recipe.with_numbers(config) if lifted else config
    schedule = schedule or recipe.make_schedule(asked, steps_per_epoch)
    gradient = recipe.make_gradient(asked, batch_size // mesh.size if mapped else batch_size)
    if config.pretrained is None:  # what names and shapes can tell is checked before anything is compiled
        shapes = parameter_shapes(config)
        recipe.make_optimizer(config, shapes, trainable_masks(shapes, phases)[0], schedule)
    model, variables, origin = _make_model(config)
    if config.dtype == "float64":
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    parts.record_fields(config, model)
    pixels = recipe.make_pixels(asked)
    feeds = {
        split.name: parts.make_feed(config, split, placed)
        for split in (dataset.train, dataset.val, dataset.test)
        if len(split)
    }
    taught, teacher_variables = _teach(asked, teacher, feeds, pixels.to_float)

    variables = jax.device_get(variables)
    several = multi_step.steps_per_dispatch(config, feeds["train"], steps_per_epoch)
    make_phases = functools.partial(
        recipe.make_phases, asked, mesh, phases, variables,
        model=model, pixels=pixels, task=recipe.make_task(asked, **taught), schedule=schedule,
        jit=numbers.compiled if lifted else jax.jit,
        many=functools.partial(multi_step.make_many, sharding=placed) if several > 1 else None,
    )  # fmt: skip

    made: dict[int, list[recipe.Phase]] = {}

    def largest(pieces: int) -> tuple[Callable, tuple[Any, ...]]:
        """A program that will run, so that it is not compiled for the plan alone: of the phase in which most trains."""
        made[pieces] = make_phases(gradient=recipe.make_gradient(asked, batch_size, pieces))
        phase, feed = made[pieces][-1], feeds["train"]
        if several > 1:
            slots = feed.place(np.zeros((several, batch_size), np.int32))
            return next(iter(phase.many_steps.values())), (phase.template, feed.arrays, slots, teacher_variables)
        batch = next(iter(feed.batches(np.arange(batch_size), batch_size)))
        return next(iter(phase.train_steps.values())), (phase.template, batch, teacher_variables)

    split = sharding.batch_parts(mesh)
    pieces = micro_batch.fit(config, batch_size, split, variables.get("batch_stats"), largest)
    if pieces > 1:
        config.micro_batch = batch_size // pieces
    found = made.get(pieces) or make_phases(gradient=gradient)
    places = jax.tree.map(lambda x: x.sharding, found[0].template)
    # each leaf a buffer of its own
    state = jax.tree.map(jnp.copy, jax.jit(found[0].create, out_shardings=places)(variables))
    run = Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        model=model,
        feeds=feeds,
        phases=found,
        steps_per_dispatch=several,
        eval_step=jax.jit(steps.make_eval_step(model=model, pixels=pixels), out_shardings=whole),
        checkpoints=Checkpoints(
            workdir / "checkpoints",
            keep={"last": config.checkpoint.keep_last, "best": config.checkpoint.keep_best},
            keep_every_steps=config.checkpoint.keep_every_steps,
        ),
        batch_size=batch_size,
        eval_batch_size=math.ceil(multi_step.eval_batch_size(config, batch_size, feeds) / split) * split,
        steps_per_epoch=steps_per_epoch,
        rules=rules,
        begun=begun,
        origin=origin,
        teacher=None if teacher_variables is None else sharding.put(teacher_variables, whole),
        arrange=(lambda order: sharding.dealt(order, batch_size, mesh)) if mapped else (lambda order: order),
    )
    return run, state


def _check_sources(config: Config) -> None:
    """Raises UserError where the weights that the config names are not there, before data are read for them."""

    def absent(value: str) -> bool:
        return parts.pretrained_name(value) is None and not expand(value).exists()

    start, teacher = config.pretrained, config.distill.teacher
    if start is not None and absent(start):
        near = suggest(start, models.list_models(pretrained=True))
        raise UserError(f"pretrained is {start!r}; expected a file or directory that is there, or a timm name.{near}")
    if start is not None and parts.pretrained_name(start) is not None:
        models.data_config(start)  # refuses a tag that the model has not
    if teacher is not None:
        given = {k: v for k, v in config.model.items() if k != "name" and v is not None}
        fields = {**models.model_fields(config.model.name), **given}
        distill.check_student(config.distill.mode, fields, config.model.name)
    if teacher is not None and absent(teacher):
        raise UserError(f"distill.teacher {teacher!r} is no run's workdir, no weight file and no model of `models`")
    if config.distill.model is not None:
        models.model_fields(config.distill.model)


def _check_data(config: Config, dataset: data.Dataset) -> None:
    """Raises UserError where the config asks for what the data set does not have."""
    if not len(dataset.train):
        raise UserError(f"{config.data.name} has no training images")
    if not len(dataset.test):
        raise UserError(
            f"{config.data.name}: {len(dataset.train)} images in as many classes leave none to test on; "
            "expected more of a class."
        )
    needs = {
        "optim.schedule.name=plateau": config.optim.schedule.name == "plateau",
        "early_stopping.patience": config.early_stopping.patience is not None,
    }
    for word, on in needs.items():
        if on and not len(dataset.val):
            raise UserError(f"{word} needs validation images; {config.data.name} has none, set data.val_fraction")


def parameter_shapes(config: Config) -> Any:
    """The parameters of the model that the config names, as shapes."""
    images = jax.ShapeDtypeStruct((1, *config.data.image_size, config.model.in_channels), jnp.float32)
    return jax.eval_shape(parts.make_model(config).init, jax.random.key(0), images)["params"]


def _load_teacher(config: Config, dataset: data.Dataset) -> distill.Teacher | None:
    """The teacher, where there is one; the student's model gets the fields that its mode needs."""
    words = config.distill
    if words.teacher is None:
        return None
    fields = {**models.model_fields(config.model.name), **parts.model_fields(config)}
    with config.unlocked():
        config.model.update(distill.check_student(words.mode, fields, config.model.name))
    return distill.load_teacher(words.teacher, words.model, list(dataset.class_names))


def _teach(
    config: Config, teacher: distill.Teacher | None, feeds: dict[str, Any], to_float: Callable
) -> tuple[dict[str, Any], Any]:
    """(words of make_train_step, teacher's variables for the step); a cached teacher's answers go into the feed."""
    if teacher is None:
        return {}, None
    words = config.distill
    objective = distill.make_objective(words.mode, alpha=words.alpha, temperature=words.temperature)
    cached = jax.process_count() == 1 and feeds["train"].kind == "resident"
    cached = cached and config.augment.to_dict() == default().augment.to_dict()
    err.print(f"teacher {distill.describe(teacher, cached)}")
    if cached:
        feeds["train"] = distill.teach(feeds["train"], teacher, to_float)
        return {"objective": objective, "teacher_inputs": distill.answers_of_batch}, None
    teacher_inputs = distill.answers_in_step(teacher)
    return {"objective": objective, "teacher_inputs": teacher_inputs}, teacher.classifier.variables


def _make_model(config: Config) -> tuple[Any, Any, dict[str, Any]]:
    """(model, variables, where they came from)"""
    if config.pretrained is None:
        model = parts.make_model(config)
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        return model, init_variables(model, key, (*config.data.image_size, config.model.in_channels)), {}
    is_path = parts.pretrained_name(config.pretrained) is None
    name, checkpoint = (config.model.name, config.pretrained) if is_path else (config.pretrained, None)
    loaded = pretrained.load(name, checkpoint, seed=config.seed, **parts.model_fields(config))
    record = {"sha256": loaded.checkpoint.sha256, "licence": loaded.licence, "notes": list(loaded.notes)}
    return loaded.model, loaded.variables, record


def make_mesh(config: Config, batch_size: int, pieces: int, devices: Sequence[Any] | None = None) -> Mesh:
    """The devices: the config's, or as many as the batch divides over; writes their number into the config."""
    p = config.parallel
    if p.mode == "pmap":  # each device cuts its own part of the batch
        pieces = math.lcm(recipe.num_parts(config), (config.optim.sam.rho and config.optim.sam.m) or 1)
    available = jax.device_count() if devices is None else len(devices)
    if p.num_devices is None and (devices is not None or jax.process_count() == 1):
        p.num_devices = sharding.most_devices(batch_size // pieces, available, fsdp=p.fsdp, tensor=p.tensor)
    mesh = sharding.make_mesh(p.num_devices, fsdp=p.fsdp, tensor=p.tensor, devices=devices)
    p.num_devices = mesh.size
    sharding.check_batch_size(batch_size, pieces, mesh)
    return mesh
