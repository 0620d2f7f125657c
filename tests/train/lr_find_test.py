"""The learning-rate finder: its suggestion on a known curve, its files."""

import numpy as np
import pytest

from jaxvit import train
from jaxvit.errors import UserError
from jaxvit.train import lr_find
from tests.helpers import tiny_config, write_npz


def test_the_steepest_fall_is_suggested():
    rates = np.geomspace(1e-6, 1e1, 100)
    x = np.log10(rates)
    losses = 2 - 1.5 / (1 + np.exp(-4 * (x + 3))) + 10 * np.exp(4 * (x - 0.5))  # falls around 1e-3, explodes past 1
    assert 7e-4 < lr_find.suggest_rate(rates, losses) < 1.5e-3
    noisy = losses + np.random.default_rng(0).normal(size=100) * 0.1
    assert 3e-4 < lr_find.suggest_rate(rates, noisy) < 3e-3
    losses[-3:] = np.nan
    assert 7e-4 < lr_find.suggest_rate(rates, losses) < 1.5e-3
    with pytest.raises(UserError, match="never fell"):
        lr_find.suggest_rate(rates, 1 + rates)


def test_files(tmp_path, monkeypatch):
    monkeypatch.setattr(lr_find, "STEPS", 12)
    config = tiny_config(write_npz(tmp_path / "data"), lr_find=True, optim__learning_rate=1e-3)
    found = train.train_and_evaluate(config, tmp_path / "run")
    rows = (tmp_path / "run/lr_find.csv").read_text().splitlines()
    assert rows[0] == "learning_rate,loss" and len(rows) == 1 + found["steps"]
    assert float(rows[1].split(",")[0]) == pytest.approx(1e-7, rel=1e-3)
    assert not (tmp_path / "run/summary.json").exists()
