"""Fits a checkpoint to a model of another size, channel number, class number or stem; every change leaves a note."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxvit.errors import UserError, shown
from jaxvit.models.conv_layers import torch_bias
from jaxvit.models.family import Family
from jaxvit.models.layers import kaiming_fan_out, to_pair, torch_uniform, trunc_normal
from jaxvit.models.registry import family_of
from jaxvit.models.windows import clamp_window, stage_windows
from jaxvit.pretrained import resample, rules

Tensors = dict[str, np.ndarray]
Pair = tuple[int, int]

HEAD_INITS = ("zero", "normal")
BICUBIC = ("bicubic", True)
BILINEAR = ("bilinear", False)  # what timm takes for FlexiViT, for RADIO and for Google's own files
CORNERS = ("corners", False)  # for some of RADIO: the positions alone


def facts(family: Family, tensors: Tensors) -> dict[str, int]:
    """What the tensors themselves say: num_classes (0 without a classifier) and in_channels."""
    head = next((t for n in family.classifiers if (t := tensors.get(f"{n}.weight")) is not None), None)
    found = {"num_classes": 0 if head is None else int(head.shape[0]) if head.ndim else 0}
    conv = next((t for n in family.first_conv if (t := tensors.get(f"{n}.weight")) is not None), None)
    if conv is not None and conv.ndim == 4 and conv.shape[1] > 0:
        found["in_channels"] = int(conv.shape[1])
    return found


def num_position_prefix(model: Any) -> int:
    """How many of the position entries belong to prefix tokens; the model knows, nothing is guessed."""
    return 0 if model.no_embed_class else model.num_prefix_tokens


def source_image_size(model: Any, tensors: Tensors, candidates: Iterable[Any]) -> Any:
    """The image size a checkpoint was made for: the first candidate that its position table allows, else a square.

    Without such a table the first candidate. None where the table fits neither.
    """
    family, sizes = family_of(model), [size for size in candidates if size is not None]
    table, kernel = tensors.get(family.position_table or ""), tensors.get(f"{family.first_conv[0]}.weight")
    if table is None or kernel is None:
        return sizes[0]
    if table.ndim != 3 or kernel.ndim != 4 or 0 in kernel.shape:
        return sizes[0]
    patch, count = kernel.shape[2:], table.shape[1] - num_position_prefix(model)
    for size in sizes:
        if math.prod(_grid(size, patch)) == count:
            return size
    side = math.isqrt(max(count, 0))
    if side * side != count or count == 0:
        return None
    return side * patch[0] if patch[0] == patch[1] else (side * patch[0], side * patch[1])


def _grid(size: Any, patch: Iterable[int]) -> Pair:
    (h, w), (ph, pw) = to_pair(size), patch
    return h // ph, w // pw


def adapt(
    model: nn.Module,
    tensors: Tensors,
    *,
    image_size: Any,
    windows: Sequence[Pair] = (),
    patch_size: bool = False,
    method: tuple[str, bool] = BICUBIC,
    crops: bool = False,
    head_init: str = "zero",
    key: jax.Array | None = None,
) -> tuple[Tensors, list[str]]:
    """Returns the tensors (timm's names) changed to fit `model`, and a note for each change.

    `image_size` is the size the tensors were made for, `windows` a Swin's window in each stage; `method` is the
    interpolation (name, antialias) of tables and kernels. `patch_size` allows the patch kernel to be resampled,
    which is never done unasked: a file with other patches is more likely the wrong file. Tensors that cannot be
    fitted are left alone for `convert` to report. `crops`: a position table is resized to a square and cut to the
    model's grid from its upper left, as RADIO's own code does it.
    """
    if not isinstance(head_init, str) or head_init not in HEAD_INITS:
        raise UserError(f"head_init={shown(head_init)} is unknown; expected 'zero' or 'normal'.")
    family = family_of(model)
    shapes = {rule.name: rule.shape for rule in rules.rules_of(model)}
    key = jax.random.key(0) if key is None else key
    tensors, notes = dict(tensors), []
    notes += _stem(model, shapes, tensors, key)
    notes += _channels(family, shapes, tensors)
    notes += _positions(model, tensors, to_pair(image_size), method, crops)
    if patch_size:
        notes += _patches(family, shapes, tensors, BILINEAR if method == CORNERS else method)
    notes += _windows(model, shapes, tensors, windows)
    dropped = _head(model, shapes, tensors, head_init, jax.random.fold_in(key, 1))
    kept = not dropped and any(f"{head}.weight" in shapes for head in family.classifiers)
    notes += _lost_hidden(family.lost_hidden, tensors, kept=kept) if family.lost_hidden else []
    return tensors, notes + dropped


def _stem(model: Any, shapes: dict[str, Any], tensors: Tensors, key: jax.Array) -> list[str]:
    """A CIFAR stem has no weights anywhere: drops the file's own first convolution and draws a fresh one."""
    family = family_of(model)
    if not family.cifar_stem or model.stem != "cifar":
        return []
    first = f"{family.cifar_stem[0]}.weight"
    dropped = [n for n in tensors if n.split(".")[0] in family.cifar_stem and shapes.get(n) != tensors[n].shape]
    if not dropped:
        return []
    for name in dropped:
        del tensors[name]
    kernel = kaiming_fan_out(key, tuple(shapes[first][i] for i in (2, 3, 1, 0)))
    tensors[first] = np.asarray(kernel).transpose(3, 2, 0, 1)
    return [f"stem='cifar': {family.cifar_stem[0]} is fresh; not loaded: {', '.join(dropped)}"]


def _channels(family: Family, shapes: dict[str, Any], tensors: Tensors) -> list[str]:
    for name in (f"{conv}.weight" for conv in family.first_conv):
        kernel, want = tensors.get(name), shapes.get(name)
        if kernel is None or want is None or kernel.ndim != 4 or 0 in kernel.shape or kernel.shape[1] == want[1]:
            continue
        tensors[name] = resample.adapt_input_conv(kernel, want[1])
        return [f"in_channels: {name} fitted from {kernel.shape[1]} to {want[1]} channels"]
    return []


def _positions(model: Any, tensors: Tensors, image_size: Pair, method: tuple[str, bool], crops: bool) -> list[str]:
    family = family_of(model)
    name = family.position_table or ""
    table, kernel = tensors.get(name), tensors.get(f"{family.first_conv[0]}.weight")
    if table is None or kernel is None or table.ndim != 3 or kernel.ndim != 4 or 0 in kernel.shape:
        return []
    prefix, old, new = num_position_prefix(model), _grid(image_size, kernel.shape[2:]), model.grid_size
    if old == new or table.shape[1] != prefix + math.prod(old) or 0 in old or 0 in new:
        return []
    whole = (max(new), max(new)) if crops else new
    resized = resample.resample_abs_pos_embed(table, whole, old, prefix, method=method[0], antialias=method[1])
    if whole != new:
        grid = resized[:, prefix:].reshape(1, *whole, -1)[:, : new[0], : new[1]]
        resized = np.concatenate([resized[:, :prefix], grid.reshape(1, math.prod(new), -1)], axis=1)
    tensors[name] = resized
    return [f"image_size: {name} resampled from {old[0]}x{old[1]} to {new[0]}x{new[1]} patches"]


def _patches(family: Family, shapes: dict[str, Any], tensors: Tensors, method: tuple[str, bool]) -> list[str]:
    name = f"{family.first_conv[0]}.weight"
    kernel, want = tensors.get(name), shapes.get(name)
    if kernel is None or want is None or kernel.ndim != 4 or 0 in kernel.shape or kernel.shape[2:] == want[2:]:
        return []
    tensors[name] = resample.resample_patch_embed(kernel, want[2:], method=method[0], antialias=method[1])
    return [f"patch_size: {name} resampled from {kernel.shape[2:]} to {want[2:]} pixels"]


def stage_windows_of(model: Any) -> list[Pair]:
    """The window of every stage of a model with windows, cut to its map."""
    (h, w), found = _grid(model.image_size, to_pair(model.patch_size)), []
    for window in stage_windows(model.window_size, len(model.depths)):
        always = getattr(model, "always_partition", False)
        found.append(clamp_window((h, w), window, shifted=False, always_partition=always)[0])
        h, w = -(-h // 2), -(-w // 2)
    return found


def _windows(model: Any, shapes: dict[str, Any], tensors: Tensors, windows: Sequence[Pair]) -> list[str]:
    """Resizes the bias tables; one that is not of the window in `windows` is taken for a square one, as in timm."""
    pattern, changed = family_of(model).window_tables, []
    if pattern is None:
        return []
    ours = stage_windows_of(model)
    for name, stage in ((n, int(found[1])) for n in shapes if (found := re.search(pattern, n))):
        table, new = tensors.get(name), ours[stage]
        if table is None or table.ndim != 2 or table.shape[1:] != shapes[name][1:] or not len(table):
            continue
        known = windows[stage] if stage < len(windows) else None
        old = known if known and _table_length(known) == len(table) else _square_window(len(table))
        if old is not None and old != new:
            tensors[name] = resample.resize_rel_pos_bias_table(table, new, old)
            changed.append(f"stage {stage}: {old[0]}x{old[1]} to {new[0]}x{new[1]}")
    unique = list(dict.fromkeys(changed))
    return [f"window_size: relative position tables resized in {', '.join(unique)}"] if unique else []


def _table_length(window: Pair) -> int:
    return (2 * window[0] - 1) * (2 * window[1] - 1)


def _square_window(length: int) -> Pair | None:
    side = math.isqrt(length)
    return ((side + 1) // 2, (side + 1) // 2) if side * side == length and side % 2 else None


def _head(model: Any, shapes: dict[str, Any], tensors: Tensors, init: str, key: jax.Array) -> list[str]:
    """Drops a classifier that the model has not, and draws one that the file has for other classes or not at all."""
    family, notes = family_of(model), []
    headless = facts(family, tensors)["num_classes"] == 0
    for head, hidden in family.classifiers.items():
        names = [f"{head}.weight", f"{head}.bias"]
        weight, want = tensors.get(names[0]), shapes.get(names[0])
        had = [name for name in names if name in tensors]
        fresh = _hidden(model, hidden, shapes, tensors, key) if hidden else ""
        notes += [fresh] if fresh else []
        if want is None:
            drop, note = had if model.num_classes == 0 else [], f"num_classes=0: {head} is not loaded"
        elif headless or fresh or (weight is not None and weight.shape[:1] != want[:1]):
            drop, note = had or names, f"num_classes={want[0]}: {head} is fresh ({init})"
        else:
            continue
        for name in drop:
            tensors.pop(name, None)
        notes += [note] if drop else []
        if want is not None:
            normal = init == "normal"
            tensors[names[0]] = np.asarray(trunc_normal(key, want)) if normal else np.zeros(want, np.float32)
            tensors[names[1]] = np.zeros(want[:1], np.float32)
    return notes


def _lost_hidden(hidden: str, tensors: Tensors, *, kept: bool) -> list[str]:
    """Drops a hidden layer that neither timm nor we have (the first ViTs'), where its classifier goes as well."""
    had = [name for name in tensors if name.startswith(f"{hidden}.")]
    if had and kept:
        raise UserError(
            f"the classifier of these weights reads a hidden layer, {hidden}, which this model lacks: "
            "its logits would be wrong.\nExpected num_classes=0 (features) or another number (a fresh classifier)."
        )
    for name in had:
        del tensors[name]
    return [f"{hidden} is not loaded"] if had else []


def _hidden(model: Any, hidden: str, shapes: dict[str, Any], tensors: Tensors, key: jax.Array) -> str:
    """Draws the hidden layer before a classifier where the file has none such; returns the note, or ""."""
    names = [f"{hidden}.weight", f"{hidden}.bias"]
    had, want = [name for name in names if name in tensors], shapes.get(names[0])
    if want is None and model.num_classes == 0 and had:
        for name in had:
            del tensors[name]
        return f"num_classes=0: {hidden} is not loaded"
    if want is None or (had and tensors[names[0]].shape == want):
        return ""
    kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, len(hidden)))
    tensors[names[0]] = np.asarray(torch_uniform(kernel_key, want[::-1])).T
    tensors[names[1]] = np.asarray(torch_bias(want[1])(bias_key, want[:1]))
    return f"head_hidden_size={want[0]}: {hidden} is fresh"
