"""What a config means: the data set, the model and its variables, and what lies between images and model.

Shared by training (a config) and by evaluation and prediction (a finished run's config.json).
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxvit import data, models, plugins
from jaxvit.config.default import Config
from jaxvit.data import augment, crops, opencv, workers
from jaxvit.errors import UserError
from jaxvit.precision import full_float
from jaxvit.pretrained.files import WEIGHT_SUFFIXES
from jaxvit.runtime import machine

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16, "float64": None}


def load_data(
    config: Config,
    skipped_file: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    to_train: bool = True,
    prefer: Sequence[str] = (),
    given: data.Dataset | Mapping[str, Any] | None = None,
) -> data.Dataset:
    """Returns the data set that `config.data` names; unreadable files are listed in `skipped_file`.

    `class_names` is the order of the classes of a run, which it keeps; for `to_train` and `prefer` see
    `data.load_dataset`. One that is `given` goes before the name: a data set as it is, arrays with validation drawn and
    limits set.
    """
    d = config.data
    if given is not None and not isinstance(given, data.Dataset | Mapping):
        raise UserError(f"dataset is {type(given).__name__}; expected arrays by split, or a jaxvit.data.Dataset")
    if isinstance(given, data.Dataset):
        return dataclasses.replace(given, name=d.name)
    return data.load_dataset(
        d.name,
        seed=config.seed,
        fraction=d.fraction,
        per_class=d.per_class,
        imbalance=d.imbalance,
        val_fraction=d.val_fraction,
        data_dir=d.dir,
        archive=d.archive,
        skipped_file=None if skipped_file is None else str(skipped_file),
        test_limit=d.test_limit,
        fold=d.fold,
        max_bad_fraction=d.max_bad_fraction,
        class_names=class_names,
        to_train=to_train,
        columns=d.columns,
        rescan=d.rescan,
        prefer=prefer,
        arrays=given,
    )


def make_model(config: Config) -> nn.Module:
    """Returns the model of a resolved config, without weights."""
    return models.create_model(config.model.name, **model_fields(config))


def model_fields(config: Config) -> dict[str, Any]:
    """Returns the fields of the model that a resolved config sets."""
    fields = {name: value for name, value in config.model.items() if name != "name" and value is not None}
    return {**fields, "dtype": DTYPES[config.dtype]}


def variable_shapes(model: nn.Module, image_size: tuple[int, ...], in_channels: int) -> Any:
    """Returns the shapes of a model's variables; nothing is drawn."""
    images = jax.ShapeDtypeStruct((1, *image_size, in_channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def make_to_float(in_channels: int) -> Callable[[Array], Array]:
    """Returns uint8 [b, h, w, c] -> float32 [b, h, w, in_channels] in [0, 1]."""
    return lambda images: augment.to_channels(images.astype(full_float()) / 255.0, in_channels)


def make_normalise(
    image_size: tuple[int, int], interpolation: str, mean: tuple, std: tuple
) -> Callable[[Array], Array]:
    """Returns float32 images in [0, 1] -> resized to `image_size`, minus `mean`, divided by `std`."""
    mean_, std_ = (np.asarray(v, np.float32).reshape(1, 1, 1, -1) for v in (mean, std))

    def normalise(images: Array) -> Array:
        images = jnp.clip(augment.resize(images, image_size, interpolation), 0.0, 1.0)  # bicubic overshoots
        return (images - mean_) / std_

    return normalise


def make_crop(config: Config, size: tuple[int, int] | None = None) -> data.Crop | None:
    """Returns what cuts photos to training images; None where their centre is resized once, and the device crops.

    `size` (h, w) is that of the images; None: `data.image_size`.
    """
    options, size = config.augment.to_dict(), size or tuple(config.data.image_size)
    draw = crops.make_draw(options, size, config.data.interpolation)
    if draw is None or options["crop_from"] == "resized":
        return None
    if config.data.decoder == "opencv":
        opencv.version()  # says what is missing
    return data.Crop(draw, size, len(config.data.mean), config.data.decoder)


def readers(config: Config, split: data.Split) -> tuple[int, bool]:
    """How many workers read the images of a split that is streamed, and whether these are processes."""
    kind = config.data.workers or ("processes" if workers.SUPPORTED else "threads")
    processes = kind == "processes" and split.file is not None
    usual = min(machine.cores(), workers.MOST) if processes else data.NUM_THREADS
    return config.data.num_workers or usual, processes


def make_feed(
    config: Config,
    split: data.Split,
    sharding: Any = None,
    crop_mode: str = "center",
    *,
    to_train: bool = False,
    sizes: Sequence[tuple[int, tuple[int, int]]] = (),
) -> Any:
    """Returns the batches of one split: on the device where it is small enough, else streamed.

    `to_train`: photos are cropped at random where batches are asked for with draws; `sizes` are (first epoch, (h, w))
    of these crops, `data.image_size` where there are none.
    """
    d = config.data
    transform, (num_workers, processes) = None, readers(config, split)
    if split.images is None:  # images of any size: to the model's on the host, as timm's evaluation does
        transform = data.make_transform(
            tuple(d.image_size),
            len(d.mean),
            crop_pct=d.crop_pct,
            interpolation=d.interpolation,
            crop_mode=crop_mode,
        )
    make = functools.partial(
        data.make_feed,
        split,
        transform=transform,
        sharding=sharding,
        resident_bytes=d.resident_mb * 2**20,
        max_unreadable=max(d.max_bad_fraction, data.MAX_UNREADABLE),
        num_workers=num_workers,
        processes=processes,
    )
    if not to_train or split.images is not None or make_crop(config) is None:
        return make()
    by_size = {size: make(crop=make_crop(config, size)) for _, size in sizes}
    feeds = [(epoch, by_size[size]) for epoch, size in sizes]
    return data.BySize(feeds) if len(by_size) > 1 else feeds[0][1] if feeds else make(crop=make_crop(config))


def imports(config: Config) -> tuple[str, ...]:
    """The modules that a run needs: those it was given, and those that have registered the parts it names."""
    named = [
        ("model", models.split_tag(config.model.name)[0]),
        ("data set", config.data.name.partition(":")[0]),
        ("optimiser", config.optim.name),
        ("schedule", config.optim.schedule.name),
        ("loss", config.loss.name),
        *(("augmentation", name) for name in config.augment.options),
        *(("metric", name) for name in (config.early_stopping.metric, config.optim.schedule.metric) if name),
    ]
    return tuple(dict.fromkeys((*config.imports, *plugins.modules_of(named))))


def record_fields(config: Config, model: nn.Module) -> None:
    """Writes into `config.model` each field in which the model differs from its name's defaults."""
    with config.unlocked(), config.ignore_type():
        for field, usual in models.model_fields(config.model.name).items():
            value = getattr(model, field)
            if field != "dtype" and value != usual:
                config.model[field] = value


def pretrained_name(word: str) -> str | None:
    """Returns the timm name, without tag, that `config.pretrained` is, or None where it is a path."""
    name = models.split_tag(word)[0]
    is_file = word.lower().endswith(WEIGHT_SUFFIXES)  # "resnet18.safetensors" is not a tag of resnet18
    return name if name in models.list_models() and not is_file else None
