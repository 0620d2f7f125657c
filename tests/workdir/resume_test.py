"""Resuming: what may differ and what may not."""

import functools
import json
import os
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxvit import config as config_lib
from jaxvit import pretrained
from jaxvit.errors import UserError
from jaxvit.models import create_model
from jaxvit.step.state import init_variables
from jaxvit.train import loop as train
from jaxvit.workdir import run_files
from tests.helpers import tiny_config, write_npz
from tests.helpers.workdirs import lines


@pytest.fixture
def data_name(tmp_path):
    return write_npz(tmp_path / "data")


def test_a_word_that_the_version_of_a_run_did_not_have_is_its_default(data_name):
    config = tiny_config(data_name)
    stored = config_lib.to_dict(config)
    del stored["checkpoint"]["min_seconds"]
    assert config_lib.differences(config, stored) == []
    config.checkpoint.min_seconds = 1.0
    assert config_lib.differences(config, stored) == ["checkpoint.min_seconds: 30.0 -> 1.0"]


def test_finished_run_is_left_alone(tmp_path, data_name, capsys):
    config = tiny_config(data_name, num_epochs=1)
    first = train.train_and_evaluate(config, tmp_path / "run")
    written = (tmp_path / "run/summary.json").stat().st_mtime_ns
    assert train.train_and_evaluate(config, tmp_path / "run") == first
    assert (tmp_path / "run/summary.json").stat().st_mtime_ns == written
    assert "already finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        {"data__image_size": 8, "data__mean": (0.5,), "data__std": (0.25, 0.25, 0.25)},
        {"model__image_size": 8, "model__in_channels": 1, "data__mean": (0.1, 0.1, 0.1), "data__std": (0.2, 0.25, 0.3)},
    ],
)
def test_one_number_for_all_sides_or_channels_is_the_same_config(tmp_path, data_name, words, capsys):
    config = tiny_config(data_name, num_epochs=1, **words)
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert train.train_and_evaluate(config, tmp_path / "run") == final
    assert "already finished" in capsys.readouterr().err
    for mean in ((0.5, 0.5, 0.4), ("a",), ()):
        other = tiny_config(data_name, num_epochs=1, **{**words, "data__mean": mean})
        with pytest.raises(UserError, match="data.mean"):
            train.train_and_evaluate(other, tmp_path / "run")


def test_fields_that_the_weights_bring_are_the_same_config(tmp_path, data_name, capsys):
    fields = {"patch_size": 2, "embed_dim": 12, "depth": 1, "num_heads": 3}
    model = create_model("vit_tiny_patch16_224", num_classes=3, image_size=8, **fields)
    pretrained.save(model, init_variables(model, jax.random.key(0), (8, 8, 3)), tmp_path / "weights")
    config = tiny_config(data_name, num_epochs=1, pretrained=str(tmp_path / "weights"))
    with config.unlocked():
        config.model = {"name": "vit_tiny_patch16_224"}
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text())["model"]["depth"] == 1
    assert train.train_and_evaluate(config, tmp_path / "run") == final
    assert "already finished" in capsys.readouterr().err


def test_a_field_that_the_weights_do_not_bring_may_not_be_left_out(tmp_path, data_name):
    fields = {"patch_size": 2, "embed_dim": 12, "depth": 1, "num_heads": 3}
    model = create_model("vit_tiny_patch16_224", num_classes=3, image_size=8, **fields)
    pretrained.save(model, init_variables(model, jax.random.key(0), (8, 8, 3)), tmp_path / "weights")
    config = tiny_config(data_name, num_epochs=1, pretrained=str(tmp_path / "weights"))
    with config.unlocked():
        config.model = {"name": "vit_tiny_patch16_224", "drop_rate": 0.1}
    train.train_and_evaluate(config, tmp_path / "run")
    stored = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/summary.json").unlink()  # its end is still to come
    del config.model.drop_rate
    with pytest.raises(UserError, match="drop_rate: 0.1 -> "):
        train.train_and_evaluate(config, tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text()) == stored


def test_other_config_is_refused_unless_told(tmp_path, data_name):
    train.train_and_evaluate(tiny_config(data_name, num_epochs=1), tmp_path / "run")
    longer = tiny_config(data_name, num_epochs=2)
    with pytest.raises(UserError, match="num_epochs: 1 -> 2"):
        train.train_and_evaluate(longer, tmp_path / "run")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("config.json", "manifest.json", "classes.json")}
    wider = tiny_config(data_name, num_epochs=1, model__embed_dim=24)
    with pytest.raises(UserError, match="belongs to another model"):
        train.train_and_evaluate(wider, tmp_path / "run", force=True)
    assert all((tmp_path / "run" / name).read_bytes() == content for name, content in before.items())
    seen = []
    watch = SimpleNamespace(on_epoch_end=lambda epoch, metrics: seen.extend(os.listdir(tmp_path / "run")))
    final = train.train_and_evaluate(longer, tmp_path / "run", force=True, callbacks=[watch])
    assert final["epochs"] == 2
    assert seen and not set(seen) & set(run_files.OF_THE_END)  # a report would take them for the run's
    assert {*run_files.OF_THE_END[:3]} <= {*os.listdir(tmp_path / "run")}
    assert [line["epoch"] for line in lines(tmp_path / "run")] == [1, 2]


def test_a_run_is_not_resumed_with_other_data(tmp_path, capsys):
    images, labels = np.zeros((24, 8, 8, 3), np.uint8), np.arange(24, dtype=np.int32) % 3
    write = functools.partial(np.savez, tmp_path / "train.npz")
    write(image=images, label=labels)
    np.savez(tmp_path / "test.npz", image=images[:6], label=labels[:6])
    config = tiny_config(f"npz:{tmp_path}")
    config.num_epochs = 1
    train.train_and_evaluate(config, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    classes = (tmp_path / "run" / "classes.json").read_bytes()
    write(image=images, label=(labels + 1) % 3)
    with pytest.raises(UserError, match="has changed since the run .*different labels"):
        train.train_and_evaluate(config, tmp_path / "run")
    write(image=np.concatenate([images, images[:9]]), label=np.concatenate([labels, labels[:9]]))
    with pytest.raises(UserError, match=r"train images, \d+ before"):
        train.train_and_evaluate(config, tmp_path / "run")
    assert (tmp_path / "run" / "classes.json").read_bytes() == classes
    train.train_and_evaluate(config, tmp_path / "run", force=True)
    assert "has changed since the run" in capsys.readouterr().err
