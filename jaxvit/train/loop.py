"""`train_and_evaluate(config, workdir)`: the function that conducts a run."""

import functools
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jaxvit.build import checks
from jaxvit.config.checks import check_words
from jaxvit.config.default import Config
from jaxvit.data import Dataset
from jaxvit.runtime import determinism, interrupt, multihost, streams
from jaxvit.runtime.console import err, warn
from jaxvit.runtime.interrupt import deferred
from jaxvit.runtime.paths import expand
from jaxvit.step.multi_label import USUAL
from jaxvit.step.state import TrainState
from jaxvit.train import handed, lr_find, micro_batch, start, summary
from jaxvit.train.epochs import check_data, check_fits, fit, resumed
from jaxvit.train.finish import finish
from jaxvit.train.prepare import gather, prepare
from jaxvit.train.pretrain import with_pretraining
from jaxvit.train.run import Run
from jaxvit.workdir import resume, run_files
from jaxvit.workdir.trackers import check_packages, make_trackers


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
    check_words(config)
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
            with start.lent(config, path) as searched:
                return lr_find.find(searched, path, dataset)
        config = start.kept(config, path)
        finished = multihost.by_main(lambda: resume.check(config, path, force, test))
        if finished is not None:
            shown = "mAP" if "test/mAP" in finished else "accuracy"
            known = f"test {shown} {finished[f'test/{shown}']:.2%}" if "test/loss" in finished else "not tested"
            warn(f"already finished: {path}  ({known}); nothing to do")
            return finished
        config = start.copied(config, path)
        config = resume.kept(micro_batch.kept(config, path), path)
        material = with_pretraining(config, path, gather(config, path, dataset=dataset), force=force)
        run, state = prepare(config, path, material=material)
        try:
            return _train(run, state, force, on_evaluation, callbacks, test)
        finally:
            run.checkpoints.close()
            for tracker in run.trackers:
                tracker.close()


@contextmanager
def _opened(workdir: str | os.PathLike[str]) -> Generator[Path]:
    """Makes the workdir this process's own; one that is new and stays empty goes again, with the folders around it."""
    new = run_files.not_there(expand(workdir, "workdir"))
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
    if force:
        check_fits(run.blueprint, run.checkpoints.directory)
    check_data(run, words["data"]["name"], force)
    multihost.by_main(lambda: resume.write_config(path, words, run.dataset.class_names, force))
    if run.dataset.several and not (path / run_files.THRESHOLDS).exists():  # until the end chooses others
        usual = [USUAL] * len(run.dataset.class_names)
        multihost.by_main(lambda: run_files.write_json(path / run_files.THRESHOLDS, usual))
    summary.print_header(run, state)
    with deferred() as run.flag:
        state, progress = resumed(run, state)
        step = int(state.step)
        multihost.by_main(lambda: run.trackers.extend(make_trackers(path, step, words)))
        state, progress = fit(run, state, progress, on_evaluation, callbacks)
        return finish(run, state, progress, test)
