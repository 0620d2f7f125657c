"""The average of the weights on runs that are too short for it, and on runs from before its warm-up."""

import json

import numpy as np
import pytest

from jaxvit import train
from jaxvit.optim import ema
from jaxvit.train import summary
from jaxvit.train.decisions import Rules
from tests.helpers import tiny_config, write_npz


def test_the_warm_up_by_default_is_tensorflows():
    """ExponentialMovingAverage(decay, num_updates): min(decay, (1 + num_updates) / (10 + num_updates))."""
    steps = np.array([1, 2, 11, 101, 44_993, 50_001])
    found = [float(ema.decay_at(step, 0.9998, warmup=None)) for step in steps]
    np.testing.assert_allclose(found, [0.0, 2 / 11, 11 / 20, 101 / 110, 44993 / 45002, 0.9998], rtol=1e-6)


def test_a_short_run_reports_its_raw_weights_beside_the_average(tmp_path, capsys):
    """A constant decay of 0.9998 leaves the average at the beginning: the raw weights are what is best."""
    words = {"num_epochs": 12, "optim__learning_rate": 1e-2, "ema__decay": 0.9998}
    data = write_npz(tmp_path / "data", num_train=96)
    final = train.train_and_evaluate(tiny_config(data, ema__warmup=False, **words), tmp_path / "constant")
    said = capsys.readouterr().err
    assert "ema.decay 0.9998 averages over 5,000 steps, but training has 60" in said
    assert final["weights"] == "raw" and final["test/accuracy"] > 0.9
    assert final["test_raw/accuracy"] > final["test_average/accuracy"] + 0.3
    assert f"last weights: raw {final['test_raw/accuracy']:.2%}" in said
    stored = json.loads((tmp_path / "constant/summary.json").read_text())
    assert stored["best"]["weights"] == "raw" and stored["final"] == final
    warmed = train.train_and_evaluate(tiny_config(data, **words), tmp_path / "warmed")
    assert warmed["test_average/accuracy"] > final["test_average/accuracy"] + 0.3
    assert "averages over" not in capsys.readouterr().err


def test_a_run_from_before_the_warm_up_goes_on_without_it(tmp_path, monkeypatch):
    data = write_npz(tmp_path / "data")
    often = {"num_epochs": 2, "ema__decay": 0.9, "checkpoint__every_steps": 3}
    old = tiny_config(data, ema__warmup=False, **often)
    whole = train.train_and_evaluate(old, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(epoch, val):
        raise Stop

    with pytest.raises(Stop):
        train.train_and_evaluate(old, tmp_path / "run", on_evaluation=stop)
    config = tiny_config(data, **often)
    assert config.ema.warmup is None
    assert train.train_and_evaluate(config, tmp_path / "run") == whole
    assert json.loads((tmp_path / "run/config.json").read_text())["ema"]["warmup"] is False


def test_the_better_of_both_decides():
    rules = Rules(metric="accuracy")
    raw, average = {"accuracy": 0.84, "loss": 0.5}, {"accuracy": 0.1, "loss": 2.3}
    assert rules.choose({"val": raw, "val_ema": average}) == "val"
    assert rules.choose({"val": average, "val_ema": raw}) == "val_ema"
    assert rules.choose({"val": raw, "val_ema": dict(raw)}) == "val_ema"  # the average, of equal ones
    assert rules.choose({"val": {"accuracy": float("nan"), "loss": float("nan")}, "val_ema": average}) == "val_ema"
    assert Rules(metric="loss", restore=False).choose({"val": raw, "val_ema": average}) == "val"
    both = {"val/accuracy": 0.8, "val/loss": 1.0, "val_ema/accuracy": 0.1, "val_ema/loss": 2.0}
    assert summary.decisive(both)["accuracy"] == 0.1  # of a run from before there was a choice
    assert summary.decisive({**both, "weights": "raw"})["accuracy"] == 0.8
