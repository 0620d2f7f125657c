"""Runs a study: every row and seed in its order, each in a separate process; finished runs are skipped."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxvit import config as config_lib
from jaxvit.build import parts
from jaxvit.config.default import Config
from jaxvit.data.sources import label_file
from jaxvit.errors import UserError
from jaxvit.runtime import verbosity
from jaxvit.runtime.console import duration, err, warn, working
from jaxvit.runtime.interrupt import Interrupted, deferred, something_to_save
from jaxvit.runtime.paths import expand, near
from jaxvit.studies import ledger as led
from jaxvit.studies import smoke, weights
from jaxvit.studies.costs import Cost, cost_of
from jaxvit.studies.ledger import Ledger
from jaxvit.studies.study import Options, Row, Study, chosen, names, row_config
from jaxvit.studies.worker import STOPPED_CODE
from jaxvit.workdir import manifest, run_files

MOVABLE = (
    "pretrained",
    "distill.teacher",
    "data.dir",
    "data.archive",
)  # paths: a different path is the same experiment
JOBS = ".jobs"  # directory of what passes between this process and the workers
GRACE = 120.0  # seconds that a run has to save its state


@dataclasses.dataclass
class Plan:
    """One run to come: a row with a seed, and with a fold if the study has folds."""

    row: Row
    seed: int
    fold: int | None
    config: Config
    work: float

    @property
    def key(self) -> str:
        """The directory of the run within the study's."""
        return led.run_key(self.row.name, self.seed, self.fold)


def run_study(
    study: Study,
    file: Path,
    workdir: Path,
    options: Options,
    *,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    folds: Sequence[int] = (),
) -> Ledger:
    """Runs what is asked for and not finished yet; returns the record of all runs.

    `rows`, `seeds` and `folds` are those to run now; none: all rows, the study's seeds, the `options.folds` folds.

    Raises:
      UserError: a mistake in the study or in the options, before anything runs.
      Interrupted: SIGINT or SIGTERM came; the run under way has saved its state.
    """
    new = run_files.not_there(expand(workdir, "workdir"))
    workdir = run_files.make_workdir(workdir).resolve()
    with ExitStack() as stack:
        stack.callback(run_files.remove_if_empty, new)  # after a mistake
        lock = stack.enter_context(led.locked(workdir))
        ledger = open_ledger(study, file, workdir, options)
        ledger.close_open_runs()
        seeds = seeds or study.seeds[: smoke.SEEDS if options.smoke else None]
        folds = folds or range(1, (options.folds or 0) + 1)
        if not ledger.content["runs"]:  # their number is recorded with the first run
            check_folds(study, file, options, rows, seeds[0])
        plans = make_plans(study, file, options, ledger, rows, seeds, folds)
        ledger.write()
        something_to_save()  # a signal ends the run under way, which saves its state
        with deferred() as flag:
            Conductor(study, file, workdir, options, ledger, plans, lock, flag).run()
        return ledger


def open_ledger(study: Study, file: Path, workdir: Path, options: Options) -> Ledger:
    """The record of a study in `workdir`."""
    fixed = {word: value for word, value in dataclasses.asdict(options).items() if word != "checkpoints"}
    return Ledger(workdir, file.stem, json.loads(json.dumps(fixed)))


def make_plans(
    study: Study,
    file: Path,
    options: Options,
    ledger: Ledger,
    rows: Sequence[str],
    seeds: Sequence[int],
    folds: Sequence[int] = (),
) -> list[Plan]:
    """The runs in their order, all rows of the first seed and fold first; counts what the rows cost."""
    plans: list[Plan] = []
    kind, _, path = (options.data or "").partition(":")
    if kind in ("npz", "folder") and not expand(path).is_dir():
        raise UserError(f"--data {options.data}: there is no directory {path!r}.{near(expand(path))}")
    if kind in label_file.KINDS and not expand(path).is_file():
        raise UserError(f"--data {options.data}: there is no file {path!r}.{near(expand(path))}")
    source = dataclasses.replace(options, data=None, epochs=None)
    for row in chosen(study, rows):
        counted = row_config(study, file, row, study.seeds[0], source)
        now, known = _digest(counted), ledger.content.setdefault("costs_of", {})
        if row.name not in ledger.content["costs"] or known.get(row.name) != now:  # the row may be another since
            with working(f"counting the work of {row.name}"):
                cost = cost_of(counted)
            ledger.content["costs"][row.name], known[row.name] = dataclasses.asdict(cost), now
        cost = Cost(**ledger.content["costs"][row.name])
        for seed in seeds:
            config = row_config(study, file, row, seed, options)
            config = smoke.reduce(config) if options.smoke else config
            work = 1.0 if options.smoke else cost.work
            plans += [Plan(row, seed, fold, _of_fold(config, fold, options), work) for fold in folds or (None,)]
    return sorted(plans, key=lambda plan: (list(seeds).index(plan.seed), plan.fold or 0))


def _digest(config: Config) -> str:
    return manifest.sha256_bytes(run_files.json_bytes(config_lib.to_dict(config)))


def _of_fold(config: Config, fold: int | None, options: Options) -> Config:
    config = copy.deepcopy(config)
    if fold is not None:
        config.data.fold = f"{fold}/{options.folds}"
    return config


def check_folds(study: Study, file: Path, options: Options, rows: Sequence[str], seed: int) -> None:
    """Raises UserError where the data of the rows cannot be divided into this many folds."""
    if options.folds is None or options.smoke:
        return
    seen = []
    with working("checking that the images divide into folds"):
        for row in chosen(study, rows):
            config = _of_fold(row_config(study, file, row, seed, options), 1, options)
            place = [config.data[word] for word in ("name", "dir", "columns")]
            if place not in seen:
                parts.load_data(config)
            seen.append(place)


class Conductor:
    """The order of the runs, the processes that train them, and what is said meanwhile."""

    def __init__(
        self,
        study: Study,
        file: Path,
        workdir: Path,
        options: Options,
        ledger: Ledger,
        plans: list[Plan],
        lock: Any,
        flag: Any,
    ):
        """`file` is the study's, `lock` is the descriptor of the study's lock, `flag` says whether a signal came."""
        self.study, self.workdir, self.options, self.ledger = study, workdir, options, ledger
        self.plans, self.lock, self.flag = plans, lock, flag
        self._named = file.stem if file in {path.resolve() for path in names().values()} else str(file)
        self._work = self._seconds = 0.0  # of the runs that this process has seen to their end

    def run(self) -> None:
        """Goes through all runs; raises Interrupted where a signal came."""
        if self.options.smoke:
            self._prepare_smoke()
        for position, plan in enumerate(self.plans, 1):
            self._check_same(plan)
            if self.ledger.status(plan.key) in led.FINAL:
                err.print(f"row {position}/{len(self.plans)}  {plan.key}: {self.ledger.status(plan.key)} before")
        waiting = [plan for plan in self.plans if self.ledger.status(plan.key) not in led.FINAL]
        while waiting:
            ready = []
            while waiting and (not ready or (self.options.smoke and self._teacher_is_known(waiting[0], ready))):
                plan = waiting.pop(0)
                if self._is_ready(plan):
                    ready.append(plan)
            if ready:
                left = self._process(ready)
                waiting = left + waiting

    def _prepare_smoke(self) -> None:
        with working("writing a few images"):
            name = smoke.write_data(self.plans[0].config, self.workdir / "smoke_data", self.options.folds or 1)
        for plan in self.plans:
            plan.config.data.name = name

    def _check_same(self, plan: Plan) -> None:
        """Raises UserError where a finished run was made with other options than the study has now."""
        stored = self.workdir / plan.key / "config.json"
        if self.ledger.status(plan.key) not in led.FINAL or not stored.exists():
            return
        changed = config_lib.differences(plan.config, run_files.read_json(stored))
        changed = [text for text in changed if text.split(":")[0] not in MOVABLE]
        if changed:
            shown = "; ".join(changed[:2]) + ("; ..." if len(changed) > 2 else "")
            raise UserError(
                f"row {plan.key} was run with a different config ({shown})\n"
                f"delete {str(self.workdir / plan.key)!r} to run it again, or choose another --workdir"
            )

    def _teacher_is_known(self, plan: Plan, ready: list[Plan]) -> bool:
        """Whether a run can go into the process of those that are ready: its teacher is none of them."""
        return plan.row.teacher not in {
            other.row.name for other in ready if (other.seed, other.fold) == (plan.seed, plan.fold)
        }

    def _is_ready(self, plan: Plan) -> bool:
        """Finds teacher and weights; notes why a run cannot start."""
        if plan.row.teacher is not None:
            key = led.run_key(plan.row.teacher, plan.seed, plan.fold)
            if self.ledger.status(key) != led.DONE:
                self._note(plan, led.NO_TEACHER, f"its teacher {key} is {self.ledger.status(key)}")
                return False
            plan.config.distill.teacher = str(self.workdir / key)
        try:
            if self.options.smoke and plan.config.pretrained is not None:
                plan.config.pretrained = str(smoke.write_weights(plan.config, self.workdir / "weights"))
            with working(f"looking for the weights of {plan.row.name}"):
                weights.place(plan.config, self.options.checkpoints)
        except weights.Missing as error:
            self._note(plan, led.NO_WEIGHTS, str(error))
            return False
        return True

    def _note(self, plan: Plan, status: str, reason: str) -> None:
        self.ledger.record(plan.key, status, reason)
        warn(f"{plan.key}: {status}: {reason}")

    def _process(self, plans: list[Plan]) -> list[Plan]:
        """Trains runs in one process; returns those that it did not come to. Raises Interrupted."""
        jobs = [self._job(plan) for plan in plans]
        for job in jobs:
            Path(job["outcome"]).unlink(missing_ok=True)
        self.ledger.record(plans[0].key, led.RUNNING)
        begun = time.monotonic()
        code = self._child(jobs)
        self.ledger.content["wall_seconds"] += time.monotonic() - begun
        stopped, signalled = "", self.flag.signum is not None or code == STOPPED_CODE
        for i, (plan, job) in enumerate(zip(plans, jobs, strict=True)):
            outcome = _read(Path(job["outcome"]))
            if outcome is None and not stopped:
                outcome = self._death(code)
                self._note(plan, outcome["status"], outcome["reason"])
                if not signalled:
                    return plans[i + 1 :]
            elif outcome is not None:
                more = {k: v for k, v in outcome.items() if k not in ("status", "reason")}
                self.ledger.record(plan.key, outcome["status"], outcome["reason"], **more)
                self._work, self._seconds = self._work + plan.work, self._seconds + outcome["seconds"]
            if outcome is None or outcome["status"] == led.STOPPED:
                stopped = stopped or plan.key
        if signalled:
            where = f"stopped in {stopped}" if stopped else "stopped"
            raise Interrupted(self.flag.signum or signal.SIGTERM, f"{where}; the same command resumes there")
        return []

    def _job(self, plan: Plan) -> dict[str, Any]:
        outcome = self.workdir / JOBS / f"{plan.key.replace('/', '-')}.json"
        return {
            "key": plan.key,
            "workdir": str(self.workdir / plan.key),
            "config": config_lib.to_dict(plan.config),
            "throughput": self.study.throughput,
            "neighbours": plan.row.neighbours,
            "outcome": str(outcome),
            "heading": self._heading(plan),
            "argv": self._argv(plan),
        }

    def _argv(self, plan: Plan) -> list[str]:
        """The command that makes this run and no other; its summary.json says so."""
        words = ["main.py", "study", self._named, "--workdir", str(self.workdir)]
        words += ["--rows", plan.row.name, "--seeds", f"{plan.seed},", *["--smoke"] * self.options.smoke]
        words += ["--folds", f"{plan.fold}/{self.options.folds}"] if plan.fold else []
        named = {"epochs": self.options.epochs, "data": self.options.data, "checkpoints": self.options.checkpoints}
        for word, value in named.items():
            words += [f"--{word}", str(value)] if value is not None else []
        return [*words, *self.options.overrides]

    def _heading(self, plan: Plan) -> str:
        position = self.plans.index(plan) + 1
        line = f"row {position}/{len(self.plans)}  {plan.key}: {plan.row.label}"
        if self._seconds and self._work and not self.options.smoke:
            rest = sum(p.work for p in self.plans if self.ledger.status(p.key) not in led.FINAL)
            line += f"  (about {duration(rest * self._seconds / self._work)} left)"
        return line

    def _child(self, jobs: list[dict[str, Any]]) -> int:
        """Runs the worker to its end; passes one signal on. Returns its exit code."""
        directory = self.workdir / JOBS
        directory.mkdir(exist_ok=True)
        file = directory / "jobs.json"
        file.write_text(json.dumps(jobs), encoding="utf-8")
        command = [sys.executable, "-m", "jaxvit.studies.worker", str(file), *verbosity.words()]
        held: dict[str, Any] = {"pass_fds": (self.lock,)} if self.lock is not None else {}
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, start_new_session=True, env=_environment(self.options.smoke), **held
        )  # its own session: Ctrl-C comes to it once, from here
        told = 0.0
        try:
            while True:
                try:
                    return child.wait(0.1)
                except subprocess.TimeoutExpired:
                    pass
                if self.flag.signum is not None and not told:
                    told = time.monotonic()
                    warn("stopping after a checkpoint; a second signal stops at once")
                    child.send_signal(self.flag.signum)
                if told and time.monotonic() - told > GRACE:
                    child.kill()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            assert child.stdin is not None
            child.stdin.close()

    def _death(self, code: int) -> dict[str, str]:
        """The outcome of a run whose process left no record."""
        if self.flag.signum is not None:
            return {"status": led.STOPPED, "reason": "stopped before a checkpoint"}
        if code in (-signal.SIGKILL, 137):
            return {"status": led.NO_MEMORY, "reason": "killed by the system, probably because the memory was full"}
        said = f"signal {-code}" if code < 0 else f"exit code {code}"
        return {"status": led.FAILED, "reason": f"its process ended with {said}"}


def _environment(smoke: bool) -> Mapping[str, str]:
    """The environment of a worker: this package first on its path, wherever it was imported from.

    Programs of a smoke run are compiled without optimisation, which takes longer than the few steps they run for.
    """
    flags = {"XLA_FLAGS": f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"} if smoke else {}
    root = str(Path(__file__).resolve().parents[2])
    old = os.environ.get("PYTHONPATH")
    return {**os.environ, **flags, "PYTHONPATH": f"{root}{os.pathsep}{old}" if old else root}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = run_files.read_json(path)
    except UserError:
        return None
    return found if isinstance(found.get("status"), str) else None
