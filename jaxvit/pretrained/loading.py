"""`load_pretrained`: a timm name, and a file or the hub, become a model and its variables."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from jaxvit.errors import UserError
from jaxvit.models.registry import create_model, data_config, model_fields, split_tag, tag_info
from jaxvit.paths import expand
from jaxvit.pretrained import adapt, files, foreign, hub, identify, rules
from jaxvit.pretrained.convert import convert

log = logging.getLogger("jaxvit")

# timm's words in a `config.json` -> ours; every other word is the same here.
WORDS = {"img_size": "image_size", "in_chans": "in_channels"}
# timm's words that change no weight and no result at the model's own size.
HARMLESS = ("strict_img_size", "pretrained_strict", "weight_init", "fix_init", "exportable", "scriptable", "no_jit")
DATA_WORDS = ("mean", "std", "crop_pct", "crop_mode", "interpolation")


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, and where they came from: `checkpoint` has path, SHA-256 and hub commit."""

    name: str
    model: nn.Module
    variables: dict[str, Any]
    checkpoint: files.Checkpoint
    data_config: dict[str, Any]
    notes: tuple[str, ...]  # what was changed, dropped or drawn afresh, one line each
    licence: str  # of the tag's weights, as timm records it; "" where it records none


def load_pretrained(
    name: str | None,
    checkpoint: str | Path | None = None,
    *,
    num_classes: int | None = None,
    image_size: Any = None,
    in_channels: int | None = None,
    head_init: str = "zero",
    seed: int = 0,
    **fields: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns (model, variables) of a timm name, from a local file or directory, or from the hub if None.

    None means the checkpoint's own; another `num_classes` gives a fresh classifier, zero or "normal" (std 0.02) by
    `head_init`, and 0 the pooled features; another `image_size` resamples position and bias tables, another
    `in_channels` the first convolution. Any other field of the model can be given. Changes are logged; `load` returns
    them. Raises UserError when the file cannot be read or does not fit the model.
    """
    loaded = load(
        name,
        checkpoint,
        num_classes=num_classes,
        image_size=image_size,
        in_channels=in_channels,
        head_init=head_init,
        seed=seed,
        **fields,
    )
    return loaded.model, loaded.variables


def load(
    name: str | None,
    checkpoint: str | Path | None = None,
    *,
    num_classes: int | None = None,
    image_size: Any = None,
    in_channels: int | None = None,
    head_init: str = "zero",
    seed: int = 0,
    revision: str | None = None,
    checkpoint_image_size: Any = None,
    **fields: Any,
) -> Loaded:
    """`load_pretrained` with its record. `checkpoint_image_size` says what a non-square position table was made for."""
    if checkpoint is None and name is None:
        raise UserError("load_pretrained needs a model name, a checkpoint, or both.")
    if name is not None:
        _check_words(name, fields, checkpoint_image_size)
    file = hub.fetch(str(name), revision=revision) if checkpoint is None else files.read(checkpoint)
    name = _agree(name, file)
    saved = saved_fields(name, file.config)
    base = create_model(name, **(saved | fields))
    word = rules.family(base)
    tensors, dropped = _timm_tensors(name, base, file)
    own = adapt.facts(word, tensors)
    candidates = (checkpoint_image_size, *_own_sizes(file.config), saved.get("image_size"), base.image_size)
    size = adapt.source_image_size(base, tensors, candidates)
    own["image_size"] = base.image_size if size is None else size
    asked = {"num_classes": num_classes, "image_size": image_size, "in_channels": in_channels}
    asked = {field: value for field, value in asked.items() if value is not None}
    try:
        model = create_model(name, **(saved | own | fields | asked))
        tensors, notes = adapt.adapt(
            model,
            tensors,
            image_size=own["image_size"],
            windows=_own_windows(name, word, saved | {"image_size": own["image_size"]}),
            method=adapt.BILINEAR if name.startswith("flexivit") or _is_google(file) else adapt.BICUBIC,
            patch_size="patch_size" in fields,
            head_init=head_init,
            key=jax.random.key(seed),
        )
        variables = convert(model, tensors)
    except UserError as error:
        raise UserError(str(error) + identify.hint(name, file.tensors) + _size_hint(size)) from None
    for note in (notes := dropped + notes):
        log.info("%s: %s", name, note)
    licence = tag_info(name).get("license") or ""
    return Loaded(name, model, variables, file, own_data_config(name, model, file.config), tuple(notes), licence)


def _check_words(name: str, fields: Mapping[str, Any], size: Any) -> None:
    """Refuses an unknown name, tag or field before anything is read or downloaded."""
    if size is not None and not _is_size(size):
        raise UserError(f"checkpoint_image_size={size!r} is no size; expected pixels or a pair of them.")
    known = model_fields(name)
    strange = {word: value for word, value in fields.items() if word not in known}
    if strange:
        create_model(name, **strange)


def _agree(name: str | None, file: files.Checkpoint) -> str:
    """The name to build; a `config.json` that names another architecture is an error."""
    said = file.config.get("architecture")
    if name is None:
        if not isinstance(said, str):
            raise UserError(f"{file.path} does not say which model it is; give its timm name.")
        return said
    if isinstance(said, str) and split_tag(said)[0] != split_tag(name)[0]:
        raise UserError(
            f"{file.path} holds {said!r}, as its config.json says, not {split_tag(name)[0]!r}.\n"
            f"Load it as {said!r}, or take it away from that config.json."
        )
    return name


def saved_fields(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a `config.json` gives: timm's `model_args`, and our own words for what timm cannot say."""
    args, extra = config.get("model_args") or {}, config.get("jaxvit") or {}
    if not isinstance(args, Mapping) or not isinstance(extra, Mapping):
        raise UserError("config.json: model_args is no table of words and values.")
    known = model_fields(name)
    fields = {WORDS.get(str(word), str(word)): value for word, value in {**args, **extra}.items()}
    fields = {word: value for word, value in fields.items() if word not in HARMLESS and value is not None}
    if "global_pool" not in known and fields.get("global_pool") == "avg":
        del fields["global_pool"]
    return {word: tuple(v) if isinstance(v, list) else v for word, v in fields.items()}


def _size_hint(size: Any) -> str:
    if size is not None:
        return ""
    return "\nIts position table is for no square image: if that is all, say checkpoint_image_size=(height, width)."


def _timm_tensors(name: str, model: Any, file: files.Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """The file's tensors by timm's names, without buffers; a SigLIP asked for another pool loses its pooling head."""
    word = rules.family(model)
    tensors = foreign.to_timm(word, file.tensors)
    tensors = {key: array for key, array in tensors.items() if not rules.is_buffer(word, key)}
    kept = {key: array for key, array in tensors.items() if not key.startswith("attn_pool.")}
    if len(kept) == len(tensors) or "siglip" not in name or model.global_pool == "map":
        return tensors, []
    return kept, [f"global_pool={model.global_pool!r}: attn_pool is not loaded"]


def _own_windows(name: str, word: str, saved: dict[str, Any]) -> list[tuple[int, int]]:
    return adapt.swin_windows(create_model(name, **saved)) if word == "swin" else []


def _is_google(file: files.Checkpoint) -> bool:
    return any(key.endswith("embedding/kernel") for key in file.tensors)


def _own_sizes(config: Mapping[str, Any]) -> list[Any]:
    """Image sizes that the file's own config gives, the more exact word first."""
    args, cfg = config.get("model_args") or {}, config.get("pretrained_cfg") or config
    whole = cfg.get("input_size") if isinstance(cfg, Mapping) else None
    sizes = [args.get("img_size"), whole[1:] if isinstance(whole, list) else None]
    sizes = [tuple(size) if isinstance(size, list) else size for size in sizes]
    good = [s for s in sizes if _is_size(s)]
    return [s[0] if isinstance(s, tuple) and s[0] == s[1] else s for s in good]


def _is_size(size: Any) -> bool:
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    return all(type(side) is int and side > 0 for side in sides)


def stored_data_config(name: str, checkpoint: str | Path) -> dict[str, Any]:
    """The preprocessing that local weights of the named model expect, without reading the weights."""
    config = files.config_of(expand(checkpoint))
    return own_data_config(name, create_model(name, **saved_fields(name, config)), config)


def own_data_config(name: str, model: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessing the weights expect: the tag's, overruled by the file's own config, at the model's size."""
    ours = data_config(name)
    cfg = config.get("pretrained_cfg") or config
    theirs = {word: cfg.get(word) for word in DATA_WORDS} if isinstance(cfg, Mapping) else {}
    theirs = {word: tuple(v) if isinstance(v, list) else v for word, v in theirs.items()}
    theirs = {word: v for word, v in theirs.items() if isinstance(v, type(ours[word]))}
    size = model.image_size
    sizes = {"image_size": (size, size) if isinstance(size, int) else tuple(size)}
    counts = {"in_channels": model.in_channels, "num_classes": model.num_classes}
    return ours | theirs | sizes | counts
