"""Transformers' `config.json` and `preprocessor_config.json` in timm's words: which model, classes, preprocessing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError
from jaxvit.models.hf_model import Config, HfModel, tower
from jaxvit.models.registry import FAMILIES, create_model, split_tag
from jaxvit.pretrained import files
from jaxvit.pretrained.saving import THRESHOLDS, nearest_entry

PREPROCESSOR = "preprocessor_config.json"
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
SQUASHED_FROM = 384  # ConvNextImageProcessor, which ResNets have, crops no image of this size or larger


def models() -> dict[str, HfModel]:
    """Every `model_type` of Transformers that is one of our models."""
    return {kind: model for family in FAMILIES.values() for kind, model in family.transformers.items()}


def complete(config: Config, directory: Path, name: str | None = None) -> dict[str, Any]:
    """A `config.json` with timm's words for what Transformers' says; any other comes back as it is.

    They are `label_names`, the preprocessing as `pretrained_cfg` and, unless `name` is another model's,
    `architecture` with `model_args`. Raises UserError for a model that is not here, or a preprocessing that cannot be.
    """
    if not _is_transformers(config):
        return dict(config)
    found = dict(config)
    names = label_names(config)
    if names is not None:
        found["label_names"] = names
        found["num_classes"] = len(names)
        if config.get("problem_type") == "multi_label_classification":  # sigmoids, as its own pipeline has them
            found[THRESHOLDS] = [0.5] * len(names)
    found["pretrained_cfg"] = preprocessing(files.read_config(directory / PREPROCESSOR))
    if name is None or (config["model_type"] in models() and split_tag(name)[0] == resolve(config)[0]):
        found["architecture"], found["model_args"] = resolve(config)
    return found


def _is_transformers(config: Config) -> bool:
    return isinstance(config.get("model_type"), str) and not isinstance(config.get("architecture"), str)


def architecture(config: Config) -> str | None:
    """The timm name that a config of timm or of Transformers resolves to, or None where it names no model.

    Raises UserError for a model of Transformers that is not here.
    """
    said = config.get("architecture")
    if isinstance(said, str):
        return said
    return resolve(config)[0] if _is_transformers(config) else None


def resolve(config: Config) -> tuple[str, dict[str, Any]]:
    """The nearest timm name to a model of Transformers, and its fields. Raises UserError where it is not here."""
    kind, classes = str(config["model_type"]), config.get("architectures")
    made = str(classes[0]) if isinstance(classes, list) and classes else ""
    model = models().get(kind)
    if model is None:
        raise UserError(
            f"the architecture {kind!r} of Transformers ({made or 'no class named'}) is not supported; "
            f"expected {', '.join(models())}, or a model of timm's."
        )
    for end, why in model.refused.items():
        if made.endswith(end):
            raise UserError(f"config.json: {made} {why}")
    part = tower(config)
    fields = {"in_channels": part.get("num_channels", 3), **model.fields(part)}
    if model.image_size is not None:
        fields["image_size"] = part.get("image_size", model.image_size)
    fields = {word: tuple(value) if isinstance(value, list) else value for word, value in fields.items()}
    return nearest_entry(create_model(model.entry, **fields), model.among), fields


def label_names(config: Config) -> list[str] | None:
    """The classes of `id2label` in order; None where there are none, or only LABEL_0, LABEL_1, ..."""
    table = config.get("id2label")
    if not isinstance(table, Mapping) or not table:
        return None
    names = [table.get(str(i)) for i in range(len(table))]
    if not all(isinstance(name, str) for name in names):
        return None
    placeholders = all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names)
    return None if placeholders else [str(name) for name in names]


def preprocessing(config: Config) -> dict[str, Any]:
    """A `preprocessor_config.json` ({}: there is none) in timm's words; sizes are the model's own.

    Raises UserError for pixels that are scaled otherwise than to [0, 1] before the mean is taken off.
    """
    if not config:
        return {}
    factor = config.get("rescale_factor", 1 / 255)
    if not config.get("do_rescale", True) or not isinstance(factor, int | float) or abs(factor * 255 - 1) > 1e-3:
        raise UserError(f"{PREPROCESSOR}: rescale_factor={str(factor)[:60]}; expected 1/255: pixels from 0 to 1.")
    found: dict[str, Any] = {"mean": config.get("image_mean"), "std": config.get("image_std")}
    if not config.get("do_normalize", True):
        found = {"mean": [0.0] * 3, "std": [1.0] * 3}
    size = config.get("size")
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    side = edge or (size.get("height") if isinstance(size, Mapping) else size)
    crop = config.get("crop_size")
    crop = crop.get("height") if isinstance(crop, Mapping) else crop
    if type(side) is not int or side <= 0 or not config.get("do_resize", True):
        pass
    elif config.get("do_center_crop") and type(crop) is int:
        found |= {"crop_pct": crop / side, "crop_mode": "center" if edge else "squash"}
    elif "crop_pct" in config and side < SQUASHED_FROM:
        found |= {"crop_pct": config["crop_pct"], "crop_mode": "center"}
    else:
        found |= {"crop_pct": 1.0, "crop_mode": "center" if edge and "crop_pct" not in config else "squash"}
    if (method := config.get("resample")) is not None:
        found["interpolation"] = RESAMPLE.get(method) if type(method) is int else method
    return {word: value for word, value in found.items() if value is not None}
