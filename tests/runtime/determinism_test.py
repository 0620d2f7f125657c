"""config.deterministic: the flag is set once, in time, and asked for where it is too late."""

import os

import jax
import pytest

from jaxvit import train
from jaxvit.errors import UserError
from jaxvit.runtime import determinism
from tests.helpers import tiny_config, write_npz


@pytest.mark.parametrize("before", ["", "--xla_gpu_deterministic_ops=false", "--xla_cpu_enable_fast_math=false"])
def test_the_flag_is_added_once(monkeypatch, before):
    monkeypatch.setenv("XLA_FLAGS", before)
    determinism.switch_on()
    assert os.environ["XLA_FLAGS"].split() == [*before.split(), "--xla_gpu_deterministic_ops=true"]
    determinism.switch_on()
    assert os.environ["XLA_FLAGS"].count("=true") == 1


def test_too_late_on_a_gpu_is_an_error_and_elsewhere_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "")
    determinism.check()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = tiny_config(write_npz(tmp_path / "data"), deterministic=True)
    with pytest.raises(UserError, match="config.deterministic needs XLA_FLAGS") as caught:
        train.train_and_evaluate(config, tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 2
    determinism.switch_on()
    determinism.check()
