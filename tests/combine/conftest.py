"""Runs of one experiment, of which one was trained: the others have its files, and weights near its own."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxvit import inference, train
from jaxvit.workdir.checkpoint import Checkpoints
from tests.helpers import tiny_config, write_npz


def copy_run(source, target, *, noise, seed=0, **words):
    """A run like `source` with weights `noise` away from its own; `words` are words of its config's data."""
    # summary.json records the data of the run that was trained, which another seed splits otherwise
    left = shutil.ignore_patterns("checkpoints", "manifest.json", "events", "summary.json")
    shutil.copytree(source, target, ignore=left)
    config = json.loads((target / "config.json").read_text())
    config["seed"] = seed
    config["data"] |= words
    (target / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(int(1000 * noise))
    old = inference.from_run(source).variables
    new = jax.tree.map(lambda x: np.float32(x + noise * rng.normal(size=x.shape)), old)
    checkpoints = Checkpoints(target / "checkpoints")
    checkpoints.save("best", 1, new, {})
    checkpoints.close()
    return target


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """run0; run1 with another seed; near and far with the same seed, but other weights; other of other data."""
    root = tmp_path_factory.mktemp("combine")
    name = write_npz(root / "data", num_test=30, num_train=60)
    plain = {"augment__flip": False, "augment__crop_padding": 0, "calibrate": False}  # programs that need not compile
    config = tiny_config(name, num_epochs=6, optim__learning_rate=1e-2, data__val_fraction=0.3, **plain)
    train.train_and_evaluate(config, root / "run0")
    copy_run(root / "run0", root / "run1", noise=0.05, seed=1)
    copy_run(root / "run0", root / "near", noise=0.02)
    copy_run(root / "run0", root / "far", noise=1.0)
    copy_run(root / "run0", root / "other", noise=0.1, name="npz:elsewhere")
    return root
