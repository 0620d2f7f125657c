"""What a search leaves."""

import csv
import json

import numpy as np
import pytest

from jaxvit import sweep, train
from jaxvit.train import finish
from tests.helpers import tiny_config, write_npz
from tests.helpers.searches import DECAY, RATE, run


@pytest.fixture
def given(tmp_path):
    return tiny_config(write_npz(tmp_path / "data"), sweep__ranges=(RATE, DECAY), num_epochs=3)


@pytest.mark.slow
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
    assert len(set(map(id, looked))) == 3  # the test split, and validation once more for the temperature
    assert {k: v for k, v in later.items() if "test" not in k} == final
    assert later == train.train_and_evaluate(config, tmp_path / "whole")
