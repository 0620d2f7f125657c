"""What a config means: the data set, the model and its variables, and what lies between images and model.

Shared by training (a config) and by evaluation and prediction (a finished run's config.json).
"""

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxvit import data, models, pretrained
from jaxvit.config.default import Config
from jaxvit.data import augment
from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair
from jaxvit.precision import full_float

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16, "float64": None}
FEWEST_PATCHES = 16  # data smaller than this many patches is enlarged to the model's own size


def load_data(
    config: Config,
    skipped_file: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    to_train: bool = True,
) -> data.Dataset:
    """Returns the data set that `config.data` names; unreadable files are listed in `skipped_file`.

    `class_names` is the order of the classes of a run, which it keeps; `to_train`: see `data.load_dataset`.
    """
    d = config.data
    return data.load_dataset(
        d.name,
        seed=config.seed,
        fraction=d.fraction,
        per_class=d.per_class,
        val_fraction=d.val_fraction,
        data_dir=d.dir,
        archive=d.archive,
        skipped_file=None if skipped_file is None else str(skipped_file),
        test_limit=d.test_limit,
        max_bad_fraction=d.max_bad_fraction,
        class_names=class_names,
        to_train=to_train,
    )


def resolve(config: Config, dataset: data.Dataset) -> Config:
    """Returns the config with everything filled in that was left to the model, its weights or the data.

    Raises:
      UserError: the model and the data do not fit each other.
    """
    config = copy.deepcopy(config)
    m, d = config.model, config.data
    fields = models.model_fields(m.name)
    given = {name: value for name, value in m.items() if name != "name" and value is not None}
    weights = _weights_data_config(config)
    if config.pretrained and pretrained_name(config.pretrained) not in (None, models.split_tag(m.name)[0]):
        raise UserError(f"pretrained {config.pretrained!r} are no weights of model.name {m.name!r}; set both alike")

    num_classes = len(dataset.class_names)
    if given.get("num_classes", num_classes) != num_classes:
        raise UserError(f"model.num_classes is {given['num_classes']}; {d.name} has {num_classes} classes")
    if "dtype" in given:
        raise UserError("model.dtype is not read; the config word is dtype, float32 or bfloat16")
    in_channels = given.get("in_channels", weights["in_channels"] if weights else dataset.in_channels)
    if in_channels not in (1, 3, dataset.in_channels):
        raise UserError(f"model.in_channels is {in_channels}; {d.name} can be read as 1 (grey) or 3 (RGB)")

    sizes = [to_pair(_size(s)) for s in (given.get("image_size"), d.image_size) if s is not None]
    if len(set(sizes)) > 1:
        raise UserError(f"model.image_size {sizes[0]} and data.image_size {sizes[1]} differ; give one of them")
    size = sizes[0] if sizes else _natural_size(dataset, fields, given, weights)

    if config.augment.crop_padding >= min(size):
        raise UserError(f"augment.crop_padding is {config.augment.crop_padding}; images are {size[0]}x{size[1]} pixels")

    mean, std = (d.mean, d.std) if d.mean is not None else (None, None)
    if (d.mean is None) != (d.std is None):
        raise UserError("data.mean and data.std come together; only one of them is set")
    if mean is None:
        mean, std = (weights["mean"], weights["std"]) if weights else (dataset.mean, dataset.std)
    mean, std = (_per_channel(v, in_channels, word) for v, word in ((mean, "mean"), (std, "std")))
    if min(std) <= 0:
        raise UserError(f"data.std is {std}; expected values above 0")

    with config.unlocked(), config.ignore_type():
        m.num_classes, m.in_channels, m.image_size = num_classes, in_channels, size
        d.image_size, d.mean, d.std = size, mean, std
        # Arrays are scaled whole, on the device; photos are cropped as the weights were evaluated.
        cropped = weights is not None and dataset.train.images is None
        d.crop_pct = d.crop_pct or (weights["crop_pct"] if weights and cropped else 1.0)
        d.interpolation = d.interpolation or (weights["interpolation"] if weights else "bicubic")
    return config


def check_resolved(config: Config) -> None:
    """Raises UserError where a config that a run has written lacks what `resolve` fills in, or it does not fit."""
    m, d = config.model, config.data
    for section, words in ((m, ("num_classes", "in_channels")), (d, ("image_size", "mean", "std", "crop_pct"))):
        for word in words:
            if section.get(word) is None:
                raise UserError(f"config.json has no value for {word}")
    numbers = all(isinstance(v, int | float) for v in (*d.mean, *d.std))
    if not numbers or not len(d.mean) == len(d.std) == m.in_channels or min(d.std) <= 0:
        raise UserError(f"mean {d.mean} and std {d.std} do not fit {m.in_channels} channels")
    if not isinstance(_size(d.image_size), tuple):
        raise UserError(f"image_size is {d.image_size}; expected (height, width)")


def make_model(config: Config) -> nn.Module:
    """Returns the model of a resolved config, without weights."""
    return models.create_model(config.model.name, **model_fields(config))


def model_fields(config: Config) -> dict[str, Any]:
    """Returns the fields of the model that a resolved config sets."""
    fields = {name: value for name, value in config.model.items() if name != "name" and value is not None}
    return {**fields, "dtype": DTYPES[config.dtype]}


def make_to_float(in_channels: int) -> Callable[[Array], Array]:
    """Returns uint8 [b, h, w, c] -> float32 [b, h, w, in_channels] in [0, 1]."""
    return lambda images: augment.to_channels(images.astype(full_float()) / 255.0, in_channels)


def make_normalise(
    image_size: tuple[int, int], interpolation: str, mean: tuple, std: tuple
) -> Callable[[Array], Array]:
    """Returns float32 images in [0, 1] -> resized to `image_size`, less `mean`, over `std`."""
    mean_, std_ = (np.asarray(v, np.float32).reshape(1, 1, 1, -1) for v in (mean, std))

    def normalise(images: Array) -> Array:
        images = jnp.clip(augment.resize(images, image_size, interpolation), 0.0, 1.0)  # bicubic overshoots
        return (images - mean_) / std_

    return normalise


def make_feed(config: Config, split: data.Split, sharding: Any = None, crop_mode: str = "center") -> Any:
    """Returns the batches of one split: on the device where it is small enough, else streamed."""
    d = config.data
    transform = None
    if split.images is None:  # images of any size: to the model's on the host, as timm's evaluation does
        transform = data.make_transform(
            tuple(d.image_size),
            len(d.mean),
            crop_pct=d.crop_pct,
            interpolation=d.interpolation,
            crop_mode=crop_mode,
        )
    return data.make_feed(
        split,
        transform=transform,
        sharding=sharding,
        resident_bytes=d.resident_mb * 2**20,
        max_unreadable=max(d.max_bad_fraction, data.MAX_UNREADABLE),
    )


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
    return name if name in models.list_models() else None


def _weights_data_config(config: Config) -> dict[str, Any] | None:
    """The preprocessing of the weights that training starts from: the tag's, or what a local file says; or None."""
    if config.pretrained is None:
        return None
    if pretrained_name(config.pretrained) is not None:
        return models.data_config(config.pretrained)
    return pretrained.stored_data_config(config.model.name, config.pretrained)


def _size(size: Any) -> int | tuple[int, int]:
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in np.atleast_1d(size).tolist())
    if isinstance(size, int) and whole:
        return size
    if isinstance(size, list | tuple) and len(size) == 2 and whole:
        return (size[0], size[1])
    raise UserError(f"image_size is {size!r}; expected pixels as a whole number or (height, width)")


def _natural_size(
    dataset: data.Dataset, fields: dict[str, Any], given: dict[str, Any], weights: dict[str, Any] | None
) -> tuple[int, int]:
    """The size where none is given: the weights' own; the data's, if the model can work with it; the model's own."""
    if weights:
        return to_pair(tuple(weights["image_size"]))
    own = dataset.image_size
    if own is None:
        return to_pair(fields["image_size"])
    if "patch_size" not in fields:  # a convolutional network takes the data as it is
        return own
    patch = to_pair(_size(given.get("patch_size", fields["patch_size"])))
    fits = own[0] % patch[0] == 0 and own[1] % patch[1] == 0
    enough = "patch_size" in given or (own[0] // patch[0]) * (own[1] // patch[1]) >= FEWEST_PATCHES
    return own if fits and enough else to_pair(fields["image_size"])


def _per_channel(values: Any, in_channels: int, word: str) -> tuple[float, ...]:
    if not all(isinstance(v, int | float) for v in values):
        raise UserError(f"data.{word} is {tuple(values)}; expected numbers, as (0.5, 0.5, 0.5)")
    values = tuple(float(v) for v in values)
    if len(values) == in_channels:
        return values
    if len(values) == 1 or len(set(values)) == 1:
        return values[:1] * in_channels
    if in_channels == 1:
        return (sum(values) / len(values),)
    raise UserError(f"data.{word} has {len(values)} values; the model reads {in_channels} channels")
