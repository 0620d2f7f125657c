"""The way back: a directory that timm's `checkpoint_path=` and `local-dir:` load."""

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import numpy as np

from jaxvit.errors import UserError, shown
from jaxvit.models.layers import to_pair
from jaxvit.models.registry import family_of, model_fields, split_tag, tag_info
from jaxvit.pretrained import rules
from jaxvit.pretrained.convert import export
from jaxvit.pretrained.timm_config import DATA_WORDS
from jaxvit.runtime import files
from jaxvit.runtime.paths import expand

# Fields that say how to run or train a model, not what it is.
RUNTIME = (
    "dtype", "remat", "scan", "attn_implementation", "distilled_training", "zero_init_last", "dynamic_img_size",
    "dynamic_img_pad", "strict_img_size",
)  # fmt: skip
UNASKED = ("crop_to_patches",)  # what timm does without a field for it
SIZES = ("num_classes", "in_channels", "image_size")
THRESHOLDS = "thresholds"  # in config.json: of several labels per image, the probability that says each class


def save(
    model: nn.Module,
    variables: Mapping[str, Any],
    directory: str | Path,
    *,
    name: str | None = None,
    data_config: Mapping[str, Any] | None = None,
    label_names: Sequence[str] | None = None,
    licence: str | None = None,
    thresholds: Sequence[float] | None = None,
) -> Path:
    """Writes `model.safetensors` and `config.json`, each whole or not at all; returns the directory.

    `name` is the timm name (with or without tag) that the model was made from; without it the nearest entry is found
    from the model's fields, with its preprocessing: a DeiT without its name is saved as the ViT of the same fields.
    `data_config` replaces that name's preprocessing. `thresholds` are the probabilities that say each class, of a model
    for several labels per image. `licence` is for weights trained here ("" where it is unknown): it is recorded instead
    of the name's tag and that tag's licence. A field for which timm has
    no name is kept for jaxvit, with a warning that timm cannot load the result. Raises UserError for variables that do
    not fit, and for arguments of another kind.
    """
    from safetensors.numpy import save as serialise

    _check(model, directory, data_config, label_names, licence, thresholds)
    tensors = export(model, variables)
    tensors = {key: a if a.dtype == np.int64 else a.astype(np.float32, copy=False) for key, a in tensors.items()}
    config = make_config(model, name, data_config, label_names, licence)
    if thresholds is not None:  # a word of ours, which timm passes over
        config[THRESHOLDS] = [float(value) for value in thresholds]
    directory = expand(directory)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; expected a directory to write to.")
    content = serialise(tensors, metadata={"format": "pt"})
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise UserError(f"cannot write to {directory}: {getattr(error, 'strerror', None) or error}") from None
    files.write(directory / "model.safetensors", content, durable=True)
    files.write(directory / "config.json", (json.dumps(config, indent=2) + "\n").encode(), durable=True)
    return directory


def _check(model: Any, directory: Any, data_config: Any, label_names: Any, licence: Any, thresholds: Any) -> None:
    """Raises UserError for arguments of `save` that a config.json cannot hold, or that no reader would believe."""
    if isinstance(directory, str) and not directory:
        raise UserError("directory is empty; expected one to write to.")
    if data_config is not None and not isinstance(data_config, Mapping):
        raise UserError(f"data_config is {shown(data_config)}; expected a mapping, as jaxvit.data_config returns it.")
    if licence is not None and not isinstance(licence, str):
        raise UserError(f"licence is {shown(licence)}; expected text, such as 'apache-2.0'.")
    family_of(model)  # says so where the model is none of ours
    for word, given, kind, what in (
        ("label_names", label_names, str, "texts"),
        ("thresholds", thresholds, int | float | np.number, "probabilities"),
    ):
        if given is None:
            continue
        good = isinstance(given, list | tuple | np.ndarray) and all(isinstance(one, kind) for one in given)
        if not good or len(given) != model.num_classes:
            n = f"a list of {len(given)}" if good else shown(given)
            raise UserError(f"{word} is {n}; expected a list of {model.num_classes} {what}, one for each class.")
        if word == "thresholds" and not all(0 <= one <= 1 for one in given):
            raise UserError("thresholds has a value outside of [0, 1]; expected probabilities.")


def make_config(
    model: Any,
    name: str | None = None,
    data_config: Mapping[str, Any] | None = None,
    label_names: Sequence[str] | None = None,
    licence: str | None = None,
) -> dict[str, Any]:
    """The `config.json` of a model: timm's entry point, the arguments in which it differs, the preprocessing."""
    family = family_of(model)
    if getattr(model, "pos_embed", None) == "sincos2d":  # how the table began, which timm cannot say and nobody needs
        model = model.clone(pos_embed="learn")
    name = nearest_entry(model) if name is None else name
    changed = differences(model, split_tag(name)[0])
    args = {field: value for field, value in changed.items() if field in family.timm_args}
    extra = {field: value for field, value in changed.items() if field not in args}
    strange = {field: value for field, value in extra.items() if field not in UNASKED}
    if strange or not family.timm_modules:
        said = ", ".join(f"{field}={value!r}" for field, value in strange.items()) or repr(split_tag(name)[0])
        warnings.warn(f"timm has no field for {said}: jaxvit can load the saved files, timm cannot.", stacklevel=3)
    height, width = to_pair(model.image_size)
    args |= {"num_classes": model.num_classes, "in_chans": model.in_channels}
    if family.takes_image_size:
        args["img_size"] = [height, width]
    if hasattr(model, "global_pool"):
        args["global_pool"] = model.global_pool
    with_head = model if model.num_classes else model.clone(num_classes=1)
    info = tag_info(name)
    data = {field: (data_config or info).get(field, info[field]) for field in DATA_WORDS}
    cfg = {
        "tag": info["tag"] if licence is None else None,
        "custom_load": False,
        "input_size": [model.in_channels, height, width],
        "fixed_input_size": family.fixed_input_size,
        **{field: _channels(value, model) if field in ("mean", "std") else value for field, value in data.items()},
        "num_classes": model.num_classes,
        "first_conv": next(iter(_there(model, family.first_conv)), None),
        "classifier": heads if len(heads := _there(with_head, family.classifiers)) > 1 else next(iter(heads), None),
        "license": info.get("license") if licence is None else licence or None,
    }
    config: dict[str, Any] = {"architecture": split_tag(name)[0], "num_classes": model.num_classes}
    if label_names is not None:
        config["label_names"] = list(label_names)
    config |= {"model_args": args, "pretrained_cfg": {k: v for k, v in cfg.items() if v is not None}}
    return config | ({"jaxvit": extra} if extra else {})


def _channels(values: Sequence[float], model: Any) -> list[float]:
    """One value per channel; other channel numbers get the average, as timm gives them."""
    if len(values) == model.in_channels:
        return list(values)
    return [sum(values) / len(values)] * model.in_channels


def _there(model: Any, modules: Iterable[str]) -> list[str]:
    """Those of timm's modules whose weights the model has."""
    names = {rule.name for rule in rules.rules_of(model)}
    return [module for module in modules if f"{module}.weight" in names]


def differences(model: Any, entry: str, given: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The model's fields that are not the entry's, without sizes and what only matters for running or training.

    `given` goes before the entry's own fields.
    """
    fields = {**model_fields(entry), **given}
    skip = (*RUNTIME, *SIZES)
    return {
        field: getattr(model, field)
        for field, value in fields.items()
        if field not in skip and not field.endswith("_rate") and _plain(getattr(model, field)) != _plain(value)
    }


def _plain(value: Any) -> Any:
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value


def nearest_entry(model: Any, among: str = "") -> str:
    """The entry point (with the pattern `among` in its name) from which the fields differ least.

    Ties go to equal image size, then to order.
    """
    family = family_of(model)
    size = to_pair(model.image_size)

    def distance(entry: str) -> tuple[int, int, bool]:
        changed = differences(model, entry)
        strange = sum(field not in family.timm_args for field in changed)
        return strange, len(changed), to_pair(model_fields(entry)["image_size"]) != size

    return min((name for name in family.variants if re.search(among, name)), key=distance)
