"""The order of depth in each family: stem, blocks, stages, head, read off the parameters' names."""

import re
from collections.abc import Iterable
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
    tail: str  # after the last block, before the head
    head: str
    stages: bool = False  # the first number of a block is its stage; else quarters of the depth


FAMILIES: dict[str, Family] = {
    "resnet": Family(
        mark=r"layer1_0/",
        stem=r"conv1|bn1",
        blocks=((r"layer(\d+)_(\d+)/", ()),),
        tail=r"$",
        head=r"(fc|head)(_\w+)?/",
        stages=True,
    ),
    "swin": Family(
        mark=r"layers_0/",
        stem=r"patch_embed|absolute_pos_embed|pos_embed",
        blocks=((r"layers_(\d+)/downsample", (0,)), (r"layers_(\d+)/blocks_(\d+)", ())),
        tail=r"norm",
        head=r"head(_\w+)?/",
        stages=True,
    ),
    "vit": Family(
        mark=r"blocks_0/",
        stem=r"cls_token|dist_token|reg_token|pos_embed|patch_embed|norm_pre",
        blocks=((r"blocks_(\d+)/", ()),),
        tail=r"norm|fc_norm|attn_pool",
        head=r"head(_\w+)?/",
    ),
    "alexnet": Family(
        mark=r"classifier_\d+/",
        stem=r"features_0/",
        blocks=((r"features_(\d+)/", ()),),
        tail=r"classifier_[14]/",
        head=r"(classifier_6|classifier_\w+_|head(_\w+)?)/",
    ),
    "vgg": Family(
        mark=r"features_0/",
        stem=r"features_0/",
        blocks=((r"features_(\d+)/", ()),),
        tail=r"pre_logits",
        head=r"head(_\w+)?/",
    ),
}

# timm's layer-wise decay counts these with the head, whatever their place in the network
WITH_HEAD = {"vit": r"dist_token|fc_norm|attn_pool", "vgg": r"pre_logits", "alexnet": r"classifier"}
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


def _block_places(paths: Iterable[str], family: str) -> list[tuple[int, ...]]:
    return sorted({place(path, family) for path in paths} - {(STEM,), (AFTER,)})


def num_blocks(paths: Iterable[str], family: str) -> int:
    """Number of blocks of the model whose parameters are `paths`."""
    return len(_block_places(paths, family))


def block_of(path: str, family: str, paths: Iterable[str]) -> int:
    """Index of the parameter's block: -1 in the stem, the number of blocks after the last."""
    here, places = place(path, family), _block_places(paths, family)
    if here == (STEM,):
        return -1
    return len(places) if here == (AFTER,) else places.index(here)


def stage_of(path: str, family: str, paths: Iterable[str]) -> int:
    """Stage of the parameter: 0 the stem, 1 to 4 the blocks, 5 what follows.

    Families without stages have their blocks divided into four parts as equal as can be.
    """
    here, places = place(path, family), _block_places(paths, family)
    if here in ((STEM,), (AFTER,)):
        return 0 if here == (STEM,) else 5
    if _rules(family).stages:
        firsts = sorted({first for first, *_ in places})
        return firsts.index(here[0]) + 1
    return places.index(here) * 4 // len(places) + 1


def layer_ids(params: Any, *, family: str | None = None) -> dict[str, int]:
    """The layer that timm gives each parameter for layer-wise rates: 0 the stem, then the blocks, the head last.

    The last norm counts with the last block; what lies between it and the head counts with the head.
    """
    paths = list(tree.named_leaves(params))
    family = family or family_of(params)
    places = _block_places(paths, family)
    rules = _rules(family)
    layers: dict[str, int] = {}
    for path in paths:
        here = place(path, family)
        if re.match(WITH_HEAD.get(family, "$"), path) or is_head(path, family):
            layers[path] = len(places) + 1
        elif here == (STEM,):
            layers[path] = 0
        elif here == (AFTER,):
            layers[path] = len(places) if re.match(rules.tail, path) else len(places) + 1
        else:
            layers[path] = places.index(here) + 1
    return layers


def _rules(family: str) -> Family:
    if family not in FAMILIES:
        raise UserError(f"no family {family!r}; expected {', '.join(FAMILIES)}.{suggest(family, FAMILIES)}")
    return FAMILIES[family]
