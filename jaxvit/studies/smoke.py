"""The smoke form of a study: every row with a small model of its family, few real images and few steps.

Rows that start from published weights start from weight files all the same: written here, by `pretrained.save`, with
weights drawn at random, and loaded on the ordinary way.
"""

import copy
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit import data, models, pretrained
from jaxvit.build import parts
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models import registry

TRAIN_IMAGES, TEST_IMAGES = 240, 160  # of all classes together
BATCH_SIZE = 16
EPOCHS = 2
SEEDS = 2  # at most, unless --seeds says otherwise


def reduce(config: Config) -> Config:
    """Returns a copy of a row's config with a small model and a short training; data and weights are the caller's."""
    config = copy.deepcopy(config)
    fields = {**models.model_fields(config.model.name), **config.model}
    small = registry.model_entry(config.model.name)[0].small(fields)
    with config.unlocked(), config.ignore_type():
        config.model.update({**small, "in_channels": 3})
        config.data.image_size, config.data.train_sizes = None, ()
        config.num_epochs = min(config.num_epochs, EPOCHS)
        config.batch_size = min(config.batch_size, BATCH_SIZE)
        config.optim.schedule.warmup_epochs = min(config.optim.schedule.warmup_epochs, 0.5)
        config.augment.crop_padding = min(config.augment.crop_padding, 1)
        config.augment.policy = None  # its operations compile for longer than all the rest
        if config.pretrain.name is not None:
            short = {"num_epochs": min(config.pretrain.num_epochs, EPOCHS), "batch_size": None}
            config.pretrain.update({**short, "decoder_depth": 1, "decoder_embed_dim": 16, "decoder_num_heads": None})
        config.dtype = "float32"
        config.parallel.num_devices = 1
    return config


def write_data(config: Config, directory: Path, folds: int = 1) -> str:
    """Writes a few real images of each class of the config's data as arrays; returns the name to load them by.

    Each class has enough training images for this many folds.
    """
    name = f"npz:{directory}"
    if (directory / "test.npz").exists():
        return name
    source = copy.deepcopy(config)
    with source.unlocked():
        source.data.update({"fraction": 1.0, "per_class": None, "val_fraction": 0.0, "fold": None})
        source.seed = 0
    dataset = parts.load_data(source)
    if dataset.train.images is None:
        raise UserError(f"{config.data.name} does not have small images; a smoke run takes CIFAR or digits")
    directory.mkdir(parents=True, exist_ok=True)
    for split, wanted in ((dataset.train, TRAIN_IMAGES), (dataset.test, TEST_IMAGES)):
        chosen = _few(
            split.labels, wanted, len(dataset.class_names), least=max(4, folds) if split is dataset.train else 1
        )
        names = {"class_names": np.array(list(dataset.class_names))} if split is dataset.train else {}
        part = data_images(split, chosen)
        temporary = directory / f"{split.name}.part.npz"
        np.savez(temporary, image=part, label=split.labels[chosen], **names)  # type: ignore[arg-type]
        temporary.replace(directory / f"{split.name}.npz")
    return name


def data_images(split: data.Split, chosen: np.ndarray) -> np.ndarray:
    """The images at these positions as RGB, uint8 [n, h, w, 3]: rows with weights and without see the same."""
    assert split.images is not None
    images = np.asarray(split.images[chosen])
    return images if images.shape[-1] == 3 else images[..., :1].repeat(3, axis=-1)


def _few(labels: np.ndarray, wanted: int, classes: int, least: int) -> np.ndarray:
    """Positions of the first images of each class, about `wanted` in all, in their order."""
    each = max(least, wanted // classes)
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(classes)]))


def write_weights(config: Config, directory: Path) -> Path:
    """Writes random weights for the config's model with 1,000 classes, once for each shape; returns the directory."""
    fields = {k: v for k, v in config.model.items() if k not in ("name", "num_classes") and not k.endswith("_rate")}
    key = hashlib.sha256(json.dumps([config.model.name, fields], sort_keys=True, default=str).encode()).hexdigest()
    target = directory / f"{config.model.name}-{key[:8]}"
    if (target / "config.json").exists():
        return target
    import jax

    from jaxvit.pretrained import draw

    model = models.create_model(config.model.name, **fields, num_classes=1000)
    size = model_size(model)
    images = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    named = {name: np.shape(tensor) for name, tensor in pretrained.export(model, empty).items()}
    variables = pretrained.convert(model, draw.state_dict(named))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that timm cannot load these small shapes does not matter here
        pretrained.save(model, variables, target, name=config.model.name, licence="")
    return target


def model_size(model: Any) -> tuple[int, int]:
    """(height, width) that the model is made for."""
    from jaxvit.models.layers import to_pair

    height, width = to_pair(model.image_size)
    return int(height), int(width)
