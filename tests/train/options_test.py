"""How often a run saves."""

import pytest

from jaxvit.train import finish
from jaxvit.train import loop as train
from jaxvit.workdir.checkpoint import Checkpoints
from tests.helpers import tiny_config, write_npz


@pytest.fixture
def data_name(tmp_path):
    return write_npz(tmp_path / "data")


class Clock:
    """Seconds that pass only when an epoch is evaluated."""

    now = 0.0

    @classmethod
    def monotonic(cls):
        return cls.now


def saves_of(monkeypatch, tmp_path, data_name, seconds_an_epoch, **words):
    """The steps whose states a run of six epochs of two steps saved."""
    saves, clock = [], type("Clock", (Clock,), {})
    save, evaluate = Checkpoints.save, finish.evaluate

    def saved(self, kind, step, *args, **kwargs):
        saves.extend([step] if kind == "last" else [])
        save(self, kind, step, *args, **kwargs)
        self.wait()

    def evaluated(*args, **kwargs):
        clock.now += seconds_an_epoch
        return evaluate(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", saved)
        patch.setattr(finish, "evaluate", evaluated)
        patch.setattr("jaxvit.train.epochs.time", clock)
        patch.setattr("jaxvit.train.run.time", clock)
        train.train_and_evaluate(tiny_config(data_name, num_epochs=6, **words), tmp_path)
    return saves


SAVES = {  # what the config says -> the steps whose states are saved
    "default": ({}, [2, 8, 12]),  # 10 s an epoch: the first, then not before 30 s have passed, and the end
    "seconds": ({"checkpoint__min_seconds": 0.0}, [2, 4, 6, 8, 10, 12]),
    "epochs": ({"checkpoint__min_seconds": 0.0, "checkpoint__every_epochs": 4}, [8, 12]),
    "steps": ({"checkpoint__every_steps": 3}, [2, 3, 6, 9, 12]),
    "keep": ({"checkpoint__keep_every_steps": 5}, [2, 6, 10, 12]),
    "rollback": ({"loss__on_nan": "rollback"}, [0, 2, 4, 6, 8, 10, 12]),
}  # fmt: skip
QUICK = ("default", "epochs", "steps")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SAVES])
def test_states_are_saved_as_often_as_the_config_says(tmp_path, data_name, monkeypatch, name):
    words, steps = SAVES[name]
    assert saves_of(monkeypatch, tmp_path / name, data_name, 10, **words) == steps
