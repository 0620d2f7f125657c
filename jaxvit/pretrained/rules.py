"""The renaming between linen paths and timm names, and how the axes of each leaf turn."""

import functools
import re
from dataclasses import dataclass

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from jaxvit.models.layers import to_pair

Path = tuple[str, ...]

# linen's word for a leaf -> PyTorch's; a leaf that is not listed (cls_token, gamma, ...) keeps its name and axes.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# A kernel's axes by rank: dense [in, out] -> [out, in], conv [*window, in, out] -> [out, in, *window].
KERNEL_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}

# What a family's files carry besides weights: dropped on reading.
BUFFERS = {
    "alexnet": (),
    "resnet": (r"\.num_batches_tracked$",),
    "vgg": (r"\.num_batches_tracked$",),
    "vit": (r"^mask_token$", r"^decoder_(embed|pos_embed|blocks|norm|pred)\b"),  # of pretraining: MAE, DINOv2
    "swin": (r"\.relative_position_index$", r"\.attn_mask$", r"\.num_batches_tracked$"),
}
# Buffers of any network, by their last word; so is any tensor that is made of no floats.
EMPTY = r"(^|[._])(mask|index|position_ids|inv_freq|num_batches_tracked|relative_coords_table|total_ops|total_params)$"
# The classifier (a distilled model has two), which a new number of classes replaces, and the first convolution.
CLASSIFIERS = {
    "alexnet": ("classifier.6",),
    "resnet": ("fc",),
    "vgg": ("head.fc",),
    "vit": ("head", "head_dist"),
    "swin": ("head.fc",),
}
# The hidden layer that `head_hidden_size` puts before each classifier; no file of timm's has it.
HIDDEN = {"fc": "head_hidden", "head": "head_hidden", "head_dist": "head_dist_hidden", "head.fc": "head.hidden"}
FIRST_CONV = {
    "alexnet": ("features.0",),
    "resnet": ("conv1", "conv1.0"),
    "vgg": ("features.0",),
    "vit": ("patch_embed.proj",),
    "swin": ("patch_embed.proj",),
}


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


def family(model: nn.Module) -> str:
    """Returns the name of the module in `jaxvit.models` that defines the model's class: "vit", "swin", ..."""
    for cls in type(model).__mro__:
        word = cls.__module__.rsplit(".", 1)[-1]
        if cls.__module__.startswith("jaxvit.models.") and word in CLASSIFIERS:
            return word
    raise TypeError(f"{type(model).__name__} is not a model of jaxvit; expected one from jaxvit.create_model.")


def timm_name(path: Path) -> str:
    """Spells a linen path as timm does: ("layer1_0", "conv1", "kernel") -> layer1.0.conv1.weight."""
    *modules, leaf = path
    dotted = [re.sub(r"_(?=\d+(_\d+)*$)", ".", module) for module in modules]
    return ".".join([*dotted, LEAVES.get(leaf, leaf)])


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
    family(model)  # says so where the model is none of ours
    try:
        return _cached_rules(model)
    except TypeError:  # a field that cannot be hashed, a list say
        return _rules(model)


def is_buffer(word: str, name: str) -> bool:
    """Whether a tensor of the family `word` is one of the buffers that hold no weights."""
    return any(re.search(pattern, name) for pattern in BUFFERS[word])
