"""NumPy's numbers in a config."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import config as config_lib
from jaxvit import data
from jaxvit.build import checks


def nothing_is_read(*args, **words):
    raise AssertionError("data were read")


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.setattr(data, "load_dataset", nothing_is_read)


def test_numpys_numbers_are_numbers():
    config = config_lib.default()
    config.num_epochs, config.augment.flip, config.data.per_class = np.int64(3), np.bool_(True), np.int32(4)
    config.optim.learning_rate, config.optim.weight_decay = np.float32(0.25), jnp.float32(0.5)
    config.augment.crop_ratio = (np.float32(0.5), np.float64(2))
    config.model.update({"name": "vit_tiny_patch16_224", "drop_path_rate": np.float16(0.5), "depth": np.array(3)})
    checks.check(config)
    plain = config_lib.to_dict(config)
    assert (plain["num_epochs"], plain["augment"]["flip"], plain["data"]["per_class"]) == (3, True, 4)
    assert plain["optim"]["learning_rate"] == 0.25 and plain["optim"]["weight_decay"] == 0.5
    assert plain["augment"]["crop_ratio"] == [0.5, 2.0] and plain["model"]["drop_path_rate"] == 0.5
    assert json.loads(json.dumps(plain)) == plain
    config.pretrained = Path("weights") / "a.npz"
    assert config.pretrained == str(Path("weights") / "a.npz")
    for wrong in (np.float32(2.5), np.array([1, 2]), np.str_("many")):
        with pytest.raises(TypeError):
            config.num_epochs = wrong
