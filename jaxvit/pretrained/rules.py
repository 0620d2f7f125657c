"""The renaming between linen paths and timm names, and how the axes of each leaf turn."""

import functools
import re
from dataclasses import dataclass

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from jaxvit.models.family import Family
from jaxvit.models.layers import to_pair
from jaxvit.models.names import KERNEL_AXES, Path, timm_name
from jaxvit.models.registry import family_of

# Buffers of any network, by their last word; so is any tensor that is made of no floats.
EMPTY = r"(^|[._])(mask|index|position_ids|inv_freq|num_batches_tracked|relative_coords_table|total_ops|total_params)$"


@dataclass(frozen=True)
class Rule:
    """One tensor: its timm name and shape, its linen path, and the permutation from timm's axes to linen's."""

    name: str
    shape: tuple[int, ...]
    path: Path
    axes: tuple[int, ...] | None = None

    def to_linen(self, tensor: np.ndarray) -> np.ndarray:
        return tensor if self.axes is None else tensor.transpose(np.argsort(self.axes))

    def to_timm(self, leaf: np.ndarray) -> np.ndarray:
        return leaf if self.axes is None else leaf.transpose(self.axes)


def _rule(path: Path, shape: tuple[int, ...]) -> Rule:
    axes = KERNEL_AXES[len(shape)] if path[-1] == "kernel" else None
    timm_shape = shape if axes is None else tuple(shape[i] for i in axes)
    return Rule(timm_name(path[1:]), timm_shape, path, axes)


def shapes(model: nn.Module) -> dict[Path, jax.ShapeDtypeStruct]:
    """The model's variables as shapes only, flattened to paths; computes nothing."""
    images = jax.ShapeDtypeStruct((1, *to_pair(model.image_size), model.in_channels), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return traverse_util.flatten_dict(variables)  # pyright: ignore[reportReturnType]


def _rules(model: nn.Module) -> tuple[Rule, ...]:
    return tuple(_rule(path, leaf.shape) for path, leaf in shapes(model).items())


_cached_rules = functools.lru_cache(maxsize=16)(_rules)


def rules_of(model: nn.Module) -> tuple[Rule, ...]:
    """The rule of every tensor of the model; shapes come from tracing `init`, so nothing is computed."""
    family_of(model)  # says so where the model is none of ours
    try:
        return _cached_rules(model)
    except TypeError:  # a field that cannot be hashed, a list say
        return _rules(model)


def is_buffer(family: Family, name: str) -> bool:
    """Whether a tensor is one of the family's buffers, which hold no weights."""
    return any(re.search(pattern, name) for pattern in family.buffers)
