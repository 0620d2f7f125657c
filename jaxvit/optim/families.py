"""The order of depth in each family: stem, blocks, stages, head, read off the parameters' names."""

import bisect
import re
from dataclasses import dataclass
from typing import Any

from jaxvit import tree
from jaxvit.errors import UserError, suggest


@dataclass(frozen=True)
class Family:
    """Regexes (`re.match` on paths) that place a parameter.

    `blocks` lists (pattern, extra): the pattern's numbers followed by extra are the place in the order.
    """

    mark: str  # a name that only this family has
    stem: str
    blocks: tuple[tuple[str, tuple[int, ...]], ...]
    head: str
    stages: bool = False  # the first number of a block is its stage; else quarters of the depth


FAMILIES: dict[str, Family] = {
    "resnet": Family(
        mark=r"layer1_0/",
        stem=r"conv1|bn1|maxpool",  # resnetrs halves by a convolution named maxpool_0
        blocks=((r"layer(\d+)_(\d+)/", ()),),
        head=r"(fc|head)(_\w+)?/",
        stages=True,
    ),
    "swin": Family(
        mark=r"layers_0/",
        stem=r"patch_embed|absolute_pos_embed|pos_embed",
        blocks=((r"layers_(\d+)/downsample", (0,)), (r"layers_(\d+)/blocks_(\d+)", ())),
        head=r"head(_\w+)?/",
        stages=True,
    ),
    "vit": Family(
        mark=r"blocks_0/",
        stem=r"cls_token|dist_token|reg_token|pos_embed|patch_embed|norm_pre",
        blocks=((r"blocks_(\d+)/", ()),),
        head=r"head(_\w+)?/",
    ),
    "alexnet": Family(
        mark=r"classifier_\d+/",
        stem=r"features_0/",
        blocks=((r"features_(\d+)/", ()),),
        head=r"(classifier_6|head(_\w+)?)/",
    ),
    "vgg": Family(
        mark=r"features_0/",
        stem=r"features_0/",
        blocks=((r"features_(\d+)/", ()),),
        head=r"head(_\w+)?/",
    ),
}

STEM, AFTER = -1, 10**6


def family_of(params: Any) -> str:
    """Recognises the family of a model by the names of its parameters."""
    paths = list(tree.named_leaves(params))
    for name, family in FAMILIES.items():
        if any(re.match(family.mark, path) for path in paths):
            return name
    raise UserError("the model is of no known family, so its stages are unknown; freeze by a regex instead.")


def place(path: str, family: str) -> tuple[int, ...]:
    """The place of a parameter in the order of depth: (STEM,), the numbers of its block, or (AFTER,)."""
    rules = _rules(family)
    if re.match(rules.stem, path):
        return (STEM,)
    for pattern, extra in rules.blocks:
        if found := re.match(pattern, path):
            return (*map(int, found.groups()), *extra)
    return (AFTER,)


def is_head(path: str, family: str) -> bool:
    """Whether the parameter belongs to the classifier."""
    return re.match(_rules(family).head, path) is not None


def block_ids(params: Any, *, family: str | None = None) -> dict[str, int]:
    """Index of every parameter's block: -1 in the stem, the number of blocks for what follows the last.

    A norm that stands in a list beside its convolution (VGG) belongs to the convolution's block.
    """
    paths = list(tree.named_leaves(params))
    family = family or family_of(params)
    where = {path: place(path, family) for path in paths}
    kernels = {where[path] for path in paths if path.endswith("/kernel")}
    blocks = sorted((set(where.values()) & kernels) - {(STEM,), (AFTER,)})
    return {path: -1 if here == (STEM,) else bisect.bisect_right(blocks, here) - 1 for path, here in where.items()} | {
        path: len(blocks) for path, here in where.items() if here == (AFTER,)
    }


def num_blocks(params: Any, *, family: str | None = None) -> int:
    """Number of blocks: residual, transformer, or convolutions after the first."""
    return len({block for path, block in _blocks_only(params, family).items()})


def stage_ids(params: Any, *, family: str | None = None) -> dict[str, int]:
    """Stage of every parameter: 0 the stem, 1 to 4 the blocks, 5 what follows.

    Families without stages have their blocks divided into four parts as equal as can be.
    """
    family = family or family_of(params)
    inside, total = _blocks_only(params, family), num_blocks(params, family=family)
    firsts = sorted({place(path, family)[0] for path in inside})
    stages = {}
    for path, block in block_ids(params, family=family).items():
        if path not in inside:
            stages[path] = 0 if block == -1 else 5
        elif _rules(family).stages:
            stages[path] = firsts.index(place(path, family)[0]) + 1
        else:
            stages[path] = block * 4 // total + 1
    return stages


def layer_ids(params: Any, *, family: str | None = None) -> dict[str, int]:
    """The layer that timm gives each parameter for layer-wise rates: 0 the stem, then the blocks, the head last.

    Each norm of a VGG is a layer. The last norm of the others counts with the last block; what lies between it and
    the head counts with the head.
    """
    family = family or family_of(params)
    where = {path: place(path, family) for path in tree.named_leaves(params)}
    order = sorted(set(where.values()) - {(STEM,), (AFTER,)})
    layers = {(STEM,): 0, (AFTER,): len(order) + 1} | {here: i for i, here in enumerate(order, 1)}
    return {
        path: len(order) if here == (AFTER,) and re.match(r"norm", path) else layers[here]
        for path, here in where.items()
    }


def _blocks_only(params: Any, family: str | None) -> dict[str, int]:
    family = family or family_of(params)
    return {
        path: block
        for path, block in block_ids(params, family=family).items()
        if block >= 0 and place(path, family) != (AFTER,)
    }


def _rules(family: str) -> Family:
    if family not in FAMILIES:
        raise UserError(f"no family {family!r}; expected {', '.join(FAMILIES)}.{suggest(family, FAMILIES)}")
    return FAMILIES[family]
