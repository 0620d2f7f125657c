"""What timm records about every pretrained tag: where the weights lie, their classes, image size and preprocessing."""

import difflib
import json
import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError, suggest

Triple = tuple[float, float, float]

# Mean and standard deviation per channel, in [0, 1] pixel units.
NORMALIZATION: dict[str, tuple[Triple, Triple]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "satellite": ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143)),  # DINOv3 on SAT-493M
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
DATA_FIELDS = (
    "image_size", "in_channels", "mean", "std", "crop_pct", "crop_mode", "interpolation", "num_classes",
)  # fmt: skip

SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge"}  # as papers and torchvision write them

UNTAGGED: dict[str, Any] = {
    "hub": None, "license": None, "num_classes": 1000, "in_channels": 3, "image_size": [224, 224],
    "normalization": "imagenet", "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic",
}  # fmt: skip


@cache
def tag_tables() -> dict[str, dict[str, dict[str, Any]]]:
    """Name -> tag -> complete entry; the default tag comes first, and names without tags have the tag ""."""
    families = json.loads(Path(__file__).with_name("tags.json").read_text())["families"]
    return {
        name: {tag: _complete(name, tag, family["defaults"] | own) for tag, own in tags.items()}
        for family in families.values()
        for name, tags in family["models"].items()
    }


@cache
def renamed() -> dict[str, str]:
    """Names that timm once had -> today's, with tag."""
    return json.loads(Path(__file__).with_name("tags.json").read_text())["renamed"]


def _complete(name: str, tag: str, entry: dict[str, Any]) -> dict[str, Any]:
    mean, std = NORMALIZATION[entry["normalization"]]
    hub = entry.get("hub", f"timm/{name}.{tag}" if tag else f"timm/{name}")  # null in the file: not on the hub
    entry = {"url": None, "test_image_size": None, "test_crop_pct": None, "fixed_input_size": False} | entry
    entry |= {"name": name, "tag": tag, "hub": hub, "mean": mean, "std": std}
    lists = {k: tuple(v) for k, v in entry.items() if isinstance(v, list)}
    return entry | lists | {"has_weights": bool(hub or entry["url"])}


def split_tag(name: str) -> tuple[str, str | None]:
    """Splits "resnet18.a1_in1k" into ("resnet18", "a1_in1k"); the tag is None if there is none."""
    if not isinstance(name, str):
        raise UserError(f"model name {name!r} is not text; expected e.g. 'resnet18'.")
    base, dot, tag = name.partition(".")
    return base, tag if dot else None


def tag_info(name: str, *, untagged: Collection[str] = ()) -> dict[str, Any]:
    """Everything recorded about a tag; the name alone stands for its default tag.

    Of names in `untagged` nothing need be recorded: they have the preprocessing of most networks, and no weights.

    Keys: those of `data_config`, and name, tag ("" if the name has none), has_weights, hub (repository on the
    Hugging Face hub, or None), url (used when hub is None), license, classifier (one name or several), first_conv,
    test_image_size, test_crop_pct, fixed_input_size. Raises UserError for an unknown name or tag.
    """
    base, tag = split_tag(name)
    tags = tag_tables().get(base)
    if tags is None and tag is None and base in untagged:
        return _complete(base, "", UNTAGGED)
    if tags is None:
        raise unknown_name(base, tag_tables())
    if tag is None:
        return tags[next(iter(tags))]
    if tag not in tags:
        known = [t for t in tags if t]
        if not known:
            raise UserError(f"unknown tag {tag!r}: {base!r} has no tags.")
        hint = suggest(tag, known) or f" It has {_some(known)}."
        raise UserError(f"unknown tag {tag!r} of {base!r}.{hint}")
    return tags[tag]


def unknown_name(name: str, names: Iterable[str]) -> UserError:
    """The error for a model name that does not exist, with the nearest of `names`."""
    if name in renamed():
        return UserError(f"unknown model {name!r}: it is now called {renamed()[name]!r}.")
    return UserError(f"unknown model {name!r}.{suggest_name(name, names)} jaxvit.list_models() lists all names.")


def suggest_name(name: str, names: Iterable[str]) -> str:
    """Returns " Did you mean 'a', 'b'?" for the model names nearest to `name`, or "" where none is near."""
    word, names = name.lower().replace("-", "_"), list(names)
    longer = _starting(word, names)
    if not longer:  # ViT-B/16, vit_b_16
        longer = _starting(re.sub(r"_([tsblh])(?:[_/]?(?=\d)|$)", lambda m: f"_{SIZES[m[1]]}_patch", word), names)
    if not longer:  # as many parts of each name, of which the nearest: vit_tinyy
        parts = 1 + word.count("_")
        starts = dict.fromkeys("_".join(n.split("_")[:parts]) for n in names)
        nearest = difflib.get_close_matches(word, starts, n=1, cutoff=0.7)
        longer = _starting(nearest[0], names) if nearest else []
    return f" Did you mean {', '.join(map(repr, longer))}?" if longer else suggest(word, names)


def _starting(word: str, names: Iterable[str]) -> list[str]:
    """The three shortest names that start with a word."""
    return sorted((n for n in names if word and n.startswith(word)), key=lambda n: (len(n), n))[:3]


def _some(words: list[str], most: int = 6) -> str:
    shown = ", ".join(repr(w) for w in words[:most])
    return shown + (f" and {len(words) - most} more" if len(words) > most else "")
