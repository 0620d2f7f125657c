"""`train_and_evaluate(config, workdir)`: the function that conducts a run."""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvit.build import checks
from jaxvit.config.default import Config
from jaxvit.data import Dataset
from jaxvit.runtime import determinism, interrupt, multihost, sharding, streams
from jaxvit.runtime.console import bar, err
from jaxvit.runtime.interrupt import Interrupted, deferred
from jaxvit.runtime.late import Late
from jaxvit.runtime.paths import expand
from jaxvit.step.multi_label import USUAL
from jaxvit.step.state import TrainState
from jaxvit.train import handed, lr_find, micro_batch, summary
from jaxvit.train.finish import finish, pass_over
from jaxvit.train.prepare import prepare
from jaxvit.train.progress import Diverged, Progress
from jaxvit.train.run import Run
from jaxvit.workdir import resume, run_files
from jaxvit.workdir.trackers import check_packages, make_trackers

STEP_SCALARS = {"loss": "train/batch_loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}
MAX_SKIPPED = 10  # steps in a row
MAX_ROLLBACKS = 5


def train_and_evaluate(
    config: Config,
    workdir: str | os.PathLike[str],
    dataset: Dataset | Mapping[str, Any] | None = None,
    model: Any = None,
    callbacks: Sequence[handed.Callback] = (),
    *,
    force: bool = False,
    on_evaluation: Callable[[int, dict[str, float]], None] | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Trains what `config` describes, evaluates the best checkpoint on the test split, returns the final metrics.

    An interrupted run resumes from its last checkpoint; a finished one returns its metrics at once.
    With `config.lr_find` it only searches for a learning rate.

    Args:
      config: starts from `jaxvit.config.default()`.
      workdir: the only place that is written; see the README for the files.
      dataset: instead of what `data.name` stands for: {"train": (images, labels), "test": (images, labels)}, "val" and
        "classes" if wanted, with images uint8 or float in [0, 1], [n, h, w, c], and labels int [n] or 0 and 1
        [n, num_classes]; or a `jaxvit.data.Dataset`, unchanged. The run does not keep the images.
      model: instead of the config's section `model`: an instance of a class that has a name, without weights.
      callbacks: their `on_epoch_end(epoch, metrics)` is called after each epoch; True ends the training.
      force: continue in a workdir whose run has a different config.
      on_evaluation: called with (epochs done, the validation metrics that decide) after each evaluation; what it
        raises ends the run.
      test: False leaves the test split alone, as the trials of a search do; the same call with True tests them later.

    Raises:
      UserError: a mistake in the config, or a workdir that belongs to another config.
      Interrupted: SIGINT or SIGTERM came; the state is saved.
      Diverged: the loss became NaN or infinite.
    """
    handed.check(callbacks)
    config = config if dataset is None else handed.with_data(config)
    config = config if model is None else handed.with_model(config, model)
    checks.check(config)
    check_packages(config)
    if config.deterministic:
        determinism.check()
    err.quiet = not multihost.is_main()
    interrupt.nothing_to_save("stopped before there was anything to save; the same command starts from the beginning")
    with _opened(workdir) as path:
        if config.lr_find:
            return lr_find.find(config, path, dataset)
        finished = multihost.by_main(lambda: resume.check(config, path, force, test))
        if finished is not None:
            shown = "mAP" if "test/mAP" in finished else "accuracy"
            known = f"test {shown} {finished[f'test/{shown}']:.2%}" if "test/loss" in finished else "not tested"
            err.print(f"already finished: {path}  ({known}); nothing to do")
            return finished
        run, state = prepare(resume.kept(micro_batch.kept(config, path), path), path, dataset=dataset)
        try:
            return _train(run, state, force, on_evaluation, callbacks, test)
        finally:
            run.checkpoints.close()
            for tracker in run.trackers:
                tracker.close()


@contextmanager
def _opened(workdir: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes the workdir this process's own; one that is new and stays empty goes again, with the folders around it."""
    new = run_files.not_there(expand(workdir))
    path = run_files.make_workdir(workdir)
    multihost.barrier("workdir")
    with ExitStack() as stack:
        if new and multihost.is_main():
            stack.callback(run_files.remove_if_empty, new)
            interrupt.before_leaving.append(functools.partial(run_files.remove_if_empty, new))
        multihost.by_main(lambda: stack.enter_context(run_files.locked(path)))
        multihost.by_main(lambda: resume.inspect(path))
        stack.enter_context(streams.kept_in(path / streams.NAME))
        yield path


def _train(
    run: Run, state: TrainState, force: bool, on_evaluation: Any, callbacks: Sequence[handed.Callback], test: bool
) -> dict[str, Any]:
    words, path = run.blueprint.words, run.workdir
    run.checkpoints.verify()
    before = (run.checkpoints.meta("last") or {}).get("data")
    if before and not force:
        resume.check_data(path, words["data"]["name"], before, run.dataset.fingerprint())
    multihost.by_main(lambda: resume.write_config(path, words, run.dataset.class_names, force))
    if run.dataset.several and not (path / run_files.THRESHOLDS).exists():  # until the end chooses others
        usual = [USUAL] * len(run.dataset.class_names)
        multihost.by_main(lambda: run_files.write_json(path / run_files.THRESHOLDS, usual))
    summary.print_header(run, state)
    with deferred() as run.flag:
        state, progress = _resume(run, state)
        step = int(state.step)
        multihost.by_main(lambda: run.trackers.extend(make_trackers(path, step, words)))
        state, progress = _fit(run, state, progress, on_evaluation, callbacks)
        return finish(run, state, progress, test)


def _resume(run: Run, state: TrainState) -> tuple[TrainState, Progress]:
    """The newest intact checkpoint, or the beginning; what is damaged is named."""
    progress = Progress()
    begun = multihost.by_main(lambda: resume.has_work(run.workdir))
    lines = multihost.by_main(lambda: resume.lines_of_metrics(run.workdir))
    if run.checkpoints.steps("last"):
        template = run.template_at(run.checkpoints.steps("last")[-1])
        state, meta = run.checkpoints.restore("last", template)
        progress, run.saved = Progress(**meta), (int(state.step), time.monotonic())
        err.print(f"resumed at step {int(state.step)} (epoch {progress.epoch + 1})")
    elif begun:
        err.print("no usable checkpoint was found; the run starts from the beginning")
    elif lines:
        ended = (
            f"a run in this workdir ended before its first checkpoint; its {lines} lines of metrics.jsonl are dropped"
        )
        err.print(f"{ended} and the run starts from the beginning")
    progress.data = run.dataset.fingerprint()
    run.checkpoints.delete_after("best", int(state.step))
    if progress.best and progress.best["step"] not in run.checkpoints.steps("best"):
        err.print(f"the best checkpoint so far, of step {progress.best['step']}, is lost; the next best is used")
        progress.best = run.checkpoints.meta("best")
    return state, progress


def _fit(
    run: Run, state: TrainState, progress: Progress, on_evaluation: Any, callbacks: Sequence[handed.Callback]
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
            err.print(f"{error}; returning to it")
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
    begun, before, late = time.monotonic(), progress.seconds, Late()
    with bar(f"epoch {progress.epoch + 1}/{batches.num_epochs}", len(order)) as meter:
        for count, batch in run.dispatches(order, progress.epoch, done):
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
                raise Interrupted(signum, f"stopped at step {first + done}; the same command resumes it")
        _count(run, progress, writer, meter, late.rest())
    progress.seconds = before + time.monotonic() - begun
    return state


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
        scalars = {STEP_SCALARS[name]: value for name, value in step_metrics.items() if name in STEP_SCALARS}
        writer.write(step, scalars, epoch=progress.epoch + 1)
    hit = "exact_match" if run.dataset.several else "accuracy"
    loss, accuracy = (progress.sums[name] / progress.counted for name in ("loss", hit))
    meter.advance(run.batches.size, f"loss {loss:.3f}  {hit.replace('_', ' ')} {accuracy:.1%}")


def _not_finite(run: Run, progress: Progress, step: int, step_metrics: dict[str, float]) -> None:
    """Counts a skipped step; raises Diverged where steps are not skipped, or too many were."""
    progress.skipped, progress.skipped_in_row = progress.skipped + 1, progress.skipped_in_row + 1
    if run.options.on_nan == "skip" and progress.skipped_in_row <= MAX_SKIPPED:
        err.print(f"step {step} skipped: loss {step_metrics['loss']}, gradient norm {step_metrics['grad_norm']}")
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
    step, train, decisive = int(state.step), progress.means(), {}
    val = {f"{prefix}/{name}": value for prefix, metrics in found.items() for name, value in metrics.items()}
    better = "val" not in run.feeds  # without validation the last checkpoint is the one to use
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
    return f"step {there[-1]} in {run.workdir / 'checkpoints'}" if there else "none"
