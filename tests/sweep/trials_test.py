"""Sweeps: ranges are read and refused, trials answer, stop, fail and resume, and the outcome is written."""

import json

import pytest

from jaxvit import sweep, train
from jaxvit.errors import UserError
from jaxvit.runtime import interrupt
from jaxvit.sweep import outcome
from tests.helpers import tiny_config, write_npz
from tests.helpers.searches import DECAY, RATE, run


@pytest.fixture
def given(tmp_path):
    return tiny_config(write_npz(tmp_path / "data"), sweep__ranges=(RATE, DECAY), num_epochs=3)


@pytest.mark.slow
def test_no_trial_is_stopped_in_its_warm_up(monkeypatch, given, tmp_path):
    pytest.importorskip("optuna")
    given.num_epochs, given.optim.schedule.warmup_epochs = 6, 2.5
    rows, _ = run(monkeypatch, given, tmp_path / "sweep", 10)
    pruned = [row["epochs"] for row in rows if row["state"] == "pruned"]
    assert pruned and min(pruned) == 4


@pytest.mark.slow
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
    with pytest.raises(UserError, match="sweep of a different config .batch_size: 16 -> 8"):
        given.batch_size = 8
        run(monkeypatch, given, tmp_path / "cut", 6)


def test_a_search_does_not_go_on_with_other_data(monkeypatch, given, tmp_path):
    pytest.importorskip("optuna")
    run(monkeypatch, given, tmp_path / "sweep", 1)
    write_npz(tmp_path / "data", num_train=50)
    with pytest.raises(UserError, match="has changed since the sweep in .* started .45 train images, 43 before"):
        run(monkeypatch, given, tmp_path / "sweep", 2)


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
