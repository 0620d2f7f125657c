"""Transformers' `config.json` and `preprocessor_config.json` in timm's words: which model, classes, preprocessing."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError
from jaxvit.models.registry import create_model, split_tag
from jaxvit.pretrained import files, hf_config
from jaxvit.pretrained.saving import THRESHOLDS, nearest_entry

Config = Mapping[str, Any]

PREPROCESSOR = "preprocessor_config.json"
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
SQUASHED_FROM = 384  # ConvNextImageProcessor, which ResNets have, crops no image of this size or larger


def _vit(config: Config) -> dict[str, Any]:
    size, hidden = _whole(config, "hidden_size", 768), _whole(config, "intermediate_size", 3072)
    return {**_transformer(config), "patch_size": config.get("patch_size", 16), "mlp_ratio": _ratio(size, hidden)}


def _dinov2(config: Config) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "patch_size": config.get("patch_size", 14),
        "norm_eps": config.get("layer_norm_eps", 1e-6),
    }
    if config.get("use_swiglu_ffn"):  # as the giant has it, whatever hidden_act says
        own = _transformer(config)
        del own["act_layer"]
        return {**own, **fields}
    return {**_transformer(config), **fields, "mlp_ratio": float(_whole(config, "mlp_ratio", 4))}


def _transformer(config: Config) -> dict[str, Any]:
    return {
        "embed_dim": _whole(config, "hidden_size", 768),
        "depth": _whole(config, "num_hidden_layers", 12),
        "num_heads": _whole(config, "num_attention_heads", 12),
        "qkv_bias": config.get("qkv_bias", True),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "act_layer": hf_config.activation(config.get("hidden_act", "gelu")),
    }


def _swin(config: Config) -> dict[str, Any]:
    return {
        "patch_size": config.get("patch_size", 4),
        "embed_dim": _whole(config, "embed_dim", 96),
        "depths": config.get("depths", [2, 2, 6, 2]),
        "num_heads": config.get("num_heads", [3, 6, 12, 24]),
        "window_size": config.get("window_size", 7),
        "mlp_ratio": config.get("mlp_ratio", 4.0),
        "qkv_bias": config.get("qkv_bias", True),
    }


def _resnet(config: Config) -> dict[str, Any]:
    block = config.get("layer_type", "bottleneck")
    widths = config.get("hidden_sizes", [256, 512, 1024, 2048])
    if not isinstance(widths, list) or not all(type(width) is int for width in widths):
        raise UserError(f"config.json: hidden_sizes={str(widths)[:60]}; expected a list of whole numbers.")
    widths = [width // 4 if block == "bottleneck" else width for width in widths]
    return {"block": block, "layers": config.get("depths", [3, 4, 6, 3]), "channels": widths}


# model_type -> the entry that it starts from, and the fields that its config gives
ARCHITECTURES: dict[str, tuple[str, Callable[[Config], dict[str, Any]]]] = {
    "vit": ("vit_base_patch16_224", _vit),
    "deit": ("deit_base_distilled_patch16_224", _vit),
    "dinov2": ("vit_base_patch14_dinov2", _dinov2),
    "dinov2_with_registers": ("vit_base_patch14_reg4_dinov2", _dinov2),
    "swin": ("swin_base_patch4_window7_224", _swin),
    "resnet": ("resnet50", _resnet),
}
GIANT = {
    "vit_base_patch14_dinov2": "vit_giant_patch14_dinov2",
    "vit_base_patch14_reg4_dinov2": "vit_giant_patch14_reg4_dinov2",
}
IMAGE_SIZE = {"dinov2": 224, "dinov2_with_registers": 224}  # where the config gives none


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
    if name is None or (config["model_type"] in ARCHITECTURES and split_tag(name)[0] == resolve(config)[0]):
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
    if kind not in ARCHITECTURES:
        raise UserError(
            f"the architecture {kind!r} of Transformers ({made or 'no class named'}) is not supported; "
            f"expected {', '.join(ARCHITECTURES)}, or a model of timm's."
        )
    if kind.startswith("dinov2") and made.endswith("ForImageClassification"):
        raise UserError(
            f"config.json: {made} classifies the class token joined to the mean of the patches, which no model here "
            "does; expected the features alone (Dinov2Model)."
        )
    if made == "DeiTForImageClassification":
        raise UserError(
            f"config.json: {made} has a distillation token that no classifier reads, as no model here; "
            "expected DeiTForImageClassificationWithTeacher."
        )
    base, fields_of = ARCHITECTURES[kind]
    base = GIANT[base] if config.get("use_swiglu_ffn") and base in GIANT else base
    fields = fields_of(config)
    fields |= {"image_size": config.get("image_size", IMAGE_SIZE.get(kind, 224))} if kind != "resnet" else {}
    fields |= {"in_channels": config.get("num_channels", 3)}
    fields = {word: tuple(value) if isinstance(value, list) else value for word, value in fields.items()}
    return nearest_entry(create_model(base, **fields)), fields


def _whole(config: Config, word: str, usual: int) -> int:
    value = config.get(word, usual)
    if type(value) is not int or not 0 < value < 2**20:
        raise UserError(f"config.json: {word}={str(value)[:60]}; expected a whole number above 0.")
    return value


def _ratio(size: int, hidden: int) -> float:
    """The mlp_ratio whose product with the width, cut to a whole number, is the hidden width."""
    ratio = hidden / size
    return ratio if int(size * ratio) == hidden else math.nextafter(ratio, math.inf)


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
