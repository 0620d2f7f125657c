"""Several steps in one program: the same run, boundaries where they were, no compilation too many."""

import collections
import json
import signal

import chex
import jax
import pytest

from jaxvit.runtime.interrupt import Interrupted
from jaxvit.step import steps
from jaxvit.train import loop as train
from jaxvit.train import micro_batch, multi_step
from tests.helpers import tiny_config, write_npz
from tests.helpers.workdirs import final_state, lines


def cut(first, last, most, every=None, sharp=()):
    return list(multi_step.plan(first, last, most, every, lambda step: step in sharp))


def test_plans_by_hand():
    assert cut(0, 10, 4) == [4, 4, 1, 1]
    assert cut(3, 10, 4) == [4, 1, 1, 1]  # resumed
    assert cut(0, 10, 4, every=5) == [4, 1, 4, 1]  # checkpoints after 5 and 10
    assert cut(0, 3, 4) == [1, 1, 1]
    assert cut(0, 8, 2, sharp=(3, 4, 5)) == [2, 1, 2, 1, 2]  # kinds do not mix
    assert sum(cut(7, 1234, 32, every=100)) == 1234 - 7


@pytest.fixture
def data_name(tmp_path):
    return write_npz(tmp_path / "data", num_train=96)


def compiled_by(call):
    """How often each function was compiled in `call()`."""
    found = collections.Counter()

    def listen(event, _, fun_name="", **__):
        if event.endswith("backend_compile_duration"):
            found.update([fun_name.removeprefix("jit(").removesuffix(")")])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        call()
    finally:
        jax._src.monitoring.unregister_event_duration_listener(listen)
    return found


@pytest.mark.parametrize("several", [None, 2])
def test_what_the_memory_is_planned_with_is_what_runs(tmp_path, data_name, several, monkeypatch):
    """On a device that knows its memory nothing is compiled for the plan alone, and the average has no own program."""
    monkeypatch.setattr(micro_batch, "device_limit", lambda: 60 * 2**30)
    config = tiny_config(data_name, num_epochs=1, steps_per_dispatch=several, ema__decay=0.5, batch_size=10)
    found = compiled_by(lambda: train.train_and_evaluate(config, tmp_path / "run"))
    assert (found["train_step"], found["many"]) == ((1, 0) if several is None else (0, 1))
    assert found["eval_step"] == 1  # of the weights and their average, of both splits
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert 0 < summary["compile_seconds"] < 600


WORDS = {
    "num_epochs": 2,
    "optim__name": "sgd",
    "optim__learning_rate": 0.1,
    "model__drop_path_rate": 0.2,
    "checkpoint__every_steps": 3,
}


def test_a_run_of_two_steps_at_once_is_the_run_of_single_steps(tmp_path, data_name):
    """Same batches, draws and rates; the sums may be added in another order inside one program."""
    traces = []
    original = steps.make_many

    def counted(step, sharding):
        many = original(step, sharding)

        def traced(*args):
            traces.append(1)
            return many(*args)

        return traced

    steps.make_many = counted
    try:
        train.train_and_evaluate(tiny_config(data_name, **WORDS), tmp_path / "one")
        train.train_and_evaluate(tiny_config(data_name, steps_per_dispatch=2, **WORDS), tmp_path / "two")
    finally:
        steps.make_many = original
    assert len(traces) == 1
    one, two = (final_state(tmp_path / name) for name in ("one", "two"))
    assert int(one["step"]) == int(two["step"]) == 10
    chex.assert_trees_all_close(one["params"], two["params"], atol=1e-5)
    for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.slow
def test_a_signal_is_heard_after_the_dispatch_and_the_run_goes_on(tmp_path, data_name, monkeypatch):
    config = tiny_config(data_name, steps_per_dispatch=2, **WORDS)
    train.train_and_evaluate(config, tmp_path / "whole")
    original = train.Run.take_step

    def take(self, step, *args):
        if step == 6:
            signal.raise_signal(signal.SIGTERM)
        return original(self, step, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "take_step", take)
        with pytest.raises(Interrupted, match="stopped at step 8"):
            train.train_and_evaluate(config, tmp_path / "parts")
    train.train_and_evaluate(config, tmp_path / "parts")
    chex.assert_trees_all_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
