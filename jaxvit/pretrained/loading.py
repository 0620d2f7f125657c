"""`load_pretrained`: a timm name, and a file or the hub, become a model and its variables."""

import logging
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from jaxvit.errors import UserError, shown
from jaxvit.models.family import Family, num_blocks
from jaxvit.models.layouts import Layout
from jaxvit.models.registry import (
    create_model,
    family_of,
    list_models,
    model_entry,
    model_fields,
    split_tag,
    tag_info,
)
from jaxvit.pretrained import (
    adapt,
    files,
    foreign,
    hf_architecture,
    hf_config,
    hub,
    identify,
    repository,
    rules,
    timm_config,
    wrappers,
)
from jaxvit.pretrained.convert import assemble, leave_out
from jaxvit.pretrained.saving import differences
from jaxvit.runtime.paths import expand

log = logging.getLogger("jaxvit")

MAX_BLOCKS = 200  # of a repository's model; the deepest of timm's ResNets has 139
METHODS = {"corners": adapt.CORNERS, "bilinear": adapt.BILINEAR}


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
    num_classes: int | None = None,
    image_size: Any = None,
    in_channels: int | None = None,
    *,
    head_init: str = "zero",
    seed: int = 0,
    weights: str | None = None,
    **fields: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns (model, variables) of a timm name, from a local file or directory, or from the hub if None.

    "hf_hub:user/name@revision", as name or checkpoint, is a repository in timm's or Transformers' layout. None keeps
    the checkpoint's own value. Another `num_classes` gives a fresh classifier, zero or "normal" (std 0.02) by
    `head_init`, and 0 the pooled features; another `image_size` resamples position and bias tables; another
    `in_channels` adapts the first convolution. `weights` is "ema" (averaged) or "raw" if a file holds both; None takes
    the averaged ones. Any other field of the model can be given. Changes are logged; `load` returns them. Raises
    UserError when the file cannot be read or does not fit the model.
    """
    loaded = load(
        name,
        checkpoint,
        num_classes=num_classes,
        image_size=image_size,
        in_channels=in_channels,
        head_init=head_init,
        seed=seed,
        weights=weights,
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
    weights: str | None = None,
    **fields: Any,
) -> Loaded:
    """`load_pretrained` with its record. `checkpoint_image_size` says what a non-square position table was made for."""
    if checkpoint is None and name is None:
        raise UserError("load_pretrained needs a model name, a checkpoint, or both.")
    wrappers.check(weights)
    key = _key(seed)
    if repository.is_repository(name):
        if checkpoint is not None:
            raise UserError(f"{name!r} has weights of its own; a checkpoint goes with a timm name.")
        name, checkpoint = None, name
    if name is not None:
        _check_words(name, fields, checkpoint_image_size)
    asked = {"num_classes": num_classes, "image_size": image_size, "in_channels": in_channels}
    asked = {field: value for field, value in asked.items() if value is not None}
    file = _read(name, checkpoint, revision, weights, asked | fields)
    name, saved = _agree(name, file.config, file.path, fields)
    base = create_model(name, **(saved | fields | asked))
    family = family_of(base)
    told = hf_config.fields(family, file.config, file.tensors)
    _check_depth(family.depth_field, saved, file)
    _check_size(base, file, saved)
    saved |= told
    tensors, dropped = _timm_tensors(name, create_model(name, **(saved | fields | asked)), file, weights)
    own = adapt.facts(family, tensors)
    usual = saved.get("image_size", model_fields(name)["image_size"])
    size = adapt.source_image_size(base, tensors, (checkpoint_image_size, *timm_config.own_sizes(file.config), usual))
    own["image_size"] = usual if size is None else size
    layouts = foreign.layouts_of(family, file.tensors)
    try:
        model = create_model(name, **(saved | own | fields | asked))
        tensors, notes = adapt.adapt(
            model,
            tensors,
            image_size=own["image_size"],
            windows=_own_windows(name, family, saved | {"image_size": own["image_size"]}, fields, tensors),
            method=_method(name, family, layouts),
            crops=any(layout.crops for layout in layouts),
            patch_size="patch_size" in fields,
            head_init=head_init,
            key=key,
        )
        variables = assemble(model, tensors)
    except UserError as error:
        raise UserError(str(error) + identify.hint(name, file.tensors) + _size_hint(size)) from None
    hf_config.check_windows(family, model, file.tensors)
    for note in (notes := [*file.notes, *dropped, *notes]):
        log.info("%s: %s", name, note)
    if repository.is_repository(checkpoint):  # a stranger's weights are not under the licence of the name's own
        licence = timm_config.licence(file.config)
    else:
        licence = tag_info(name).get("license") or ""
    return Loaded(
        name, model, variables, file, timm_config.own_data_config(name, model, file.config), tuple(notes), licence
    )


def _read(
    name: str | None, checkpoint: Any, revision: str | None, weights: str | None, fields: dict[str, Any]
) -> files.Checkpoint:
    """The file that is asked for, with its config in timm's words."""
    if checkpoint is None:
        return hub.fetch(str(name), revision=revision)
    if repository.is_repository(checkpoint):
        return repository.read(checkpoint, name, revision=revision, weights=weights, most_bytes=_room)
    room = partial(_most_bytes, name, checkpoint, fields)
    file = files.read(checkpoint, weights=weights, most_bytes=room)
    return replace(file, config=hf_architecture.complete(file.config, file.path.parent, name))


def _key(seed: Any) -> jax.Array:
    try:
        return jax.random.key(operator.index(seed))
    except (TypeError, OverflowError):
        raise UserError(f"seed={shown(seed)} cannot be; expected a whole number, such as 0.") from None


def _room(name: str, config: Mapping[str, Any]) -> int:
    """As `_most_bytes`, of a model and a stranger's config, for which no model without end is traced."""
    model = create_model(name, **timm_config.saved_fields(name, config))
    family = family_of(model)
    if family.depth_field is not None and (blocks := num_blocks(family, model)) > MAX_BLOCKS:
        raise UserError(f"config.json describes a {name} of {blocks} blocks; expected at most {MAX_BLOCKS}.")
    return 4 * 8 * _count(rule.shape for rule in rules.rules_of(model))


def _most_bytes(name: str | None, checkpoint: str | Path, fields: dict[str, Any]) -> int | None:
    """What weights may unpack to: four times the model in float64 leaves room for averages and an optimiser's state."""
    path = expand(checkpoint, "checkpoint")
    config = files.config_of(path)
    if name is None and not isinstance(config.get("architecture"), str):
        return None
    name, saved = _agree(name, config, path, fields)
    return 4 * 8 * _count(rule.shape for rule in rules.rules_of(create_model(name, **(saved | fields))))


def _count(shapes: Iterable[Sequence[int]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _check_depth(field: str | None, saved: Mapping[str, Any], file: files.Checkpoint) -> None:
    """Refuses a `config.json` with more blocks than the file has tensors, before they are all traced."""
    blocks = saved.get(str(field), 0)
    if (sum(blocks) if isinstance(blocks, tuple) else blocks) > len(file.tensors):
        raise UserError(f"config.json: {field}={blocks}, but {file.path} holds {len(file.tensors)} tensors.")


def _check_size(model: nn.Module, file: files.Checkpoint, saved: Mapping[str, Any]) -> None:
    """Refuses a `config.json` whose model is far larger than the file next to it, before anything is created for it."""
    wanted, there = _count(rule.shape for rule in rules.rules_of(model)), _count(a.shape for a in file.tensors.values())
    if saved and wanted > 2**24 + 8 * there:
        raise UserError(
            f"the config.json next to {file.path} describes a model of {wanted:,} numbers; the file holds {there:,}."
        )


def _check_words(name: str, fields: Mapping[str, Any], size: Any) -> None:
    """Refuses an unknown name, tag or field before anything is read or downloaded."""
    if size is not None and not timm_config.is_size(size):
        raise UserError(f"checkpoint_image_size={size!r} is not a size; expected pixels or a pair of them.")
    known = model_fields(name)
    strange = {word: value for word, value in fields.items() if word not in known}
    if strange:
        create_model(name, **strange)


def _agree(
    name: str | None, config: Mapping[str, Any], path: Path, given: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The name to build, and the fields that a `config.json` gives.

    A model whose fields no name has was saved by the nearest name, and several names can have the same fields: such
    files are loaded by any name of their family. Raises UserError for the name of another model.
    """
    said = config.get("architecture")
    if name is None:
        if not isinstance(said, str):
            raise UserError(f"{path} does not say which model it is; give its timm name.")
        return said, timm_config.saved_fields(said, config)
    if not isinstance(said, str) or (own := split_tag(said)[0]) == split_tag(name)[0]:
        return name, timm_config.saved_fields(name, config)
    if _is_relative(own, name):
        model = create_model(own, **timm_config.saved_fields(own, config))
        if differences(model, own) or not differences(model, name, given):
            return name, _saved_fields(name, config)
    raise UserError(
        f"{path} holds {said!r}, as its config.json says, not {split_tag(name)[0]!r}.\n"
        f"Load it as {said!r}, or move it away from that config.json."
    )


def _saved_fields(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the named model that a `config.json` gives, those that its own name stands for among them."""
    own = split_tag(str(config.get("architecture")))[0]
    if own == split_tag(name)[0] or not _is_relative(own, name):
        return timm_config.saved_fields(name, config)
    usual = model_fields(name)
    between = {field: value for field, value in model_fields(own).items() if value != usual[field]}
    return between | timm_config.saved_fields(own, config)


def _is_relative(own: str, name: str) -> bool:
    """Whether a name is known and one of the family of another."""
    return own in list_models() and model_entry(own)[0] is model_entry(name)[0]


def _size_hint(size: Any) -> str:
    if size is not None:
        return ""
    return "\nIts position table is not for a square image: if that is all, pass checkpoint_image_size=(height, width)."


def _timm_tensors(
    name: str, model: Any, file: files.Checkpoint, weights: str | None
) -> tuple[dict[str, Any], list[str]]:
    """The file's tensors by timm's names, without buffers; a SigLIP asked for another pool loses its pooling head."""
    family = family_of(model)
    shapes = {rule.name: rule.shape for rule in rules.rules_of(model)}
    tensors, notes = wrappers.to_timm(family, file.tensors, shapes, weights)
    tensors, left = leave_out(family, shapes, tensors)
    notes = [*notes, *left]
    for pattern, module in family.optional:
        start = f"{module}."
        if re.search(pattern, name) and not any(key.startswith(start) for key in shapes):
            kept = {key: array for key, array in tensors.items() if not key.startswith(start)}
            notes += [f"global_pool={model.global_pool!r}: {module} is not loaded"] if len(kept) < len(tensors) else []
            tensors = kept
    return tensors, notes


def _own_windows(
    name: str, family: Family, saved: Mapping[str, Any], fields: Mapping[str, Any], tensors: Mapping[str, Any]
) -> list[tuple[int, int]]:
    """The windows of each stage that the file's tables are for: what its config or its name says, not the caller.

    Its patches are those of its first convolution.
    """
    if not family.window_tables:
        return []
    own = {**model_fields(name), **saved}
    given = {field: value for field, value in fields.items() if field != "window_size"}
    if len(given.get("depths", own["depths"])) != len(own["depths"]):  # its windows are for none of these
        given["window_size"] = fields.get("window_size", own["window_size"])
    kernel = tensors.get(f"{family.first_conv[0]}.weight")
    if kernel is not None and kernel.ndim == 4 and 0 not in kernel.shape:
        h, w = kernel.shape[2:]
        given["patch_size"] = h if h == w else (h, w)
        if "crop_to_patches" in family.model.__dataclass_fields__:
            given["crop_to_patches"] = True
    return adapt.stage_windows_of(create_model(name, **{**saved, **given}))


def _method(name: str, family: Family, layouts: Iterable[Layout]) -> tuple[str, bool]:
    """How timm resamples tables and kernels of these weights."""
    words = [word for pattern, word in family.resampling if re.search(pattern, name)]
    words += [layout.resampling for layout in layouts if layout.resampling]
    return METHODS[words[0]] if words else adapt.BICUBIC


def stored_data_config(name: str, checkpoint: str | Path) -> dict[str, Any]:
    """The preprocessing that weights of the model, local, of a run or in a repository, expect; they are not read."""
    if not repository.is_repository(checkpoint) and files.is_run(expand(checkpoint)):
        return files.run_data_config(expand(checkpoint))
    if repository.is_repository(checkpoint):
        config = repository.read_config(str(checkpoint), name)
    else:
        path = expand(checkpoint)
        config = hf_architecture.complete(files.config_of(path), path if path.is_dir() else path.parent, name)
    return timm_config.own_data_config(name, create_model(name, **_saved_fields(name, config)), config)
