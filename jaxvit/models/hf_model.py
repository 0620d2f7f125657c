"""How a model of Hugging Face Transformers is one of ours: what a family's record says of its `model_type`.

Transformers writes the shape of a network into `config.json` under words of its own; a record turns them into fields.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxvit.errors import UserError

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


@dataclass(frozen=True)
class HfModel:
    """A `model_type`: the variant whose fields it starts from, and the fields that its config sets."""

    entry: str  # timm's name
    fields: Callable[[Config], dict[str, Any]]
    image_size: int | None = 224  # pixels, where the config gives none; None: the network takes any size
    among: str = ""  # pattern of the names that it may have, where other weights of the same network have others
    refused: Mapping[str, str] = field(default_factory=dict)  # end of a class's name -> why no model here is it


def activation(word: Any) -> str:
    """Our name of one of Transformers' activations. Raises UserError for one that is not here."""
    if not isinstance(word, str) or word not in ACTIVATIONS:
        raise UserError(f"config.json: hidden_act={word!r} is not supported; expected one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[word]


def whole(config: Config, word: str, usual: int) -> int:
    """A positive whole number of the config. Raises UserError for anything else under that word."""
    value = config.get(word, usual)
    if type(value) is not int or not 0 < value < 2**20:
        raise UserError(f"config.json: {word}={str(value)[:60]}; expected a whole number above 0.")
    return value


def wholes(config: Config, word: str, usual: list[int]) -> list[int]:
    """A list of whole numbers. Raises UserError for anything else under that word."""
    values = config.get(word, usual)
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise UserError(f"config.json: {word}={str(values)[:60]}; expected a list of whole numbers.")
    return values


def mlp_ratio(size: int, hidden: int) -> float:
    """The ratio whose product with the width `size`, cut to a whole number, is the hidden width."""
    ratio = hidden / size
    return ratio if int(size * ratio) == hidden else math.nextafter(ratio, math.inf)


def tower(config: Config) -> Config:
    """The part of a config that describes the image tower, where a model has others too, else all of it."""
    part = config.get("vision_config")
    return part if isinstance(part, Mapping) else config


def transformer(config: Config) -> dict[str, Any]:
    """The words that all of Transformers' plain vision transformers share."""
    return {
        "embed_dim": whole(config, "hidden_size", 768),
        "depth": whole(config, "num_hidden_layers", 12),
        "num_heads": whole(config, "num_attention_heads", 12),
        "qkv_bias": config.get("qkv_bias", True),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "act_layer": activation(config.get("hidden_act", "gelu")),
    }
