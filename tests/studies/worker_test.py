"""A row of a study in its own process."""

import pytest

from jaxvit import train
from jaxvit.errors import UserError
from jaxvit.runtime import interrupt
from jaxvit.studies import worker


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "out of memory"),
        (MemoryError(), "out of memory"),
        (ValueError("odd"), "failed"),
        (train.Diverged("loss is nan"), "diverged"),
        (UserError("no such file"), "failed"),
        (interrupt.Interrupted(15, "stopped at step 3"), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_a_worker_makes_of_an_error(tmp_path, monkeypatch, error, said):
    def fail(config, workdir):
        raise error

    monkeypatch.setattr("jaxvit.train.loop.train_and_evaluate", fail)
    outcome = worker.run({"config": {}, "workdir": str(tmp_path), "throughput": False, "neighbours": None})
    assert outcome["status"] == said and (str(error) in outcome["reason"])
    assert (tmp_path / "error.txt").exists() == (type(error) is ValueError)
