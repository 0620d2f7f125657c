"""The end of a run: the best weights on the test split, and the files that a run leaves."""

from typing import Any

import numpy as np

from jaxvit.build.blueprint import DRY_RUN_STEPS
from jaxvit.confidence import temperature
from jaxvit.data import imagenet
from jaxvit.errors import UserError
from jaxvit.runtime import multihost
from jaxvit.runtime.console import bar, warn
from jaxvit.runtime.interrupt import Interrupted
from jaxvit.step.evaluate import evaluate
from jaxvit.step.multi_label import USUAL, choose_thresholds
from jaxvit.step.state import TrainState, model_variables
from jaxvit.train import summary
from jaxvit.train.progress import Progress
from jaxvit.train.run import Run
from jaxvit.workdir import run_files
from jaxvit.workdir.checkpoint import NoCheckpoint
from jaxvit.workdir.trackers import show


def pass_over(
    run: Run, variables: Any, split: str, *, keep_logits: bool = False, thresholds: np.ndarray | float = USUAL
) -> tuple[dict[str, float], Any, Any]:
    """One pass over a split of the run, with a bar, as `step.evaluate` makes it; a signal ends it."""
    feed = run.feeds[split]
    with bar(f"evaluating {split}", len(feed)) as meter:
        done = 0

        def report(n: int) -> None:
            nonlocal done
            meter.advance(n - done)
            done = n
            signum = None if run.flag is None else run.stop(run.flag.signum)
            if signum is not None:
                raise Interrupted(signum, f"stopped while evaluating {split}; the same command resumes it")

        return evaluate(
            run.blueprint.eval_step,
            variables,
            feed,
            run.batches.eval_size,
            keep_logits=keep_logits,
            labels=getattr(run.dataset, split).labels,
            thresholds=thresholds,
            max_steps=DRY_RUN_STEPS if run.options.dry_run else None,
            progress=report,
        )


def finish(run: Run, state: TrainState, progress: Progress, tested: bool) -> dict[str, Any]:
    """Evaluates the best checkpoint on the test split, where that is asked for, and writes what a run leaves."""
    run.checkpoints.wait()
    try:
        variables, progress.best = run.checkpoints.restore("best", model_variables(state))
    except NoCheckpoint as error:
        warn(f"{error}; the last weights are tested instead")
        variables, progress.best = run.final_weights(state), {"step": int(state.step), "epoch": progress.epoch}
    best = progress.best or {}
    final = {name: value for name, value in best.items() if name.startswith(("val", "weights"))}
    final |= {"best_epoch": best["epoch"], "epochs": progress.epoch, "step": int(state.step)}
    if not tested:
        if multihost.is_main():
            summary.write(run, final, progress)
        multihost.barrier("finished")
        return final
    thresholds, calibrated = _validated(run, variables)
    test, logits, readable = pass_over(run, variables, "test", keep_logits=True, thresholds=thresholds)
    split = run.dataset.test
    samples = summary.sample_images(run.feeds["test"], split, readable, logits, run.batches.eval_size)
    final = {f"test/{name}": value for name, value in test.items()} | final
    for prefix, last in (run.weights(state) if state.ema else {}).items():  # both, whichever was the best
        same = best["step"] == int(state.step) and best.get("weights") == summary.WEIGHTS[prefix]
        figures = test if same else pass_over(run, last, "test", thresholds=thresholds)[0]
        final |= {f"test_{summary.WEIGHTS[prefix]}/{name}": value for name, value in figures.items()}
    if multihost.is_main():
        run_files.write_npz(
            run.workdir / "predictions.npz",
            logits=logits.astype(np.float32),
            labels=split.labels[readable],
            index=split.index[readable],
            names=split.image_names(readable),
        )
        run_files.write_npz(run.workdir / "samples.npz", **samples)
        described = summary.write(run, final, progress)
        show(
            run.trackers, described, samples, logits, split.labels[readable], split.index[readable],
            imagenet.readable(run.dataset.class_names), thresholds,
        )  # fmt: skip
        summary.print_footer(run.workdir, described, calibrated)
    multihost.barrier("finished")
    return final


def _validated(run: Run, variables: Any) -> tuple[np.ndarray | float, str | None]:
    """What is chosen on validation with the best weights, and kept: thresholds of several labels, a temperature.

    Returns the thresholds, and a line on the temperature.
    """
    several, fits = run.dataset.several, run.options.calibrate
    thresholds = np.full(len(run.dataset.class_names), USUAL) if several else USUAL
    found, line = None, "no temperature: the run has no validation split" if fits else None
    if "val" in run.feeds and (several or fits):
        _, logits, readable = pass_over(run, variables, "val", keep_logits=True)
        labels = run.dataset.val.labels[readable]
        thresholds = choose_thresholds(logits, labels) if several else thresholds
        if fits:
            found, line = _temperature(logits, labels)
    if multihost.is_main():
        temperature.write(run.workdir, found)
        if several:
            run_files.write_json(run.workdir / run_files.THRESHOLDS, np.asarray(thresholds).tolist())
    return thresholds, line


def _temperature(logits: Any, labels: np.ndarray) -> tuple[dict[str, Any] | None, str]:
    try:
        found = temperature.record(logits, labels)
    except UserError as error:
        return None, str(error).splitlines()[0]
    return found, f"temperature {temperature.describe(found)}"
