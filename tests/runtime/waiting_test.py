"""Waits for the checkpoint library have a limit, and say what they wait for."""

import threading

import numpy as np
import pytest

from jaxvit.errors import RunError
from jaxvit.runtime import interrupt, waiting
from jaxvit.workdir.checkpoint import Checkpoints


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_SECS", 0.1)
    monkeypatch.setattr(waiting, "LIMIT_SECS", 0.35)
    yield
    waiting.stuck = False


def test_a_save_that_never_ends_is_given_up(tmp_path, monkeypatch, short, capsys):
    checkpoints = Checkpoints(tmp_path)
    held = threading.Event()
    main = threading.current_thread()  # in which the library waits for the save before

    def hang():
        if threading.current_thread() is not main:
            held.wait(20)

    monkeypatch.setattr(checkpoints._savers["last"], "wait_until_finished", hang)
    checkpoints.save("last", 3, {"w": np.zeros(2, np.float32)}, {})
    with pytest.raises(RunError, match="last' step 3: no answer from the disk for 0.3 s\n.*the same command .*resumes"):
        checkpoints.wait()
    assert waiting.stuck
    said = capsys.readouterr().err.splitlines()
    assert said and all("step 3: no answer from the disk for 0." in line for line in said)
    held.set()
    checkpoints.close()


def test_a_call_that_cannot_be_left_ends_the_process_with_two_lines(monkeypatch, short, capsys):
    codes = []
    monkeypatch.setattr(interrupt, "owns_the_process", True)
    monkeypatch.setattr(interrupt, "leave", codes.append)
    with waiting.limited("checkpoint 'last' step 3"):
        threading.Event().wait(0.8)
    assert codes == [1]
    assert capsys.readouterr().err.splitlines()[-2].startswith("error: checkpoint 'last' step 3: no answer")


def test_the_calls_own_result_and_error_come_through():
    assert waiting.result(waiting.begin(lambda x: x + 1, 2), "this") == 3
    with pytest.raises(TimeoutError, match="its own"):
        waiting.result(waiting.begin(_own_timeout), "this")


def _own_timeout():
    raise TimeoutError("its own")
