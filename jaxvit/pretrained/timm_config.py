"""timm's `config.json`: the fields and the preprocessing it gives, checked like the options of a user."""

import math
from collections.abc import Mapping
from typing import Any

from jaxvit.data.preprocess import CROP_MODES, INTERPOLATIONS
from jaxvit.errors import UserError, suggest
from jaxvit.models.registry import data_config, list_models, model_fields, split_tag

# timm's words in a `config.json` -> ours; every other word is the same here.
WORDS = {"img_size": "image_size", "in_chans": "in_channels"}
# timm's words that change no weight and no result at the model's own size.
HARMLESS = ("strict_img_size", "pretrained_strict", "weight_init", "fix_init", "exportable", "scriptable", "no_jit")
DATA_CHOICES = {"crop_mode": CROP_MODES, "interpolation": tuple(INTERPOLATIONS)}
MAX_CHANNELS = 4096
DATA_WORDS = ("mean", "std", "crop_pct", "crop_mode", "interpolation")


def saved_fields(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a `config.json` gives: timm's `model_args`, and our own names for what timm cannot express."""
    args, extra = config.get("model_args") or {}, config.get("jaxvit") or {}
    if not isinstance(args, Mapping) or not isinstance(extra, Mapping):
        raise UserError("config.json: model_args is not a table of names and values.")
    known = model_fields(name)
    fields = {WORDS.get(str(word), str(word)): value for word, value in {**args, **extra}.items()}
    fields = {word: value for word, value in fields.items() if word not in HARMLESS}
    if "global_pool" not in known and fields.get("global_pool") in ("avg", None):
        fields.pop("global_pool", None)
    if "dynamic_img_size" not in known:  # a convolution, or windows: takes images of any size
        fields.pop("dynamic_img_size", None)
    for word in [word for word in fields if word not in known]:
        if fields[word] is not None:
            raise UserError(f"config.json, model_args: {name} has no field {word!r}.{suggest(word, known)}")
        del fields[word]  # timm's word for what it does not use
    return {word: tuple(v) if isinstance(v, list) else v for word, v in fields.items()}


def own_sizes(config: Mapping[str, Any]) -> list[Any]:
    """Image sizes that the file's own config gives, the more specific entry first."""
    args, cfg = config.get("model_args") or {}, config.get("pretrained_cfg") or config
    whole = cfg.get("input_size") if isinstance(cfg, Mapping) else None
    sizes = [args.get("img_size"), whole[1:] if isinstance(whole, list) else None]
    sizes = [tuple(size) if isinstance(size, list) else size for size in sizes]
    good = [s for s in sizes if is_size(s)]
    return [s[0] if isinstance(s, tuple) and s[0] == s[1] else s for s in good]


def label_names(config: Mapping[str, Any]) -> list[str] | None:
    """The names of the classes in order, from a list or a table of all numbers; None where there are none."""
    cfg = config.get("pretrained_cfg")
    found = config.get("label_names", cfg.get("label_names") if isinstance(cfg, Mapping) else None)
    if isinstance(found, Mapping):
        found = [found.get(str(i)) for i in range(len(found))]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        return None
    return [str(name) for name in found]


def licence(config: Mapping[str, Any]) -> str:
    """The licence that a config records of its weights, or ""."""
    cfg = config.get("pretrained_cfg")
    said = cfg.get("license") if isinstance(cfg, Mapping) else None
    return said if isinstance(said, str) else ""


def is_size(size: Any) -> bool:
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    return all(type(side) is int and side > 0 for side in sides)


def own_data_config(name: str, model: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessing the weights expect: the tag's, overruled by the file's own config, at the model's size.

    A config of another name that only repeats what is usual of that one does not overrule: `save` found the name from
    the fields, which a DeiT shares with a ViT. Raises UserError for entries that no preprocessing can have.
    """
    ours = data_config(name)
    cfg = config.get("pretrained_cfg") or config
    theirs = {word: cfg[word] for word in DATA_WORDS if cfg.get(word) is not None} if isinstance(cfg, Mapping) else {}
    theirs = {word: _data_word(word, value) for word, value in theirs.items()}
    said = split_tag(str(config.get("architecture")))[0]
    if said != split_tag(name)[0] and said in list_models():
        usual = data_config(said)
        theirs = {} if all(usual[word] == value for word, value in theirs.items()) else theirs
    size = model.image_size
    sizes = {"image_size": (size, size) if isinstance(size, int) else tuple(size)}
    counts = {"in_channels": model.in_channels, "num_classes": model.num_classes}
    return ours | theirs | sizes | counts


def _data_word(word: str, value: Any) -> Any:
    """One checked entry of a foreign preprocessing."""
    if word in DATA_CHOICES:
        if value not in DATA_CHOICES[word]:
            raise UserError(f"config.json: {word}={value!r}; expected {' or '.join(DATA_CHOICES[word])}.")
        return value
    values: list[Any] = value if isinstance(value, list) and word != "crop_pct" else [value]
    good = 1 <= len(values) <= MAX_CHANNELS and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    if word == "mean":
        low, high, wanted = -1e3, 1e3, "one number per channel"
    elif word == "std":
        low, high, wanted = 1e-6, 1e3, "one number above 0 per channel"
    else:
        low, high, wanted = 0.01, 2.0, "a share of the resized image, such as 0.875"
    if not good or not all(low <= v <= high for v in values):
        raise UserError(f"config.json: {word}={str(value)[:60]}; expected {wanted}.")
    return value if word == "crop_pct" else tuple(values)
