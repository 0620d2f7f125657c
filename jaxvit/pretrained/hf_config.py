"""Transformers' `config.json`: what its models do that no tensor shows, converted to our fields or refused."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair
from jaxvit.models.swin import NORM_EPS as SWIN_EPS
from jaxvit.models.windows import stage_windows

Config = Mapping[str, Any]

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def is_layout(tensors: Mapping[str, Any]) -> bool:
    """Whether the tensors have Transformers' names."""
    return any("embeddings.patch_embeddings." in name or "embedder.embedder." in name for name in tensors)


def fields(word: str, config: Config, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of a model of the family `word` that the config sets and the shapes do not show.

    Raises UserError for a network that the family has not, though its weights would fit.
    """
    if not isinstance(config.get("model_type"), str) or not is_layout(tensors):
        return {}
    return FAMILIES.get(word, lambda _: {})(config)


def _act(config: Config) -> str:
    act = config.get("hidden_act", "")
    if act not in ACTIVATIONS:
        raise UserError(f"config.json: hidden_act={act!r} is not supported; expected one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[act]


def _vit(config: Config) -> dict[str, Any]:
    found = {}
    if "hidden_act" in config and not config.get("use_swiglu_ffn"):
        found["act_layer"] = _act(config)
    for theirs, ours in (("num_attention_heads", "num_heads"), ("layer_norm_eps", "norm_eps")):
        if theirs in config:
            found[ours] = config[theirs]
    return found


def _swin(config: Config) -> dict[str, Any]:
    if "hidden_act" in config and _act(config) != "gelu":
        raise UserError(f"config.json: a Swin with hidden_act={config['hidden_act']!r}; expected 'gelu'.")
    if config.get("layer_norm_eps", SWIN_EPS) != SWIN_EPS:
        raise UserError(f"config.json: a Swin with layer_norm_eps={config['layer_norm_eps']!r}; expected {SWIN_EPS}.")
    heads = config.get("num_heads")
    return {"num_heads": tuple(heads)} if isinstance(heads, list) else {}


def _resnet(config: Config) -> dict[str, Any]:
    for word, what in (
        ("downsample_in_bottleneck", "the stride in the first convolution of a block"),
        ("downsample_in_first_stage", "a stride in the first stage"),
    ):
        if config.get(word):
            raise UserError(f"config.json: {word}, {what}, is not supported; its weights would give other logits.")
    if config.get("hidden_act", "relu") != "relu":  # Transformers has relu within the blocks all the same
        raise UserError(f"config.json: a ResNet with hidden_act={config['hidden_act']!r}; expected 'relu'.")
    return {}


FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {"vit": _vit, "swin": _swin, "resnet": _resnet}


def check_windows(word: str, model: Any, tensors: Mapping[str, np.ndarray]) -> None:
    """Raises UserError where Transformers pads a Swin's maps otherwise than timm does.

    It pads before the shift and timm after it, so shifted windows that do not divide their map see other pixels.
    """
    if word != "swin" or not is_layout(tensors):
        return
    (h, w), (ph, pw) = to_pair(model.image_size), to_pair(model.patch_size)
    size = (h // ph, w // pw)
    for depth, window in zip(model.depths, stage_windows(model.window_size, len(model.depths)), strict=True):
        whole = all(side <= win or side % win == 0 for side, win in zip(size, window, strict=True))
        alike = size[0] == size[1] or min(size) > max(window)
        if depth > 1 and not (whole and alike):
            raise UserError(
                f"these weights are from Transformers, which pads a map of {size[0]}x{size[1]} for windows of "
                f"{window[0]}x{window[1]} otherwise than timm.\n"
                "Expected an image_size whose maps are multiples of window_size; their logits would differ here."
            )
        size = (-(-size[0] // 2), -(-size[1] // 2))
