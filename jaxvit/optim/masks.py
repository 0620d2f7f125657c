"""Which parameters decay, and which train: rules on names, shared by all families."""

import re
from collections.abc import Sequence
from typing import Any

from jaxvit import tree
from jaxvit.errors import UserError, suggest
from jaxvit.models.family import DECAYS, is_head
from jaxvit.models.registry import recognise
from jaxvit.optim.layer_groups import block_ids, num_blocks, record_of, stage_ids

FREEZE_WORDS = ("none", "early", "early_with_stem", "middle", "head_only")


def decay_mask(params: Any, *, family: str | None = None) -> Any:
    """What weight decay applies to, a tree of booleans: kernels, not norms, biases, tokens, position or bias tables.

    Works on any part of the parameters where `family`, a name of registry.FAMILIES, is given.
    """
    record = record_of(params, family) if family else recognise(tree.named_leaves(params))
    pattern = re.compile(record.decays if record else DECAYS)
    return tree.map_with_path(lambda path, leaf: leaf.ndim >= 2 and pattern.match(path) is not None, params)


def freeze_mask(params: Any, freeze: str | Sequence[str] | None, *, family: str | None = None) -> Any:
    """Says what trains: a tree of booleans, True where the parameter is trainable.

    Args:
      params: the parameters, or their shapes.
      freeze: `none`; `early` (stages 1 and 2 of 4 frozen, the stem trains); `early_with_stem`; `middle` (stages 2
        and 3); `head_only` (only the classifier trains); `last_2_blocks` (only the last two blocks and what
        follows them train); else a regex, or several, on names such as "blocks_3/attn/qkv/kernel": what matches
        is frozen.
      family: a name of registry.FAMILIES; None = recognised by the names of the parameters.

    Raises:
      UserError: an unknown name, a pattern that matches nothing, or nothing left to train.
    """
    if freeze is None or freeze == "none" or (not isinstance(freeze, str) and not list(freeze)):
        return tree.map_with_path(lambda path, leaf: True, params)
    if isinstance(freeze, str) and (freeze in FREEZE_WORDS or re.fullmatch(r"last_\d{1,6}_blocks?", freeze)):
        frozen = _frozen_by_word(params, freeze, record_of(params, family).name)
    else:
        frozen = _frozen_by_pattern(params, freeze)
    trainable = tree.map_with_path(lambda path, leaf: not frozen[path], params)
    if all(frozen.values()):
        raise UserError(f"optim.freeze={freeze!r} freezes every parameter; nothing is left to train.")
    if not any(frozen.values()):
        raise UserError(f"optim.freeze={freeze!r} freezes nothing; use 'none' to train everything.")
    return trainable


def _frozen_by_word(params: Any, word: str, family: str) -> dict[str, bool]:
    if word == "head_only":
        record = record_of(params, family)
        if not record.classifiers:
            raise UserError(
                f"optim.freeze='head_only': which layer of {record.model.__name__} is the classifier is not known; "
                'register_model(..., classifiers={"head": None}) names it.'
            )
        return {path: not is_head(record, path) for path in tree.named_leaves(params)}
    if word.startswith("last_"):
        kept, total = int(word.split("_")[1]), num_blocks(params, family=family)
        if not 1 <= kept <= total:
            raise UserError(
                f"optim.freeze={word!r}: this model has {total} block{'s' * (total > 1)}; expected 1 to {total}."
            )
        return {path: block < total - kept for path, block in block_ids(params, family=family).items()}
    stages = {"early": {1, 2}, "early_with_stem": {0, 1, 2}, "middle": {2, 3}}[word]
    return {path: stage in stages for path, stage in stage_ids(params, family=family).items()}


def _frozen_by_pattern(params: Any, freeze: str | Sequence[str]) -> dict[str, bool]:
    try:
        return tree.named_leaves(tree.regex_mask(params, freeze))
    except UserError as error:
        words = suggest(freeze, [*FREEZE_WORDS, "last_2_blocks"]) if isinstance(freeze, str) else ""
        raise UserError(f"optim.freeze: {error}{words}") from None


def freezes_the_head_alone(params: Any, trainable: Any, *, family: str | None = None) -> bool:
    """Whether the classifier and nothing else is frozen: the opposite of `head_only`, and seldom meant."""
    record = record_of(params, family) if family else recognise(tree.named_leaves(params))
    trains = tree.named_leaves(trainable)
    if record is None or all(trains.values()):
        return False
    return all(on != is_head(record, path) for path, on in trains.items())


def split_trainable(params: Any, mask: Any) -> tuple[Any, Any]:
    """Splits parameters into (trainable, frozen), each with its own part of the names and nothing else."""
    return tree.split(params, mask)


def merge(trainable: Any, frozen: Any) -> Any:
    """Joins what `split_trainable` took apart."""
    return tree.merge(trainable, frozen)


def frozen_modules(trainable: Any) -> set[str]:
    """Paths of the modules whose own parameters are all frozen."""
    trains: dict[str, bool] = {}
    for path, on in tree.named_leaves(trainable).items():
        module = path.rpartition("/")[0]
        trains[module] = trains.get(module, False) or on
    return {module for module, on in trains.items() if not on}


def describe_trainable(params: Any, mask: Any) -> str:
    """One line for the summary: tensors, scalars and share of what trains."""
    trains = [leaf for leaf, on in zip(*map(_leaves, (params, mask)), strict=True) if on]
    part, whole = tree.count(trains), tree.count(params)
    tensors, share = len(_leaves(params)), 100 * part / whole
    share = f"{share:.1f}%" if share >= 0.1 else f"{share:.2g}%"
    return f"trains {len(trains)} of {tensors} tensors, {part:,} of {whole:,} parameters ({share})"


def _leaves(some_tree: Any) -> list[Any]:
    return list(tree.named_leaves(some_tree).values())
