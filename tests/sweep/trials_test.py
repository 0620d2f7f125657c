"""Sweeps: ranges are read and refused, trials answer, stop, fail and resume, and the outcome is written."""

import csv
import json

import numpy as np
import pytest

from jaxvit import cli, sweep, train
from jaxvit import config as config_lib
from jaxvit.errors import UserError
from jaxvit.runtime import interrupt
from jaxvit.sweep import outcome
from jaxvit.train import finish
from tests.helpers import tiny_config, write_npz

RATE = ("optim.learning_rate", "log", 1e-4, 1e-1)
DECAY = ("optim.weight_decay", "uniform", 0.0, 0.3)


@pytest.fixture
def given(tmp_path):
    return tiny_config(write_npz(tmp_path / "data"), sweep__ranges=(RATE, DECAY), num_epochs=3)


class FakeRuns:
    """Stands in for training: the accuracy is known from the learning rate; `ends` says how a trial ends."""

    def __init__(self, ends=()):
        self.ends, self.rates, self.directories = dict(ends), [], []

    def __call__(self, config, workdir, *, on_evaluation, test):
        assert not test  # the test split selects nothing
        rate = config.optim.learning_rate
        self.rates.append(rate)
        self.directories.append(workdir.name)
        assert not config.sweep.ranges  # a trial is an ordinary run
        accuracy = 1 - abs(np.log10(rate) + 2) / 4
        end = self.ends.pop(len(self.rates) - 1, None)
        for epoch in range(1, config.num_epochs + 1):
            on_evaluation(epoch, {"accuracy": accuracy * epoch / config.num_epochs, "loss": 1.0})
            if end is not None:
                raise end
        return {"val/accuracy": accuracy, "val/loss": 1.0, "test/accuracy": 0.0}


def run(monkeypatch, given, workdir, trials, ends=()):
    fake = FakeRuns(ends)
    monkeypatch.setattr("jaxvit.sweep.trials.train_and_evaluate", fake)
    return sweep.search(given, workdir, trials, command="python main.py --config c.py --workdir best"), fake


def test_the_best_is_found_and_written(monkeypatch, given, tmp_path):
    pytest.importorskip("optuna")
    rows, fake = run(monkeypatch, given, tmp_path / "sweep", 10)
    assert [row["trial"] for row in rows] == list(range(10))
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert all(row["trial"] >= given.sweep.startup_trials and row["epochs"] >= 2 for row in pruned)
    best = json.loads((tmp_path / "sweep/best.json").read_text())
    errors = np.abs(np.log10(fake.rates) + 2)
    assert best["trial"] == f"trial_{errors.argmin():04d}"
    rate = min(fake.rates, key=lambda rate: abs(np.log10(rate) + 2))
    assert f"--config.optim.learning_rate={rate:g} " in best["command"] + " "  # the very number of the run
    with open(tmp_path / "sweep/trials.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["optim.learning_rate"]) for row in table] == fake.rates
    assert (tmp_path / "sweep/sweep.png").stat().st_size > 5000
    again, fake = run(monkeypatch, given, tmp_path / "sweep", 10)  # finished: nothing is run
    assert again == rows and not fake.rates


def test_no_trial_is_stopped_in_its_warm_up(monkeypatch, given, tmp_path):
    pytest.importorskip("optuna")
    given.num_epochs, given.optim.schedule.warmup_epochs = 6, 2.5
    rows, _ = run(monkeypatch, given, tmp_path / "sweep", 10)
    pruned = [row["epochs"] for row in rows if row["state"] == "pruned"]
    assert pruned and min(pruned) == 4


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(monkeypatch, given, tmp_path):
    pytest.importorskip("optuna")
    _, whole = run(monkeypatch, given, tmp_path / "whole", 5)
    stop = interrupt.Interrupted(2, "stopped at step 1")
    with pytest.raises(interrupt.Interrupted):
        run(monkeypatch, given, tmp_path / "cut", 5, {2: stop})
    rows, fake = run(monkeypatch, given, tmp_path / "cut", 5)
    assert fake.directories == ["trial_0002", "trial_0003", "trial_0004"]  # the interrupted one first, at its place
    assert fake.rates == whole.rates[2:]
    assert [row["state"] for row in rows] == ["complete"] * 5
    with pytest.raises(UserError, match="sweep of another config .batch_size: 16 -> 8"):
        given.batch_size = 8
        run(monkeypatch, given, tmp_path / "cut", 6)


def test_failed_trials_are_recorded_and_the_search_goes_on(monkeypatch, given, tmp_path):
    pytest.importorskip("optuna")
    ends = {0: train.Diverged("loss is nan at step 3"), 2: MemoryError("RESOURCE_EXHAUSTED: 3 GiB")}
    rows, _ = run(monkeypatch, given, tmp_path / "sweep", 4, ends)
    assert [row["state"] for row in rows] == ["failed", "complete", "failed", "complete"]
    assert [row["reason"][:9] for row in rows] == ["loss is n", "", "RESOURCE_", ""]
    assert "RESOURCE_EXHAUSTED" in (tmp_path / "sweep/trials.csv").read_text()


def test_a_search_in_which_nothing_works_ends(monkeypatch, given, tmp_path):
    pytest.importorskip("optuna")
    with pytest.raises(UserError, match="first 3 trials have all failed: no such thing"):
        run(monkeypatch, given, tmp_path / "sweep", 9, dict.fromkeys(range(9), UserError("no such thing")))


def test_real_trials_are_runs(given, tmp_path):
    pytest.importorskip("optuna")
    given.num_epochs = 1
    given.sweep.ranges = (RATE, ("model.mlp_ratio", "choice", 1.0, 2.0), ("augment.flip", "choice", False, True))
    rows = sweep.search(given, tmp_path / "sweep", 1)
    assert rows[0]["state"] == "complete"
    directory = tmp_path / "sweep" / outcome.name(0)
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "summary.json"} <= names and "predictions.npz" not in names
    config = json.loads((directory / "config.json").read_text())
    assert config["optim"]["learning_rate"] == float(rows[0]["words"]["optim.learning_rate"])
    final = json.loads((directory / "summary.json").read_text())["final"]
    assert rows[0]["value"] == final["val/accuracy"]


def test_mistakes_end_with_two_lines(monkeypatch, capsys, tmp_path):
    name = write_npz(tmp_path / "data")
    (tmp_path / "run.yaml").write_text(
        f"data: {{name: '{name}'}}\nsweep: {{ranges: [[optim.learning_rate, log, 0.001, 0.1]]}}\n"
    )
    argv = ["sweep", "--config", str(tmp_path / "run.yaml"), "--workdir", str(tmp_path / "sweep")]
    cases = [
        ([*argv, "--trials", "0"], "no whole number of 1 or more"),
        (["sweep", "--config", str(tmp_path / "run.yaml")], "no --workdir"),
        (["sweep", "--workdir", "x"], "no --config"),
        ([*argv, "--trails", "3"], "'--trials'"),
        ([*argv, "--config.data.val_fraction=0"], "compares on validation images"),
        ([*argv, "--config.sweep.sampler=tpee"], "'tpe'"),
        ([*argv, "--config.lr_find"], "lr_find"),
        ([*argv, '--config.sweep.ranges=(("optim.freeze", "choice", "none", "lair1"),)'], "matches no parameter"),
        ([*argv, "--config.model.layers=(0,)"], "layers"),
    ]
    for words, said in cases:
        assert cli.main(words) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert said in " ".join(lines) and len(lines) <= 2, (words, lines)
    assert not (tmp_path / "sweep/study.db").exists()
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert cli.main(argv) == 2
    assert "pip install 'jaxvit[tune]'" in capsys.readouterr().err


def test_trials_that_all_fail_end_with_code_1_and_a_reason(monkeypatch, given, tmp_path, capsys):
    pytest.importorskip("optuna")
    (tmp_path / "c.json").write_text(json.dumps(config_lib.to_dict(given)))
    ends = {n: train.loop.Diverged("loss is nan at step 3") for n in range(3)}
    monkeypatch.setattr("jaxvit.sweep.trials.train_and_evaluate", FakeRuns(ends))
    argv = ["sweep", "--config", str(tmp_path / "c.json"), "--trials", "3", "--workdir", str(tmp_path / "sweep")]
    assert cli.main(argv) == 1
    said = capsys.readouterr().err
    assert f"error: 3 trials (3 failed), none of them complete; reasons in {tmp_path / 'sweep/trials.csv'}" in said
    assert not (tmp_path / "sweep/best.json").exists()
    monkeypatch.setattr("jaxvit.sweep.trials.train_and_evaluate", FakeRuns())
    assert cli.main([*argv[:4], "4", *argv[5:]]) == 0
    assert f"eval --workdir {tmp_path / 'sweep/trial_0003'}" in capsys.readouterr().out.replace("\n", "")


def test_a_trial_leaves_the_test_split_alone_until_it_is_asked_for(given, tmp_path, monkeypatch):
    config = sweep.apply(given, {"optim.learning_rate": 0.01})
    looked = []
    evaluate = finish.evaluate

    def seen(step, variables, feed, *args, **words):
        looked.append(feed)
        return evaluate(step, variables, feed, *args, **words)

    monkeypatch.setattr(finish, "evaluate", seen)
    final = train.train_and_evaluate(config, tmp_path / "run", test=False)
    assert len(set(map(id, looked))) == 1 and not [name for name in final if "test" in name] and "val/accuracy" in final
    assert not (tmp_path / "run/predictions.npz").exists() and not (tmp_path / "run/samples.npz").exists()
    assert train.train_and_evaluate(config, tmp_path / "run", test=False) == final  # finished
    later = train.train_and_evaluate(config, tmp_path / "run")
    assert len(set(map(id, looked))) == 2 and {k: v for k, v in later.items() if "test" not in k} == final
    assert later == train.train_and_evaluate(config, tmp_path / "whole")
