"""A tiny data set and a tiny config, for tests that train; the tools as modules."""

import importlib.util
from pathlib import Path

import numpy as np

from jaxvit import config as config_lib

ROOT = Path(__file__).resolve().parent.parent.parent


def tool(name):
    """A file of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_npz(directory, *, num_train=48, num_test=20, num_classes=3, size=8, channels=3, seed=0):
    """Writes separable images (class k is brighter in channel k) as npz:PATH holds them."""
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", num_train), ("test", num_test)):
        labels = (np.arange(n) % num_classes).astype(np.int32)
        images = rng.integers(0, 120, (n, size, size, channels))
        for i, k in enumerate(labels):
            images[i, :, :, k % channels] += 120
        np.savez(directory / f"{split}.npz", image=images.astype(np.uint8), label=labels)
    return f"npz:{directory}"


def tiny_config(data_name, **words):
    """Returns a config of a one-block ViT that trains in seconds; `words` are a__b=value for a.b=value."""
    config = config_lib.default()
    config.num_epochs = 2
    config.batch_size = 16
    config.model.name = "vit_tiny_patch16_224"
    config.model.update({"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2})
    config.data.name = data_name
    config.augment.flip = True
    config.augment.crop_padding = 1
    config.parallel.num_devices = 1
    with config.unlocked():
        for word, value in words.items():
            target = config
            *parents, name = word.split("__")
            for parent in parents:
                target = target[parent]
            target[name] = value
    return config
