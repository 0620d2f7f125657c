"""Every config loads, is valid, and takes a step of everything on small synthetic data."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvit import config as config_lib
from jaxvit import config_checks, models, train
from tests.helpers import write_npz

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_header_states_the_command_and_what_to_expect(path):
    text = path.read_text(encoding="utf-8")
    assert f"--config configs/{path.name}" in text
    assert "Expect" in text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_takes_a_step(path, tmp_path):
    given = config_lib.load(str(path))
    config_checks.validate(given)
    models.create_model(
        given.model.name, **{k: v for k, v in given.model.items() if k not in ("name", "patch_size")}
    )  # at full size, unless the data decide
    size = 8 if given.data.name == "digits" else 32
    name = write_npz(tmp_path / "data", num_train=24, num_test=6, size=size, channels=1 if size == 8 else 3)
    words = [f"--config.data.name={name}", "--config.fast_dev_run", "--config.batch_size=8", "--config.pretrained=None"]
    words += ["--config.parallel.num_devices=1", "--config.data.image_size=32"] if size == 32 else []
    config = config_lib.load(str(path), words, models.model_fields)
    with config.unlocked():  # small: the test is of the config, not of the machine
        if "resnet" in given.model.name:
            config.model.update({"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)})
        if given.pretrained:
            config.model.update({"depth": 1, "embed_dim": 12, "num_heads": 2})
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert np.isfinite(final["test/loss"])
    resolved = json.loads((tmp_path / "run/config.json").read_text())
    assert resolved["optim"]["name"] == given.optim.name
