"""What is known of a family of models apart from its equations: one record, written next to the model.

`optim` reads in it where a parameter stands, `pretrained` what the files call it, `explain` which layers hold maps and
where stages end, `runtime.sharding` how its kernels are cut, `studies` what is small. `registry.FAMILIES` is the list
of the records.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import numpy as np

from jaxvit.models.hf_model import HfModel
from jaxvit.models.layers import to_pair
from jaxvit.models.layouts import Layout
from jaxvit.models.names import module_path

Fields = Mapping[str, Any]
Tensors = Mapping[str, np.ndarray]
ShardingRules = tuple[tuple[str, tuple[str | None, ...]], ...]

# Two matmuls in a row are cut along the dimension between them (Shoeybi et al. 2019, Megatron-LM).
MEGATRON: ShardingRules = (
    (r"\b(qkv|q|kv|fc1)/kernel$", ("fsdp", "tensor")),
    (r"\b(qkv|q|kv|fc1)/bias$", ("tensor",)),
    (r"\b(attn/proj|proj|fc2)/kernel$", ("tensor", "fsdp")),
)


DECAYS = r"(.*/)?kernel$"


@dataclass(frozen=True)
class Tap:
    """A feature map as timm's `forward_intermediates` counts them: the end of a stage, or of a block."""

    module: str  # timm's name of what puts it out
    channels: int
    stride: int  # pixels of the image between two cells
    path: str  # of the module here whose output it is
    then: Callable[[Any], Any] | None = None  # an activation that follows and has no name here


@dataclass(frozen=True, eq=False, kw_only=True)
class Family:
    """A model class, its named variants, and what the rest of the package has to know of its names.

    Paths are those of parameters, as "blocks_0/attn/qkv/kernel"; patterns on them are for `re.match`, at the beginning
    of the path. Names of tensors are timm's, as "blocks.0.attn.qkv.weight"; patterns on them are for `re.search`.

    Every model has the fields num_classes, image_size, in_channels, dtype and remat. One whose attention is of "tokens"
    also has patch_size and num_prefix_tokens, and, with a position table, grid_size and no_embed_class (the table has
    no rows for the prefix). One with "windows" has patch_size, window_size and depths, and may have always_partition
    and crop_to_patches. Both sow `attn_weights`.
    """

    # The model and its fields
    name: str
    model: type[nn.Module]
    variants: Mapping[str, Fields]  # timm's name -> fields that differ from the class's defaults
    timm_modules: tuple[str, ...] = ()  # of timm.models, which define these names; () where timm has no such model
    unsupported: Mapping[str, str] = field(default_factory=dict)  # timm's name -> what it would need
    choices: Mapping[str, Collection[Any]] = field(default_factory=dict)  # field -> names that it accepts
    check: Callable[[Any], None] | None = None  # raises UserError on fields that do not fit each other
    depth_field: str | None = None  # the field that counts the blocks: a number, or one for each stage
    small: Callable[[Fields], dict[str, Any]]  # fields of a large model -> of one that trains within seconds on a CPU

    # Paths: where a parameter stands in the order of depth, and what is done with it
    stem: str
    # Pattern, and what follows its numbers in the order: ("layers_(\d+)/downsample", (0,)) comes before blocks_1.
    blocks: tuple[tuple[str, tuple[int, ...]], ...]
    stages: bool = False  # the first number of a block is its stage; else stages are quarters of the depth
    last_norm: str | None = None  # the norm after the blocks, which timm counts with the last block
    decays: str = DECAYS  # what weight decay applies to, if it is of rank 2 or more
    sharding: ShardingRules = ()  # pattern for `re.search` -> mesh axis of each dimension; see `runtime.sharding`

    # Tensors: weight files in timm's names
    mark: str  # a tensor that only this family has
    first_conv: tuple[str, ...]  # the first one that is there reads the image's channels
    classifiers: Mapping[str, str | None]  # -> the hidden layer that `head_hidden_size` puts before each; not in timm
    buffers: tuple[str, ...] = ()  # what files carry besides weights: dropped on reading
    layouts: tuple[Layout, ...] = ()  # of other libraries and releases, tried in this order
    fits: Callable[[Tensors, Fields], bool] = lambda tensors, fields: True  # whether a variant's options show
    position_table: str | None = None  # [1, prefix + patches, d], resampled for other grids
    window_tables: str | None = None  # Swin's tables [(2wh-1)*(2ww-1), heads] with the number of their stage
    cifar_stem: tuple[str, ...] = ()  # modules without weights in any file where `stem="cifar"`
    zeros: str | None = None  # biases that a model may lack where a file has them as zeros
    lost_hidden: str | None = None  # a hidden layer of old files that neither timm nor the model has
    optional: tuple[tuple[str, str], ...] = ()  # variants whose files have a module that another pooling leaves out
    resampling: tuple[tuple[str, str], ...] = ()  # variants whose tables timm resamples "bilinear", or by "corners"
    branch_ends: str | None = None  # scales at the end of a residual branch: small in random weights
    transformers: Mapping[str, HfModel] = field(default_factory=dict)  # by `model_type` of Transformers' config.json
    transformers_fields: Mapping[str, str] = field(default_factory=dict)  # word of that config -> field
    transformers_only: Fields = field(default_factory=dict)  # word -> the one value that gives timm's network
    timm_args: tuple[str, ...] = ()  # fields that timm's entry points take as arguments, with values JSON can hold
    takes_image_size: bool = False  # timm's `img_size`: patches or windows must fit it
    fixed_input_size: bool = False  # what timm's configuration calls so

    # Maps and attention
    default_layer: str | Callable[[Any], str] = "features"  # whose Grad-CAM points at the object
    taps: Callable[[Any], tuple[Tap, ...]] | None = None  # model -> its feature maps, first to last
    not_maps: frozenset[str] = frozenset()  # modules whose outputs of rank 4 are not rows and columns
    attention: str | None = None  # "tokens" of the whole image, or "windows" of a map
    # model, whether it trains -> which implementation of attention it runs on this platform
    attention_runs: Callable[[Any, bool], str] | None = None
    tokens_read: Callable[[Any], slice] | None = None  # of a model of tokens: those that its classifier reads


STEM, AFTER = (-1,), (10**6,)


def place(family: Family, path: str) -> tuple[int, ...]:
    """The place of a parameter in the order of depth: STEM, the numbers of its block, or AFTER."""
    if re.match(family.stem, path):
        return STEM
    for pattern, extra in family.blocks:
        if found := re.match(pattern, path):
            return (*map(int, found.groups()), *extra)
    return AFTER


def is_head(family: Family, path: str) -> bool:
    """Whether a parameter belongs to the classifier."""
    modules = [name for pair in family.classifiers.items() for name in pair if name]
    return path.startswith(tuple(f"{module_path(name)}/" for name in modules))


def num_blocks(family: Family, model: Any) -> int:
    """How many blocks a model has, by the field that counts them."""
    blocks = getattr(model, str(family.depth_field))
    return blocks if isinstance(blocks, int) else sum(blocks)


def patches_fit(kernel: Any, fields: Fields) -> bool:
    """Whether a patch projection [d, c, ph, pw] has a variant's width and patches; if there is none, it may."""
    if kernel is None or kernel.ndim != 4:
        return True
    return (kernel.shape[0], kernel.shape[2:]) == (fields["embed_dim"], to_pair(fields["patch_size"]))
