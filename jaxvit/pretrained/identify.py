"""Which model a file of weights is for: the part of an error message that helps most."""

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxvit.models.layers import to_pair
from jaxvit.models.registry import FAMILIES, split_tag
from jaxvit.pretrained import foreign, wrappers

Tensors = Mapping[str, np.ndarray]

# A tensor of the family in timm's own names, after its other layouts have been renamed.
MARKERS = {
    "swin": r"^layers\.0\.blocks\.0\.attn\.relative_position_bias_table$",
    "vit": r"^blocks\.0\.(norm1|in_norm|attns\.0\.norm)\.weight$",
    "resnet": r"^layer1\.0\.conv1\.weight$",
    "vgg": r"^pre_logits\.fc1\.weight$",
    "alexnet": r"^classifier\.1\.weight$",
}


def _depths(tensors: Tensors, pattern: str) -> tuple[int, ...]:
    """Blocks per stage, from names that match (stage, block)."""
    pairs = {(int(m[1]), int(m[2])) for name in tensors if (m := re.match(pattern, name))}
    return tuple(sum(s == stage for s, _ in pairs) for stage in sorted({s for s, _ in pairs}))


def _patches(tensors: Tensors) -> dict[str, Any]:
    kernel = tensors.get("patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 4:
        return {}
    return {"embed_dim": kernel.shape[0], "patch_size": kernel.shape[2:]}


def _vit(tensors: Tensors) -> dict[str, Any]:
    depth = len({m[1] for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))})
    return {**_patches(tensors), "depth": depth, "distilled": "dist_token" in tensors}


def _swin(tensors: Tensors) -> dict[str, Any]:
    return {**_patches(tensors), "depths": _depths(tensors, r"layers\.(\d+)\.blocks\.(\d+)\.")}


def _resnet(tensors: Tensors) -> dict[str, Any]:
    block = "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic"
    attn = "eca" if "layer1.0.se.conv.weight" in tensors else "se" if "layer1.0.se.fc1.weight" in tensors else None
    layers = _depths(tensors, r"layer(\d+)\.(\d+)\.conv1")
    stem = {} if "conv1.0.weight" in tensors else {"stem_type": ""}
    return {"block": block, "layers": layers, "attn_layer": attn, **stem}


def _vgg(tensors: Tensors) -> dict[str, Any]:
    widths = tuple(t.shape[0] for n, t in sorted(tensors.items(), key=_place) if t.ndim == 4 and "features" in n)
    return {"widths": widths, "norm_layer": "batchnorm" if "features.1.running_var" in tensors else None}


def _place(item: tuple[str, Any]) -> int:
    match = re.match(r"features\.(\d+)\.", item[0])
    return int(match[1]) if match else -1


SIGNS: dict[str, Callable[[Tensors], dict[str, Any]]] = {"vit": _vit, "swin": _swin, "resnet": _resnet, "vgg": _vgg}


def _comparable(field: str, value: Any) -> Any:
    return to_pair(value) if field == "patch_size" else value


def identify(tensors: Tensors) -> list[str]:
    """The timm names whose depth, widths and options the tensors show, shortest name first; [] if none."""
    for prefix, (word, marker) in itertools.product(("", *wrappers.candidates(tensors)), MARKERS.items()):
        inside = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
        try:
            named = foreign.to_timm(word, inside)
        except ValueError:
            continue
        if not any(re.search(marker, name) for name in named):
            continue
        signs, family = SIGNS.get(word, lambda _: {})(named), FAMILIES[word]
        found = []
        for name, own in family.variants.items():
            fields = {f: getattr(family.model, f, None) for f in signs} | dict(own)
            fields["widths"] = tuple(c for c in fields.get("cfg", ()) if c != "M")
            if all(_comparable(f, fields[f]) == _comparable(f, value) for f, value in signs.items()):
                found.append(name)
        return sorted(found, key=lambda name: (len(name), name))
    return []


def hint(name: str, tensors: Tensors) -> str:
    """A line naming what the file looks like, or "" where it looks like nothing else than `name`."""
    names = identify(tensors)
    if not names or split_tag(name)[0] in names:
        return ""
    return "\nThe file looks like " + " or ".join(repr(n) for n in names[:3]) + "."
