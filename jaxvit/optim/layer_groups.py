"""The order of depth of a model's parameters: stem, blocks, stages, head, as the family's record tells their names."""

import bisect
import re
from typing import Any

from jaxvit import tree
from jaxvit.errors import UserError, suggest
from jaxvit.models.family import AFTER, STEM, Family, place
from jaxvit.models.registry import FAMILIES, recognise


def family_of(params: Any) -> str:
    """Recognises the family of a model by the names of its parameters."""
    return record_of(params, None).name


def record_of(params: Any, family: str | None) -> Family:
    """The record of the named family, or of the one that the names of the parameters show."""
    if family is None:
        record = recognise(tree.named_leaves(params))
        if record is None:
            raise UserError(
                "the model does not belong to a known family, so its stages are unknown; freeze it by a regex instead."
            )
        return record
    if family not in FAMILIES:
        raise UserError(f"no family {family!r}; expected {', '.join(FAMILIES)}.{suggest(family, FAMILIES)}")
    return FAMILIES[family]


def _with_blocks(params: Any, family: str | None) -> Family:
    """As `record_of`; raises UserError where the record says nothing of blocks, as that of a user's model may."""
    record = record_of(params, family)
    if not record.blocks:
        raise UserError(
            f"nothing is known about the blocks of {record.model.__name__}; register_model(..., stem=..., blocks=...) "
            "gives their order, for optim.layer_decay and words of optim.freeze."
        )
    return record


def block_ids(params: Any, *, family: str | None = None) -> dict[str, int]:
    """Index of every parameter's block: -1 in the stem, the number of blocks for what follows the last.

    A norm that follows its convolution in a list (VGG) belongs to the convolution's block.
    """
    where = _places(params, _with_blocks(params, family))
    kernels = {here for path, here in where.items() if path.endswith("/kernel")}
    blocks = sorted((set(where.values()) & kernels) - {STEM, AFTER})
    return {
        path: -1 if here == STEM else len(blocks) if here == AFTER else bisect.bisect_right(blocks, here) - 1
        for path, here in where.items()
    }


def num_blocks(params: Any, *, family: str | None = None) -> int:
    """Number of blocks: residual, transformer, or convolutions after the first."""
    return len(set(_inside(params, _with_blocks(params, family)).values()))


def stage_ids(params: Any, *, family: str | None = None) -> dict[str, int]:
    """Stage of every parameter: 0 the stem, 1 to 4 the blocks, 5 what follows.

    Families without stages have their blocks divided into four parts as equal as can be.
    """
    record = _with_blocks(params, family)
    where, inside = _places(params, record), _inside(params, record)
    total, firsts = len(set(inside.values())), sorted({where[path][0] for path in inside})
    stages = {}
    for path, block in block_ids(params, family=record.name).items():
        if path not in inside:
            stages[path] = 0 if block == -1 else 5
        elif record.stages:
            stages[path] = firsts.index(where[path][0]) + 1
        else:
            stages[path] = block * 4 // total + 1
    return stages


def layer_ids(params: Any, *, family: str | None = None) -> dict[str, int]:
    """The layer that timm gives each parameter for layer-wise rates: 0 the stem, then the blocks, the head last.

    Each norm of a VGG is a layer. The last norm of the others counts with the last block; what lies between it and
    the head counts with the head.
    """
    record = _with_blocks(params, family)
    where = _places(params, record)
    order = sorted(set(where.values()) - {STEM, AFTER})
    layers = {STEM: 0, AFTER: len(order) + 1} | {here: i for i, here in enumerate(order, 1)}
    last = re.compile(record.last_norm) if record.last_norm else None
    return {
        path: len(order) if here == AFTER and last and last.match(path) else layers[here]
        for path, here in where.items()
    }


def _places(params: Any, record: Family) -> dict[str, tuple[int, ...]]:
    return {path: place(record, path) for path in tree.named_leaves(params)}


def _inside(params: Any, record: Family) -> dict[str, int]:
    """The blocks of the parameters that belong to one."""
    where = _places(params, record)
    return {
        path: block
        for path, block in block_ids(params, family=record.name).items()
        if block >= 0 and where[path] != AFTER
    }
