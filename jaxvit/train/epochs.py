"""The epochs of a run or of its pretraining: steps, evaluation, what is saved, and how it resumes."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvit.build.blueprint import Blueprint
from jaxvit.runtime import multihost, sharding
from jaxvit.runtime.console import bar, err, warn
from jaxvit.runtime.interrupt import Interrupted, Starved
from jaxvit.runtime.late import Late
from jaxvit.step.state import TrainState
from jaxvit.train import handed, summary
from jaxvit.train.finish import pass_over
from jaxvit.train.progress import Diverged, Progress
from jaxvit.train.run import Run
from jaxvit.workdir import resume, run_files
from jaxvit.workdir.checkpoint import Checkpoints

STEP_SCALARS = {"loss": "batch_loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
MAX_SKIPPED = 10  # steps in a row
MAX_ROLLBACKS = 5


def check_data(run: Run, name: str, force: bool) -> None:
    """Raises UserError where the data `name` are not those of the newest state."""
    before = (run.checkpoints.meta("last") or {}).get("data")
    if before:
        resume.check_data(run.workdir, name, before, run.dataset.fingerprint(), force)


def check_fits(blueprint: Blueprint, directory: Path) -> None:
    """Raises UserError where the newest state in `directory` is of another model than the blueprint's.

    Called before anything of the run is written: a config that cannot be continued would spoil what is there.
    """
    if not (directory / "last").is_dir():
        return
    checkpoints = Checkpoints(directory, read_only=True)
    try:
        for step in checkpoints.steps("last")[-1:]:
            epoch = max(step - 1, 0) // blueprint.batches.steps_per_epoch
            phase = [phase for phase in blueprint.phases if phase.epoch <= epoch][-1]
            checkpoints.check_fits("last", step, phase.template)
    finally:
        checkpoints.close()


def resumed(run: Run, state: TrainState) -> tuple[TrainState, Progress]:
    """The newest intact checkpoint, or the beginning; what is damaged is named."""
    progress = Progress()
    begun = multihost.by_main(lambda: resume.has_begun(run.workdir, run.checkpoints.directory))
    lines = multihost.by_main(lambda: resume.lines_of_metrics(run.workdir))
    if run.checkpoints.steps("last"):
        template = run.template_at(run.checkpoints.steps("last")[-1])
        state, meta = run.checkpoints.restore("last", template)
        progress, run.saved, run.safe = Progress(**meta), (int(state.step), time.monotonic()), True
        err.print(f"{run.what}resumed at step {int(state.step)} (epoch {progress.epoch + 1})")
    elif begun:
        warn("no usable checkpoint was found; the run starts from the beginning")
    elif lines:
        ended = (
            f"a run in this workdir ended before its first checkpoint; its {lines} lines of metrics.jsonl are dropped"
        )
        warn(f"{ended} and the run starts from the beginning")
    progress.data = run.dataset.fingerprint()
    run.checkpoints.delete_after("best", int(state.step))
    if progress.best and progress.best["step"] not in run.checkpoints.steps("best"):
        warn(f"the best checkpoint so far, of step {progress.best['step']}, is lost; the next best is used")
        progress.best = run.checkpoints.meta("best")
    return state, progress


def fit(
    run: Run,
    state: TrainState,
    progress: Progress,
    on_evaluation: Callable[[int, dict[str, float]], None] | None = None,
    callbacks: Sequence[handed.Callback] = (),
) -> tuple[TrainState, Progress]:
    """Runs the remaining epochs; returns to the last checkpoint if the loss diverges and the config says so."""
    rolls_back = run.options.on_nan == "rollback"
    if rolls_back and not run.checkpoints.steps("last"):
        run.checkpoints.save("last", int(state.step), state, dataclasses.asdict(progress))
    while True:
        try:
            return _run_epochs(run, state, progress, on_evaluation, callbacks), progress
        except Diverged as error:
            if not rolls_back or progress.rollbacks >= MAX_ROLLBACKS:
                raise
            warn(f"{error}; returning to it")
            state, progress = _roll_back(run, state, progress)


def _run_epochs(
    run: Run, state: TrainState, progress: Progress, on_evaluation: Any, callbacks: Sequence[handed.Callback]
) -> TrainState:
    """Trains and evaluates epoch by epoch, until the last one or until early stopping ends it."""
    make = run_files.MetricsWriter if multihost.is_main() else run_files.NoWriter
    writer = make(run.workdir, log=progress.log, trackers=run.trackers)
    try:
        while progress.epoch < run.batches.num_epochs and not progress.stopped_early:
            state = run.enter(progress.epoch, state)
            state = _train_epoch(run, state, progress, writer)
            found = _evaluate(run, state, progress, writer)
            state, decisive, metrics = _end_epoch(run, state, progress, writer, found)
            if decisive and on_evaluation is not None:
                on_evaluation(progress.epoch, decisive)
            if handed.asked_to_stop(callbacks, progress.epoch, metrics):
                progress.stopped_early = True
                _save(run, state, progress, writer, renew=True)
        return state
    finally:
        writer.close()


def _roll_back(run: Run, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """Returns the last checkpoint, to continue with half the learning rate and other random draws."""
    run.checkpoints.wait()
    steps = run.checkpoints.steps("last")
    state, meta = run.checkpoints.restore("last", run.template_at(steps[-1]))
    before, progress = progress, Progress(**meta)
    progress.rollbacks = before.rollbacks + 1
    key = jax.random.fold_in(jax.random.key(run.options.seed), progress.rollbacks)
    key = sharding.put(jax.random.key_data(key), state.key.sharding)
    run.checkpoints.delete_after("best", int(state.step))
    return _scaled(run, state.replace(key=key), progress), progress


def _scaled(run: Run, state: TrainState, progress: Progress) -> TrainState:
    """The state with the multiplier on the learning rate that the run's history asks for."""
    scale = run.rules.lr_scale(progress.rules) * 0.5**progress.rollbacks
    return state.replace(lr_scale=sharding.put(np.float32(scale), state.lr_scale.sharding))


def _train_epoch(run: Run, state: TrainState, progress: Progress, writer: Any) -> TrainState:
    """Takes the steps of an epoch that are left; saves the state where that is due or a signal came."""
    batches, saving = run.batches, run.options.saving
    order, first, done = run.order(progress.epoch), progress.epoch * batches.steps_per_epoch, progress.epoch_step
    begun, before, late, waits = time.monotonic(), progress.seconds, Late(), [0.0]
    epochs = batches.num_epochs
    title, after = f"{run.what}epoch {progress.epoch + 1}/{epochs}", len(order) * (epochs - progress.epoch - 1)
    with bar(title, len(order), step=batches.size, after=after) as meter:
        try:
            for count, batch in _clocked(run.dispatches(order, progress.epoch, done), waits):
                waited = run.waited
                state, found = run.take_step(first + done, state, batch, count)
                run.checkpoints.check()
                done += count
                compiling = run.waited - waited
                if compiling:  # does not count as training time
                    begun += compiling
                    meter.leave_out(compiling, count * batches.size)
                _count(run, progress, writer, meter, late.put(found))
                progress.seconds = before + time.monotonic() - begun
                signum = run.stop(run.flag.signum)
                if signum is not None or (saving.is_due_within(first + done) and done < batches.steps_per_epoch):
                    _count(run, progress, writer, meter, late.rest())
                    _save(run, state, progress, writer)
                if signum is not None:
                    run.checkpoints.wait()
                    raise Interrupted(signum, f"{run.what}stopped at step {first + done}; the same command resumes it")
        except Starved as stop:
            _count(run, progress, writer, meter, late.rest())
            _save(run, state, progress, writer)
            run.checkpoints.wait()
            where = f"{run.what}stopped at step {first + done}, while waiting for images; the same command resumes it"
            raise Interrupted(stop.exit_code - 128, where) from None
        _count(run, progress, writer, meter, late.rest())
    progress.seconds = before + time.monotonic() - begun
    if progress.epoch == 0 and run.feeds["train"].kind == "streamed":
        summary.print_wait(run, waits[0] / max(time.monotonic() - begun, 1e-9))
    return state


def _clocked(items: Iterator[Any], waits: list[float]) -> Iterator[Any]:
    """The items; adds the seconds that were waited for them to `waits[0]`, except for the first."""
    for i in itertools.count():
        begun = time.monotonic()
        item = next(items, None)
        if item is None:
            return
        waits[0] += time.monotonic() - begun if i else 0.0
        yield item


def _count(run: Run, progress: Progress, writer: Any, meter: Any, found: Sequence[dict[str, Any]]) -> None:
    """Counts the metrics of dispatches, scalars or [steps] each; raises Diverged where they say so."""
    for metrics in found:
        of_each = {name: np.atleast_1d(values).tolist() for name, values in metrics.items()}
        for step_metrics in (dict(zip(of_each, values, strict=True)) for values in zip(*of_each.values(), strict=True)):
            _count_step(run, progress, writer, meter, step_metrics)


def _count_step(run: Run, progress: Progress, writer: Any, meter: Any, step_metrics: dict[str, float]) -> None:
    per_epoch, every = run.batches.steps_per_epoch, run.options.log_every_steps
    progress.epoch_step += 1
    step = progress.epoch * per_epoch + progress.epoch_step
    if not (math.isfinite(step_metrics["loss"]) and math.isfinite(step_metrics["grad_norm"])):
        _not_finite(run, progress, step, step_metrics)
        return
    progress.count(step_metrics)
    if step % every == 0 and per_epoch > every:
        scalars = {f"{run.prefix}/{STEP_SCALARS[k]}": v for k, v in step_metrics.items() if k in STEP_SCALARS}
        writer.write(step, scalars, epoch=progress.epoch + 1)
    hit, means = run.blueprint.task.hit, {name: total / progress.counted for name, total in progress.sums.items()}
    shown = f"  {hit.replace('_', ' ')} {means[hit]:.1%}" if hit else ""
    meter.advance(run.batches.size, f"loss {means['loss']:.3f}{shown}")


def _not_finite(run: Run, progress: Progress, step: int, step_metrics: dict[str, float]) -> None:
    """Counts a skipped step; raises Diverged where steps are not skipped, or too many were."""
    progress.skipped, progress.skipped_in_row = progress.skipped + 1, progress.skipped_in_row + 1
    if run.options.on_nan == "skip" and progress.skipped_in_row <= MAX_SKIPPED:
        warn(f"step {step} skipped: loss {step_metrics['loss']}, gradient norm {step_metrics['grad_norm']}")
        return
    raise Diverged(
        f"loss is {step_metrics['loss']} at step {step} (learning rate {step_metrics['learning_rate']:.3g}, "
        f"gradient norm {step_metrics['grad_norm']:.3g}); last checkpoint: {_last_checkpoint(run)}"
    )


def _evaluate(run: Run, state: TrainState, progress: Progress, writer: Any) -> dict[str, dict[str, float]]:
    """The validation metrics after an epoch by their prefix, of raw and of averaged weights; {} where none are due."""
    epoch = progress.epoch + 1
    if "val" not in run.feeds or (epoch % run.options.eval_every_epochs and epoch != run.batches.num_epochs):
        return {}
    try:
        return {prefix: pass_over(run, variables, "val")[0] for prefix, variables in run.weights(state).items()}
    except Interrupted:  # the evaluation is begun anew
        _save(run, state, progress, writer)
        run.checkpoints.wait()
        raise


def _end_epoch(
    run: Run, state: TrainState, progress: Progress, writer: Any, found: dict[str, dict[str, float]]
) -> tuple[TrainState, dict[str, float], dict[str, float]]:
    """Applies the rules to what an evaluation has found, saves the best, and the state when due.

    Returns the state, the metrics that decide, if any, and those of the epoch.
    """
    step, train, decisive = int(state.step), progress.means(run.prefix), {}
    val = {f"{prefix}/{name}": value for prefix, metrics in found.items() for name, value in metrics.items()}
    better = "val" not in run.feeds and not run.pretrains  # without validation the last checkpoint is the one to use
    chosen = list(run.weights(state))[-1]  # and the average, where it is on
    progress.end_epoch()
    if found:
        chosen = run.rules.choose(found)
        decisive = found[chosen]
        if math.isnan(decisive["loss"]):  # of weights that the last step broke: no step after it has told
            raise Diverged(f"validation loss is nan after step {step}; last checkpoint: {_last_checkpoint(run)}")
        better = run.rules.better(decisive, progress.best and summary.decisive(progress.best))
        progress.rules = run.rules.update(progress.rules, decisive)
        progress.stopped_early = run.rules.stops(progress.rules)
        state = _scaled(run, state, progress)
    if better:
        kind = {"weights": summary.WEIGHTS[chosen]} if state.ema else {}
        progress.best = {"step": step, "epoch": progress.epoch, **train, **val, **kind}
        run.checkpoints.save("best", step, run.weights(state)[chosen], progress.best)
    writer.write(step, {**train, **val}, epoch=progress.epoch)
    summary.print_epoch(run, progress, train, found, better)
    ended = progress.epoch == run.batches.num_epochs or progress.stopped_early
    if ended or run.is_save_due(step, progress.epoch):
        _save(run, state, progress, writer, renew=True)
    return state, decisive, {**train, **val}


def _save(run: Run, state: TrainState, progress: Progress, writer: Any, *, renew: bool = False) -> None:
    """Saves the state to resume from; `renew` replaces one that was saved before the evaluation."""
    progress.log = writer.log
    run.saved = int(state.step), time.monotonic()
    run.checkpoints.save("last", int(state.step), state, dataclasses.asdict(progress), renew=renew)


def _last_checkpoint(run: Run) -> str:
    there = run.checkpoints.steps("last")
    return f"step {there[-1]} in {run.checkpoints.directory}" if there else "none"
