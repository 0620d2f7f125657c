"""The command sweep."""

import json

import pytest

from jaxvit import cli, train
from jaxvit import config as config_lib
from tests.helpers import tiny_config, write_npz
from tests.helpers.searches import DECAY, RATE, FakeRuns


@pytest.fixture
def given(tmp_path):
    return tiny_config(write_npz(tmp_path / "data"), sweep__ranges=(RATE, DECAY), num_epochs=3)


def test_mistakes_end_with_two_lines(monkeypatch, capsys, tmp_path):
    name = write_npz(tmp_path / "data")
    (tmp_path / "run.yaml").write_text(
        f"data: {{name: '{name}'}}\nsweep: {{ranges: [[optim.learning_rate, log, 0.001, 0.1]]}}\n"
    )
    argv = ["sweep", "--config", str(tmp_path / "run.yaml"), "--workdir", str(tmp_path / "sweep")]
    cases = [
        ([*argv, "--trials", "0"], "not a whole number of 1 or more"),
        (["sweep", "--config", str(tmp_path / "run.yaml")], "no --workdir"),
        (["sweep", "--workdir", "x"], "no --config"),
        ([*argv, "--trails", "3"], "'--trials'"),
        ([*argv, "--config.data.val_fraction=0"], "data.val_fraction"),
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
    (tmp_path / "sweep").mkdir(exist_ok=True)
    (tmp_path / "sweep/config.json").write_text("{}")
    assert cli.main(argv) == 2
    assert "holds a run" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert cli.main(argv) == 2
    assert "pip install 'jaxvit[tune]'" in capsys.readouterr().err


@pytest.mark.slow  # three trainings
def test_trials_that_all_fail_end_with_code_1_and_a_reason(monkeypatch, given, tmp_path, capsys):
    pytest.importorskip("optuna")
    (tmp_path / "c.json").write_text(json.dumps(config_lib.to_dict(given)))
    ends = {n: train.Diverged("loss is nan at step 3") for n in range(3)}
    monkeypatch.setattr("jaxvit.sweep.trials.train_and_evaluate", FakeRuns(ends))
    argv = ["sweep", "--config", str(tmp_path / "c.json"), "--trials", "3", "--workdir", str(tmp_path / "sweep")]
    assert cli.main(argv) == 1
    said = capsys.readouterr().err
    assert (
        f"error: 3 trials (3 failed), none of them is complete; the reasons are in {tmp_path / 'sweep/trials.csv'}"
        in said
    )
    assert not (tmp_path / "sweep/best.json").exists()
    monkeypatch.setattr("jaxvit.sweep.trials.train_and_evaluate", FakeRuns())
    assert cli.main([*argv[:4], "4", *argv[5:]]) == 0
    assert f"eval --workdir {tmp_path / 'sweep/trial_0003'}" in capsys.readouterr().out.replace("\n", "")
