"""Transformers' `config.json`: what its models do that no tensor shows, converted to our fields or refused."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.family import Family
from jaxvit.models.hf_model import Config, activation, tower
from jaxvit.models.layers import to_pair
from jaxvit.models.windows import stage_windows
from jaxvit.pretrained import foreign


def is_layout(family: Family, tensors: Mapping[str, Any]) -> bool:
    """Whether the tensors have Transformers' names, by the marks in the family's record."""
    return any(layout.transformers for layout in foreign.layouts_of(family, tensors))


def fields(family: Family, config: Config, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of a model of the family that the config sets and the shapes do not show.

    Raises UserError for a network that the family has not, though its weights would fit.
    """
    if not isinstance(config.get("model_type"), str) or not is_layout(family, tensors):
        return {}
    config = tower(config)
    for word, wanted in family.transformers_only.items():
        if config.get(word) not in (None, wanted):
            raise UserError(
                f"config.json: a {family.model.__name__} with {word}={config[word]!r}; expected {wanted!r}, "
                "as its weights would give other logits."
            )
    words = dict(family.transformers_fields)
    if config.get("use_swiglu_ffn"):
        words.pop("hidden_act", None)
    return {ours: _value(word, config[word]) for word, ours in words.items() if word in config}


def _value(word: str, value: Any) -> Any:
    if word != "hidden_act":
        return tuple(value) if isinstance(value, list) else value
    return activation(value)


def check_windows(family: Family, model: Any, tensors: Mapping[str, np.ndarray]) -> None:
    """Raises UserError where Transformers pads a Swin's maps otherwise than timm does.

    It pads before the shift and timm after it, so shifted windows that do not divide their map see other pixels.
    """
    if family.attention != "windows" or not is_layout(family, tensors):
        return
    (h, w), (ph, pw) = to_pair(model.image_size), to_pair(model.patch_size)
    size = (h // ph, w // pw)
    for depth, window in zip(model.depths, stage_windows(model.window_size, len(model.depths)), strict=True):
        whole = all(side <= win or side % win == 0 for side, win in zip(size, window, strict=True))
        alike = size[0] == size[1] or min(size) > max(window)
        if depth > 1 and not (whole and alike):
            raise UserError(
                f"these weights are from Transformers, which pads a map of {size[0]}x{size[1]} for windows of "
                f"{window[0]}x{window[1]} unlike timm.\n"
                "Expected an image_size whose maps are multiples of window_size; their logits would differ here."
            )
        size = (-(-size[0] // 2), -(-size[1] // 2))
