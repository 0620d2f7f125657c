"""The complete config: what was left to the model, its weights or the data, from facts of the data."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvit import models, pretrained
from jaxvit.build import parts
from jaxvit.build.facts import Facts
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.layers import to_pair

FEWEST_PATCHES = 16  # data smaller than this many patches is enlarged to the model's own size


def check_given(config: Config) -> None:
    """Raises UserError for what cannot be, whatever the data are: it is said before they are read."""
    m, d = config.model, config.data
    if config.pretrained and parts.pretrained_name(config.pretrained) not in (None, models.split_tag(m.name)[0]):
        raise UserError(
            f"pretrained {config.pretrained!r} does not match model.name {m.name!r}; both must name the same model"
        )
    if m.get("dtype") is not None:
        raise UserError("model.dtype is ignored; the option is dtype, float32 or bfloat16")
    sizes = _given_sizes(config)
    if len(set(sizes)) > 1:
        raise UserError(f"model.image_size {sizes[0]} and data.image_size {sizes[1]} differ; set only one of them")
    if sizes:
        _check_padding(config, sizes[0])
    if (d.mean is None) != (d.std is None):
        raise UserError("data.mean and data.std must be set together; only one of them is set")
    for word in ("mean", "std") if d.mean is not None else ():
        values = _per_channel(d[word], len(d[word]), word)
        if max(values, default=0.0) > 1:
            raise UserError(f"data.{word} is {values}; expected that of pixels in [0, 1]: divide by 255")
        if word == "std":
            _check_std(values)


def _given_sizes(config: Config) -> list[tuple[int, int]]:
    return [to_pair(_size(s)) for s in (config.model.get("image_size"), config.data.image_size) if s is not None]


def _check_padding(config: Config, size: tuple[int, int]) -> None:
    if config.augment.crop_padding >= min(size):
        raise UserError(f"augment.crop_padding is {config.augment.crop_padding}; images are {size[0]}x{size[1]} pixels")


def _check_std(std: tuple[float, ...]) -> None:
    if min(std, default=0.0) <= 0:
        raise UserError(f"data.std is {std}; expected values above 0")


def complete(config: Config, facts: Facts) -> Config:
    """Returns a copy of the config with everything filled in that was left to the model, its weights or the data.

    Raises:
      UserError: the model and the data do not fit each other.
    """
    config = copy.deepcopy(config)
    m, d = config.model, config.data
    fields = models.model_fields(m.name)
    patches = registry.model_entry(m.name)[0].takes_image_size
    given = {name: value for name, value in m.items() if name != "name" and value is not None}
    check_given(config)
    weights = _weights_data_config(config)

    num_classes = facts.num_classes
    if given.get("num_classes", num_classes) != num_classes:
        raise UserError(f"model.num_classes is {given['num_classes']}; {d.name} has {num_classes} classes")
    in_channels = given.get("in_channels", weights["in_channels"] if weights else facts.in_channels)
    if in_channels not in (1, 3, facts.in_channels):
        raise UserError(f"model.in_channels is {in_channels}; {d.name} has images of 1 (grey) or 3 (RGB) channels")

    sizes = _given_sizes(config)
    size = sizes[0] if sizes else natural_size(facts.image_size, fields, given, weights, patches=patches)

    _check_padding(config, size)

    mode = config.augment.train_crop_mode
    if facts.shape is not None and mode not in (None, "rrc"):
        raise UserError(
            f"augment.train_crop_mode is {mode!r}, which crops photos; {d.name} has arrays of one size. "
            "Expected rrc, or augment.crop_padding."
        )

    mean, std = (d.mean, d.std) if d.mean is not None else (None, None)
    if mean is None:
        mean, std = (weights["mean"], weights["std"]) if weights else (facts.mean, facts.std)
    mean, std = (_per_channel(v, in_channels, word) for v, word in ((mean, "mean"), (std, "std")))
    _check_std(std)

    with config.unlocked(), config.ignore_type():
        m.num_classes, m.in_channels, m.image_size = num_classes, in_channels, size
        d.image_size, d.mean, d.std = size, mean, std
        # Arrays are scaled whole, on the device; photos are cropped as the weights were evaluated.
        cropped = weights is not None and facts.shape is None
        d.crop_pct = d.crop_pct or (weights["crop_pct"] if weights and cropped else 1.0)
        d.interpolation = d.interpolation or (weights["interpolation"] if weights else "bicubic")
        if config.distill.teacher is not None:
            m.update(check_student(config.distill.mode, fields | given, m.name))
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


def check_student(mode: str, fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the model fields that a mode of distillation needs; raises UserError where the model lacks its token."""
    if mode != "token":
        return {}
    if not fields.get("distilled"):
        raise UserError(
            f"distill.mode=token needs a model with a distillation token, "
            f"such as deit_tiny_distilled_patch16_224; {name} has none"
        )
    return {"distilled_training": True}


def _weights_data_config(config: Config) -> dict[str, Any] | None:
    """The preprocessing of the weights that training starts from: the tag's, or what a local file says; or None."""
    if config.pretrained is None:
        return None
    if parts.pretrained_name(config.pretrained) is not None:
        return models.data_config(config.pretrained)
    if pretrained.is_repository(config.pretrained):
        pretrained.check_name(config.pretrained, config.model.name)
    return pretrained.stored_data_config(config.model.name, config.pretrained)


def _size(size: Any) -> int | tuple[int, int]:
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in np.atleast_1d(size).tolist())
    if isinstance(size, int) and whole:
        return size
    if isinstance(size, list | tuple) and len(size) == 2 and whole:
        return (size[0], size[1])
    raise UserError(f"image_size is {size!r}; expected pixels as a whole number or (height, width)")


def natural_size(
    own: tuple[int, int] | None,
    fields: Mapping[str, Any],
    given: Mapping[str, Any],
    weights: Mapping[str, Any] | None,
    *,
    patches: bool,
) -> tuple[int, int]:
    """The size where none is given: the weights' own; the data's, if the model can work with it; the model's own.

    A model of `patches` wants whole ones, and enough of them; another takes the data as it is.
    """
    if weights:
        return to_pair(tuple(weights["image_size"]))
    if own is None:
        return to_pair(fields["image_size"])
    if not patches:
        return own
    patch = to_pair(_size(given.get("patch_size", fields["patch_size"])))
    fits = own[0] % patch[0] == 0 and own[1] % patch[1] == 0
    enough = "patch_size" in given or (own[0] // patch[0]) * (own[1] // patch[1]) >= FEWEST_PATCHES
    return own if fits and enough else to_pair(fields["image_size"])


def _per_channel(values: Any, in_channels: int, word: str) -> tuple[float, ...]:
    if not all(isinstance(v, int | float) for v in values):
        raise UserError(f"data.{word} is {tuple(values)}; expected numbers, such as (0.5, 0.5, 0.5)")
    values = tuple(float(v) for v in values)
    if len(values) == in_channels:
        return values
    if len(values) == 1 or len(set(values)) == 1:
        return values[:1] * in_channels
    if in_channels == 1:
        return (sum(values) / len(values),)
    raise UserError(f"data.{word} has {len(values)} values; the model reads {in_channels} channels")
