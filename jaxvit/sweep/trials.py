"""The search: Optuna proposes, a run answers with its validation metric, SQLite remembers."""

import gc
import json
import math
import os
from pathlib import Path
from typing import Any

import jax

from jaxvit import config as config_lib
from jaxvit.build import checks, class_balance, parts
from jaxvit.build.facts import of_dataset
from jaxvit.build.resolve import complete
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.runtime import console, escape, lock
from jaxvit.runtime.console import err, warn
from jaxvit.runtime.interrupt import Interrupted
from jaxvit.runtime.paths import expand
from jaxvit.sweep import outcome
from jaxvit.sweep.ranges import Range, apply, check_model, label, read_ranges
from jaxvit.train import summary
from jaxvit.train.decisions import MODES, present
from jaxvit.train.loop import train_and_evaluate
from jaxvit.train.progress import Diverged
from jaxvit.workdir import resume, run_files

MOST_FAILED = 3  # trials at the start that may fail for a reason other than divergence


def search(config: Config, workdir: str | os.PathLike[str], trials: int, *, command: str = "") -> list[dict[str, Any]]:
    """Runs trials until `trials` of them are finished, earlier ones in `workdir` included; returns their rows.

    A trial is a run in DIR/trial_0000 and so on, its value the best validation metric (`early_stopping.metric`).
    DIR/study.db is Optuna's; trials.csv and best.json are written anew after each trial, sweep.png at the end. An
    interrupted trial is resumed. One that diverges or does not fit into memory is recorded, and the search continues.

    No trial looks at the test split.

    Args:
      config: with `sweep.ranges`.
      workdir: DIR.
      trials: at least 1.
      command: what trains with this config, for best.json.

    Raises:
      UserError: no Optuna, bad ranges, no validation images, or a directory that holds another search.
      Interrupted: SIGINT or SIGTERM came; the trial's state is saved.
    """
    optuna = _optuna()
    if trials < 1:
        raise UserError(f"trials is {trials}; expected 1 or more")
    checks.check(config)
    ranges = read_ranges(config)
    if config.lr_find:
        raise UserError("lr_find searches for a learning rate instead of training, and a sweep trains; use one of them")
    run_files.check_free(expand(workdir, "workdir"), "a sweep")
    dataset = parts.load_data(config)
    if not len(dataset.val):
        raise UserError(
            f"a sweep compares runs on validation images; {config.data.name} has none: set data.val_fraction"
        )
    check_model(ranges, complete(config, facts := of_dataset(dataset)))
    class_balance.check(config, facts, dataset.class_names)
    seen = dataset.fingerprint()
    del dataset
    directory = run_files.make_workdir(workdir)
    with lock.held(directory / ".lock", f"another sweep is running in {str(directory)!r}"):
        study = _open(optuna, config, directory)
        _check_data(study, config.data.name, seen, directory)
        try:
            while (done := outcome.finished(study)) < trials:
                study.sampler = _sampler(optuna, config, done)
                trial = _next(optuna, study)
                console.gap()
                err.print(f"trial {trial.number} ({done + 1} of {trials})")
                _answer(optuna, study, trial, config, ranges, directory)
                _give_up(outcome.write(study, config, ranges, directory, command))
        finally:
            rows = outcome.write(study, config, ranges, directory, command)
            outcome.draw(directory / "sweep.png", rows, ranges, config.early_stopping.metric)
        return rows


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("a sweep needs Optuna, which is not installed\npip install 'jaxvit[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open(optuna: Any, config: Config, directory: Path) -> Any:
    """The study in DIR/study.db, new or resumed."""
    from sqlalchemy.engine import URL

    url = URL.create("sqlite", database=str(directory / "study.db")).render_as_string()
    words = config.sweep
    pruner = optuna.pruners.NopPruner()
    if words.pruner == "median":
        # in its warm-up a trial of a low rate is behind, whatever becomes of it
        startup = max(words.startup_epochs, math.ceil(config.optim.schedule.warmup_epochs))
        pruner = optuna.pruners.MedianPruner(words.startup_trials, n_warmup_steps=startup + 1)
    direction = {"max": "maximize", "min": "minimize"}[MODES[config.early_stopping.metric]]
    try:
        study = optuna.create_study(
            storage=url, study_name="sweep", pruner=pruner, direction=direction, load_if_exists=True
        )
    except Exception as error:  # not a database, no space, ...: SQLAlchemy's own words are long
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot use {str(directory / 'study.db')!r}: {said}") from None
    given = config_lib.to_dict(config)
    before = json.loads(study.user_attrs.get("config", "null"))
    if before is None:
        study.set_user_attr("config", json.dumps(given))
        return study
    changed = config_lib.differences(config, before)
    if before["sweep"]["ranges"] != given["sweep"]["ranges"]:
        changed.append("sweep.ranges")
    if changed:
        raise UserError(
            f"workdir {str(directory)!r} holds a sweep of a different config ({'; '.join(changed[:3])})\n"
            "choose another --workdir"
        )
    return study


def _check_data(study: Any, name: str, seen: dict[str, Any], directory: Path) -> None:
    """Raises UserError where the data are not those of the trials before: their figures could not be compared."""
    before = study.user_attrs.get("data")
    if before is None:
        study.set_user_attr("data", seen)
    elif said := resume.changed_data(before, seen):
        raise UserError(
            f"{name} has changed since the sweep in {str(directory)!r} started ({said})\nchoose another --workdir"
        )


def _sampler(optuna: Any, config: Config, number: int) -> Any:
    """Draws from (seed, number of the trial): an interrupted search continues as if it had not been interrupted."""
    seed = (config.seed * 1_000_003 + number) % 2**32
    if config.sweep.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.sweep.startup_trials)


def _next(optuna: Any, study: Any) -> Any:
    """The trial that an interrupted search has left unfinished, or else a new one."""
    left = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    return optuna.trial.Trial(study, left[0]._trial_id) if left else study.ask()


def _answer(optuna: Any, study: Any, trial: Any, config: Config, ranges: tuple[Range, ...], directory: Path) -> None:
    """Runs one trial and tells the study how it ended."""
    states, metric = optuna.trial.TrialState, config.early_stopping.metric
    known = dict(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def report(epoch: int, val: dict[str, float]) -> None:
        if epoch not in known:  # a resumed trial may repeat one
            trial.report(val[present(metric, val)], epoch)
        if epoch < config.num_epochs and trial.should_prune():
            raise optuna.TrialPruned

    values = {given.word: given.draw(trial) for given in ranges}
    trial.set_user_attr("words", {word: label(value) for word, value in values.items()})
    err.print("  ".join(f"{word}={label(value)}" for word, value in values.items()))
    try:
        workdir = directory / outcome.name(trial.number)
        final = train_and_evaluate(apply(config, values), workdir, on_evaluation=report, test=False)
    except (Interrupted, KeyboardInterrupt):  # the trial stays open: the same command resumes it
        raise
    except optuna.TrialPruned:
        study.tell(trial, state=states.PRUNED)
        err.print("stopped: worse than the median of the other trials at this epoch")
    except Exception as error:  # whatever it is, the other trials are not to suffer from it
        reason = escape.message(error)
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("diverged", isinstance(error, Diverged))
        study.tell(trial, state=states.FAIL)
        warn(f"failed: {reason}")
    else:
        found = summary.decisive(final)
        study.tell(trial, found[present(metric, found)])
    jax.clear_caches()  # compiled steps of the trial, and with them its arrays
    gc.collect()


def _give_up(rows: list[dict[str, Any]]) -> None:
    """Raises the last reason where nothing but failures came: it is the config's, not the trial's."""
    failed = [row for row in rows if row["state"] == "failed" and not row["diverged"]]
    if len(failed) == len(rows) >= MOST_FAILED:
        raise UserError(f"the first {len(rows)} trials have all failed: {failed[-1]['reason']}")
