"""`train_and_evaluate(config, workdir)`: the one conductor of a run."""

import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvit import config as config_lib
from jaxvit import data, summary, writers
from jaxvit.console import bar, err
from jaxvit.errors import UserError
from jaxvit.evaluate import evaluate
from jaxvit.interrupt import Interrupted, deferred
from jaxvit.run import DRY_RUN_STEPS, Run, prepare
from jaxvit.state import TrainState, model_variables

STEP_SCALARS = {"loss": "train/batch_loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}


class Diverged(RuntimeError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass
class Progress:
    """Where a run stands, beside its TrainState; stored with each checkpoint as JSON."""

    epoch: int = 0  # epochs finished
    epoch_step: int = 0  # steps finished of the epoch under way
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of the epoch's step metrics
    best: dict[str, float] | None = None  # metrics of the best evaluation so far
    bad_evals: int = 0  # evaluations since the validation metric last improved by min_delta
    stopped_early: bool = False
    position: int = 0  # bytes of metrics.jsonl
    seconds: float = 0.0  # spent in training steps


def train_and_evaluate(config: ConfigDict, workdir: str | os.PathLike[str], *, force: bool = False) -> dict[str, Any]:
    """Trains what `config` describes, evaluates the best checkpoint on the test split, returns the final metrics.

    A run that was interrupted goes on where its last checkpoint stands; a finished one returns its metrics at once.

    Args:
      config: starts from `jaxvit.config.default()`.
      workdir: the only place that is written; see the README for the files.
      force: go on in a workdir whose run had another config.

    Raises:
      UserError: a mistake in the config, or a workdir that belongs to another config.
      Interrupted: SIGINT or SIGTERM came; the state is saved.
      Diverged: the loss became NaN or infinite.
    """
    config_lib.validate(config)
    path = writers.make_workdir(workdir)
    finished = _check_workdir(config, path, force)
    if finished is not None:
        err.print(f"already finished: {path}  (test accuracy {finished['test/accuracy']:.2%}); nothing to do")
        return finished
    run, state = prepare(config, path)
    writers.write_json(path / "config.json", config_lib.to_dict(run.config))
    writers.write_json(path / "classes.json", list(run.dataset.class_names))
    summary.print_header(run, state)
    progress = Progress()
    if run.checkpoints.steps("last"):
        state, meta = run.checkpoints.restore("last", state)
        progress = Progress(**meta)
        run.checkpoints.delete_after("best", int(state.step))
        err.print(f"resumed at step {int(state.step)} (epoch {progress.epoch + 1})")
    try:
        with deferred() as flag:
            state, progress = _fit(run, state, progress, flag)
        return _finish(run, state, progress)
    finally:
        run.checkpoints.close()


def _check_workdir(config: ConfigDict, workdir: Path, force: bool) -> dict[str, Any] | None:
    """Returns the metrics of a finished run of this config; refuses a workdir of another one."""
    if not (workdir / "config.json").exists():
        return None
    before = writers.read_json(workdir / "config.json")
    if before.get("fast_dev_run") and not config.fast_dev_run:
        err.print(f"removing the dry run in {workdir}")
        writers.remove_run(workdir)
        return None
    changed = config_lib.differences(config, before)
    if changed and not force and _has_work(workdir):
        shown = "; ".join(changed[:3]) + (f"; {len(changed) - 3} more" if len(changed) > 3 else "")
        raise UserError(
            f"workdir {str(workdir)!r} holds a run of another config ({shown})\n"
            "choose another --workdir, or go on there with the new values by --force"
        )
    if changed or not (workdir / "summary.json").exists():
        return None
    return writers.read_json(workdir / "summary.json").get("final")


def _has_work(workdir: Path) -> bool:
    """Whether a run got as far as a checkpoint: one that failed before it has nothing to protect."""
    return (workdir / "summary.json").exists() or any((workdir / "checkpoints" / "last").glob("[0-9]*"))


def _fit(run: Run, state: TrainState, progress: Progress, flag: Any) -> tuple[TrainState, Progress]:
    """Runs the epochs that are left, with evaluation, metrics and checkpoints."""
    writer = writers.MetricsWriter(run.workdir, position=progress.position, step=int(state.step))
    try:
        while progress.epoch < run.config.num_epochs and not progress.stopped_early:
            state = _train_epoch(run, state, progress, writer, flag)
            progress.epoch += 1
            _end_epoch(run, state, progress, writer)
    finally:
        writer.close()
    return state, progress


def _train_epoch(run: Run, state: TrainState, progress: Progress, writer: Any, flag: Any) -> TrainState:
    config = run.config
    # The order comes from (seed, epoch) alone, so a resumed run sees the images that it would have seen.
    order = data.epoch_order(config.seed, progress.epoch, len(run.dataset.train))
    order = order[: run.steps_per_epoch * run.batch_size]
    first_step = progress.epoch * run.steps_per_epoch
    waiting: list[Any] = []

    def fetch(meter: Any) -> None:  # metrics are read late: the device is busy with the next step by then
        step_metrics = {name: float(value) for name, value in jax.device_get(waiting.pop(0)).items()}
        progress.epoch_step += 1
        step = first_step + progress.epoch_step
        if not math.isfinite(step_metrics["loss"]):
            raise Diverged(
                f"loss is {step_metrics['loss']} at step {step} (learning rate {step_metrics['learning_rate']:.3g}, "
                f"gradient norm {step_metrics['grad_norm']:.3g}); last checkpoint: {_last_checkpoint(run)}"
            )
        for name, value in step_metrics.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        if step % config.log_every_steps == 0 and run.steps_per_epoch > config.log_every_steps:
            scalars = {STEP_SCALARS[name]: value for name, value in step_metrics.items() if name in STEP_SCALARS}
            writer.write(step, scalars, epoch=progress.epoch + 1)
        loss, accuracy = (progress.sums[name] / progress.epoch_step for name in ("loss", "accuracy"))
        meter.advance(run.batch_size, f"loss {loss:.3f}  accuracy {accuracy:.1%}")

    begun, before = time.monotonic(), progress.seconds
    with bar(f"epoch {progress.epoch + 1}/{config.num_epochs}", len(order)) as meter:
        for batch in run.feeds["train"].batches(order, run.batch_size, start=progress.epoch_step):
            if not run.compile_seconds:  # the first call compiles; it does not count as training time
                with err.status("compiling the training step"):
                    state, step_metrics = jax.block_until_ready(run.train_step(state, batch))
                run.compile_seconds, begun = time.monotonic() - begun, time.monotonic()
            else:
                state, step_metrics = run.train_step(state, batch)
            waiting.append(step_metrics)
            if len(waiting) > 1:
                fetch(meter)
            progress.seconds = before + time.monotonic() - begun
            done = progress.epoch_step + len(waiting)
            every = config.checkpoint.every_steps
            if flag.signum is not None or (every and (first_step + done) % every == 0 and done < run.steps_per_epoch):
                while waiting:
                    fetch(meter)
                _save(run, state, progress, writer)
            if flag.signum is not None:
                run.checkpoints.wait()
                raise Interrupted(flag.signum, f"stopped at step {first_step + done}; the same command goes on there")
        while waiting:
            fetch(meter)
    progress.seconds = before + time.monotonic() - begun
    return state


def _end_epoch(run: Run, state: TrainState, progress: Progress, writer: Any) -> None:
    """Evaluates on the validation split when that is due, writes the metrics, saves the state and the best."""
    config, step = run.config, int(state.step)
    train = {f"train/{name}": total / progress.epoch_step for name, total in progress.sums.items()}
    line = f"epoch {progress.epoch}/{config.num_epochs}  loss {train['train/loss']:.3f}  "
    line += f"accuracy {train['train/accuracy']:.2%}"
    val: dict[str, float] = {}
    better = "val" not in run.feeds  # without validation the last checkpoint is the one to use
    if "val" in run.feeds and (progress.epoch % config.eval_every_epochs == 0 or progress.epoch == config.num_epochs):
        metrics, _ = _evaluate(run, model_variables(state), "val")
        val = {f"val/{name}": value for name, value in metrics.items()}
        best = progress.best or {"val/accuracy": -math.inf, "val/loss": math.inf}
        gain = val["val/accuracy"] - best["val/accuracy"]
        better = gain > 0 or (gain == 0 and val["val/loss"] < best["val/loss"])
        progress.bad_evals = 0 if gain > config.early_stopping.min_delta else progress.bad_evals + 1
        patience = config.early_stopping.patience
        progress.stopped_early = patience is not None and progress.bad_evals >= patience
        line += f"  | val loss {val['val/loss']:.3f}  accuracy {val['val/accuracy']:.2%}" + (" *" if better else "")
    if better:
        progress.best = {"step": step, "epoch": progress.epoch, **train, **val}
        run.checkpoints.save("best", step, model_variables(state), {"step": step, "epoch": progress.epoch})
    writer.write(step, {**train, **val}, epoch=progress.epoch)
    rate = run.steps_per_epoch * run.batch_size * progress.epoch / max(progress.seconds, 1e-9)
    err.print(f"{line}  {rate:,.0f} images/s")
    if progress.stopped_early:
        err.print(f"stopped early: no improvement in {progress.bad_evals} evaluations")
    progress.epoch_step, progress.sums = 0, {}
    _save(run, state, progress, writer)


def _save(run: Run, state: TrainState, progress: Progress, writer: Any) -> None:
    """Saves the state to go on from."""
    progress.position = writer.position
    run.checkpoints.save("last", int(state.step), state, dataclasses.asdict(progress))


def _last_checkpoint(run: Run) -> str:
    there = run.checkpoints.steps("last")
    return f"step {there[-1]} in {run.workdir / 'checkpoints'}" if there else "none"


def _evaluate(run: Run, variables: Any, split: str, *, keep_logits: bool = False) -> tuple[dict[str, float], Any]:
    feed = run.feeds[split]
    with bar(f"evaluating {split}", len(feed)) as meter:
        done = 0

        def report(n: int) -> None:
            nonlocal done
            meter.advance(n - done)
            done = n

        return evaluate(
            run.eval_step,
            variables,
            feed,
            run.eval_batch_size,
            keep_logits=keep_logits,
            max_steps=DRY_RUN_STEPS if run.config.fast_dev_run else None,
            progress=report,
        )


def _finish(run: Run, state: TrainState, progress: Progress) -> dict[str, Any]:
    """Evaluates the best checkpoint on the test split and writes predictions, samples and the summary."""
    run.checkpoints.wait()
    variables, best_meta = run.checkpoints.restore("best", model_variables(state))
    test, logits = _evaluate(run, variables, "test", keep_logits=True)
    split = run.dataset.test
    readable = np.setdiff1d(np.arange(len(split)), list(run.feeds["test"].unreadable))[: len(logits)]
    writers.write_npz(
        run.workdir / "predictions.npz",
        logits=logits.astype(np.float32),
        labels=split.labels[readable],
        index=split.index[readable],
    )
    writers.write_npz(run.workdir / "samples.npz", **summary.sample_images(run.feeds["test"], split, readable))
    final = {f"test/{name}": value for name, value in test.items()}
    final |= {name: value for name, value in (progress.best or {}).items() if name.startswith("val/")}
    final |= {"best_epoch": best_meta["epoch"], "epochs": progress.epoch, "step": int(state.step)}
    described = summary.describe(run, final, progress)
    writers.write_json(run.workdir / "summary.json", described)
    summary.print_footer(run.workdir, described)
    return final
