"""A run in progress: the objects of its blueprint, and the position of the process in it."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import data, optim
from jaxvit.build.batches import Batches
from jaxvit.build.blueprint import Blueprint
from jaxvit.build.phases import Phase, thawed
from jaxvit.runtime import compile_time, multihost, sharding
from jaxvit.runtime.console import detail, duration, err, working
from jaxvit.runtime.interrupt import nothing_to_save, something_to_save
from jaxvit.step.state import TrainState, ema_variables, model_variables
from jaxvit.train import multi_step
from jaxvit.train.decisions import Rules
from jaxvit.train.options import Options
from jaxvit.workdir.checkpoint import Checkpoints


@dataclasses.dataclass(kw_only=True)
class Run:
    """A blueprint with weights, data and checkpoints."""

    blueprint: Blueprint
    workdir: Path
    dataset: data.Dataset
    feeds: dict[str, Any]
    checkpoints: Checkpoints
    options: Options
    rules: Rules
    origin: dict[str, Any]  # SHA-256, licence and notes of the pretrained weights, or nothing
    teacher: Any = None  # variables of the teacher, where it answers inside the step
    flag: Any = None  # of `interrupt.deferred`, while it trains
    trackers: list[Any] = dataclasses.field(default_factory=list)  # TensorBoard and the like
    stop: multihost.Stop = dataclasses.field(default_factory=multihost.Stop)  # whether some process got a signal
    compiled: set[tuple[bool, int]] = dataclasses.field(default_factory=set)  # kinds and numbers of steps taken
    waited: float = 0.0  # seconds for the first step of each kind, which compiles
    begun: float = dataclasses.field(default_factory=compile_time.seconds)
    taken: bool = False  # whether this process has taken a step
    at: int = 0  # the phase under way
    lost: int = 0  # training images that could not be read, as reported
    pretrains: bool = False  # whether it is the first phase of a run, without labels
    safe: bool = False  # whether a state lies on the disk, from which the same command resumes
    saved: tuple[int, float] | None = None  # the newest state of this process: its step, and when it was saved

    @property
    def prefix(self) -> str:
        """Of the names of its metrics."""
        return "pretrain" if self.pretrains else "train"

    @property
    def what(self) -> str:
        """The word in front of what is said of it."""
        return "pretraining " if self.pretrains else ""

    @property
    def batches(self) -> Batches:
        """The batch plan."""
        return self.blueprint.batches

    @property
    def phase(self) -> Phase:
        """The phase under way."""
        return self.blueprint.phases[self.at]

    @property
    def compile_seconds(self) -> float:
        """Seconds that this run has compiled so far: all of its programs."""
        return compile_time.seconds() - self.begun

    def template_at(self, step: int) -> Any:
        """Goes to the phase in which step number `step` was taken; returns the template of its state."""
        self._go_to(max(step - 1, 0) // self.batches.steps_per_epoch)
        return self.phase.template

    def enter(self, epoch: int, state: TrainState) -> TrainState:
        """Returns the state that an epoch, counted from 0, begins with: more of it may train than before."""
        before = self.phase
        self._go_to(epoch)
        phase = self.phase
        if phase.image_size != before.image_size:
            err.print(f"epoch {epoch + 1}: training images of {phase.image_size[0]}x{phase.image_size[1]}")
        if phase.template is before.template:
            return state
        places = jax.tree.map(lambda x: x.sharding, phase.template)
        make = jax.jit(lambda old: thawed(old, phase.create(model_variables(old))), out_shardings=places)
        err.print(f"epoch {epoch + 1}: {optim.describe_trainable(state.params, phase.trainable)}")
        return jax.tree.map(jnp.copy, make(state))

    def _go_to(self, epoch: int) -> int:
        before, self.at = self.at, max(i for i, phase in enumerate(self.blueprint.phases) if phase.epoch <= epoch)
        if self.at != before:
            self.compiled = set()
        return self.at

    def order(self, epoch: int) -> np.ndarray:
        """The images of an epoch, int [steps * batch size], from (seed, epoch) alone: a resumed run sees the same."""
        options, batches = self.options, self.batches
        labels = self.dataset.train.strata
        order = data.epoch_order(
            options.seed, epoch, len(labels), repeats=options.repeats, labels=labels, sampling=options.sampling
        )
        return order[: batches.steps_per_epoch * batches.size]

    def batches_of(self, epoch: int, order: np.ndarray | None = None, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from its step `start` on; `order` is that of the epoch where None."""
        order = self.order(epoch) if order is None else order
        positions, size = np.arange(len(order)), self.batches.size
        if self.blueprint.mapped:
            order, positions = (sharding.dealt(x, size, self.blueprint.mesh) for x in (order, positions))
        draws = data.Draws(self.options.seed, epoch, positions)
        return self.feeds["train"].batches(order, size, start=start, draws=draws)

    def dispatches(self, order: np.ndarray, epoch: int, start: int) -> Iterator[tuple[int, Any]]:
        """Yields (number of steps, what `take_step` takes) for the rest of an epoch, from its step `start` on."""
        if self.batches.per_dispatch == 1:
            yield from ((1, batch) for batch in self.batches_of(epoch, order, start))
            return
        feed, size, first = self.feeds["train"], self.batches.size, epoch * self.batches.steps_per_epoch
        last, every = first + len(order) // size, self.options.saving.every_steps
        counts = multi_step.plan(first + start, last, self.batches.per_dispatch, every, self.blueprint.is_sharp)
        yield from multi_step.batches(feed, order, size, start, counts)

    def take_step(self, step: int, state: TrainState, batch: Any, count: int = 1) -> tuple[TrainState, dict[str, Any]]:
        """Takes step number `step`, or `count` steps from there, whose metrics are then arrays [count].

        The first of its kind waits for the compilation and adds to `waited`.
        """
        sharp = self.blueprint.is_sharp(step)
        if count == 1:
            program, read = self.phase.train_steps[sharp], (batch, self.teacher)
        else:
            program, read = self.phase.many_steps[sharp], (self.feeds["train"].arrays, batch, self.teacher)
        if (sharp, count) in self.compiled:
            # what a step reads lies on the device: a transfer that nobody asked for is an error
            with jax.profiler.StepTraceAnnotation("train", step_num=step), jax.transfer_guard("disallow"):
                return program(state, *read)
        begun = time.monotonic()
        if not self.taken:  # nothing has been done that is not on disk
            again = "resumes the run" if self.safe else "starts from the beginning"
            nothing_to_save(f"stopped while compiling; the same command {again}")
        with working("compiling the training step"):
            result = jax.block_until_ready(program(state, *read))
        self.taken = True
        if self.flag is not None:
            something_to_save()
        self.compiled.add((sharp, count))
        self.waited += (seconds := time.monotonic() - begun)
        detail(f"compiled the training step and took the first one: {duration(seconds)}")
        return result

    def is_save_due(self, step: int, epoch: int) -> bool:
        """Whether the end of `epoch`, of which more follow, is to save a state."""
        saving = self.options.saving
        if not saving.is_due(step, epoch):
            return False
        if self.saved is None or not saving.may_wait(step, self.saved[0]):
            return True
        at, least = self.saved[1], saving.min_seconds
        return multihost.by_main(lambda: time.monotonic() - at >= least and not self.checkpoints.is_saving("last"))

    def weights(self, state: TrainState) -> dict[str, Any]:
        """The variables to evaluate by the prefix of their metrics: the raw ones, and the average where it is on."""
        average = {"val_ema": ema_variables(state, self.phase.trainable)} if state.ema else {}
        return {"val": model_variables(state), **average}

    def final_weights(self, state: TrainState) -> Any:
        """The variables that a run ends with: the average where it is on."""
        return list(self.weights(state).values())[-1]
