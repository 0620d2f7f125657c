"""Whether a config is the one that a run was begun with."""

from collections.abc import Mapping
from typing import Any

from jaxvit.config.default import Config, default
from jaxvit.config.words import flatten, to_dict
from jaxvit.runtime.paths import expand

# What a run works out for itself when it is None; see `differences`.
DERIVED = (
    "data.image_size", "data.mean", "data.std", "data.crop_pct", "data.interpolation",
    "model.num_classes", "model.image_size", "model.in_channels", "parallel.num_devices",
    "model.distilled_training", "micro_batch", "ema.warmup",
)  # fmt: skip


# Where and by what a run is computed, not what it is.
PLACES = ("parallel.", "data.workers", "data.num_workers")


def differences(given: Config, resolved: Mapping[str, Any]) -> list[str]:
    """Returns the options whose values differ between a config and a run's resolved one, as "option: old -> new".

    The ranges of a search are not a property of a run, nor are the modules that register its parts. Weights
    on the disk or in a repository may bring model fields that are not given.
    """
    new, old = flatten(to_dict(given)), flatten(to_dict(default())) | flatten(dict(resolved))  # words of later versions
    start = new.get("pretrained") or ""
    brings = bool(start) and (start.startswith(("hf_hub:", "hf-hub:")) or expand(start).exists())
    out = []
    for word in sorted(new.keys() | old.keys()):
        left_open = word in DERIVED or word.startswith("model.") and brings
        if word in ("imports", "data.rescan") or word.startswith("sweep.") or left_open and new.get(word) is None:
            continue
        if word.startswith(PLACES):
            continue
        if word == "pretrained" and all(str(v.get(word)).endswith("/start") for v in (new, old)):
            continue  # a copy in the workdir, which may have moved
        if new.get(word) != old.get(word) and not _made_of(word, new.get(word), old.get(word)):
            out.append(f"{word}: {old.get(word)} -> {new.get(word)}")
    return out


def _made_of(word: str, given: Any, resolved: Any) -> bool:
    """Whether a value for each side or channel is what a run made of one for all of them, or of their mean."""
    if word not in ("model.image_size", "data.image_size", "data.mean", "data.std") or not isinstance(resolved, list):
        return False
    values = given if isinstance(given, list) else [given]
    if not values or not all(isinstance(v, int | float) for v in values):
        return False
    same = len(set(values)) == 1 and resolved == values[:1] * len(resolved)
    return same or resolved == [sum(values) / len(values)]
