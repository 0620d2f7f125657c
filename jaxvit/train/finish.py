"""The end of a run: the best weights on the test split, and the files that a run leaves."""

from typing import Any

import numpy as np

from jaxvit.build.blueprint import DRY_RUN_STEPS
from jaxvit.runtime import multihost
from jaxvit.runtime.console import bar, err
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
                raise Interrupted(signum, f"stopped while evaluating {split}; the same command resumes there")

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
        err.print(f"{error}; the last weights are tested in its place")
        variables, progress.best = run.final_weights(state), {"step": int(state.step), "epoch": progress.epoch}
    best = progress.best or {}
    final = {name: value for name, value in best.items() if name.startswith(("val", "weights"))}
    final |= {"best_epoch": best["epoch"], "epochs": progress.epoch, "step": int(state.step)}
    if not tested:
        if multihost.is_main():
            summary.write(run, final, progress)
        multihost.barrier("finished")
        return final
    thresholds = _thresholds(run, variables)
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
            run.dataset.class_names, thresholds,
        )  # fmt: skip
        summary.print_footer(run.workdir, described)
    multihost.barrier("finished")
    return final


def _thresholds(run: Run, variables: Any) -> np.ndarray | float:
    """Of several labels per image: the probability from which on each class is said, chosen on validation and kept."""
    if not run.dataset.several:
        return USUAL
    found = np.full(len(run.dataset.class_names), USUAL)
    if "val" in run.feeds:
        _, logits, readable = pass_over(run, variables, "val", keep_logits=True)
        found = choose_thresholds(logits, run.dataset.val.labels[readable])
    if multihost.is_main():
        run_files.write_json(run.workdir / run_files.THRESHOLDS, found.tolist())
    return found
