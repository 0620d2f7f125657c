"""A batch that does not fit the device is computed in parts: chosen, said, recorded, kept; not under BatchNorm."""

import json

import chex
import pytest

from jaxvit import train
from jaxvit.errors import UserError
from jaxvit.runtime import console
from jaxvit.train import micro_batch
from tests.helpers import tiny_config, write_npz
from tests.helpers.workdirs import final_state


def test_sizes_are_equal_parts_that_split_over_the_mesh():
    assert micro_batch.sizes(16, 1) == [1, 2, 4, 8, 16]
    assert micro_batch.sizes(48, 8) == [1, 2, 6]
    assert micro_batch.sizes(7, 1) == [1, 7]


@pytest.fixture
def data_name(tmp_path):
    return write_npz(tmp_path / "data")


def needs(monkeypatch, limit):
    """A device with `limit` bytes, on which an image needs one."""
    monkeypatch.setattr(micro_batch, "device_limit", lambda: limit)
    tried = []

    def planned(step, args):
        assert console._screen._running[-1].title.startswith("compiling")  # nothing else would be seen for minutes
        tried.append(step)
        return 16 // 2 ** (len(tried) - 1)

    monkeypatch.setattr(micro_batch, "planned_bytes", planned)
    return tried


def test_the_largest_part_that_fits_is_taken_recorded_and_kept(tmp_path, data_name, monkeypatch, capsys):
    config = tiny_config(data_name, num_epochs=1)
    train.train_and_evaluate(config, tmp_path / "whole")
    tried = needs(monkeypatch, 5)
    train.train_and_evaluate(config, tmp_path / "parts")
    assert len(tried) == 3
    assert "batch 16 in 4 parts of 4" in capsys.readouterr().err
    recorded = json.loads((tmp_path / "parts/config.json").read_text())
    assert (recorded["batch_size"], recorded["micro_batch"], recorded["optim"]["accum_steps"]) == (16, 4, 1)
    chex.assert_trees_all_close(
        final_state(tmp_path / "whole")["params"], final_state(tmp_path / "parts")["params"], atol=1e-5
    )
    # the same command again, on a larger device: nothing to do, and the same config
    monkeypatch.setattr(micro_batch, "device_limit", lambda: None)
    assert micro_batch.kept(config, tmp_path / "parts").micro_batch == 4
    train.train_and_evaluate(config, tmp_path / "parts")
    assert "already finished" in capsys.readouterr().err


@pytest.mark.slow
def test_batch_norm_is_not_cut_unless_asked(tmp_path, data_name, monkeypatch):
    words = {"layers": (1, 1), "channels": (4, 4), "block": "basic", "stem": "cifar"}
    config = tiny_config(data_name, num_epochs=1, fast_dev_run=True)
    with config.unlocked():
        config.model.name = "resnet18"
        for field in ("patch_size", "embed_dim", "depth", "num_heads"):
            del config.model[field]
        config.model.update(words)
    needs(monkeypatch, 8)
    with pytest.raises(UserError, match="BatchNorm") as error:
        train.train_and_evaluate(config, tmp_path / "refused")
    assert len(str(error.value).splitlines()) == 2
    needs(monkeypatch, 8)
    config.auto_micro_batch = "always"
    train.train_and_evaluate(config, tmp_path / "cut")
    assert json.loads((tmp_path / "cut/config.json").read_text())["micro_batch"] == 8


def test_the_analysis_sees_the_batch():
    import jax
    import jax.numpy as jnp

    step = jax.jit(lambda x: jnp.sort(x * 2, axis=0).sum() + (x @ x.T).sum())
    small, large = (micro_batch.planned_bytes(step, (jnp.ones((n, 64)),)) for n in (8, 64))
    assert 0 < small < large


def test_what_does_not_fit_at_all_is_said(tmp_path, data_name, monkeypatch):
    needs(monkeypatch, 0)
    with pytest.raises(UserError, match="one image per device needs"):
        train.train_and_evaluate(tiny_config(data_name), tmp_path / "run")
    monkeypatch.setattr(micro_batch, "device_limit", lambda: None)
    with pytest.raises(UserError, match="micro_batch 5 does not divide"):
        train.train_and_evaluate(tiny_config(data_name, micro_batch=5), tmp_path / "run")
