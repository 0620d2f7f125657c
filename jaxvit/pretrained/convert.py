"""timm's state dict <-> variables: every tensor used or named, every variable filled, or one error with all of it."""

import logging
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import core, traverse_util

from jaxvit.errors import UserError, shown
from jaxvit.models.family import Family
from jaxvit.models.registry import family_of
from jaxvit.pretrained import rules, wrappers

log = logging.getLogger("jaxvit")

MAX_LINES = 20
FLOATS = ("float16", "bfloat16", "float32", "float64")


def convert(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Turns a state dict with timm's names into the model's variables, float32.

    Older layouts (`jaxvit.pretrained.foreign`) are recognised by their keys, and what training scripts put around
    weights is taken away, which is logged. NaN and infinite weights are counted in a warning. Raises UserError, before
    anything is built, with a table of every tensor that is missing, unexpected, misshapen or not made of floats.
    """
    family = family_of(model)
    if not isinstance(state_dict, Mapping):
        kind = type(state_dict).__name__
        raise UserError(f"state_dict is {kind}; expected arrays by timm's names, as module.state_dict() returns them.")
    tensors, notes = wrappers.unwrap(state_dict)
    tensors, more = wrappers.to_timm(family, tensors, {rule.name: rule.shape for rule in rules.rules_of(model)})
    tensors, left = leave_out(family, {rule.name for rule in rules.rules_of(model)}, tensors)
    for note in (*notes, *more, *left):
        log.info("%s: %s", type(model).__name__, note)
    return assemble(model, tensors)


def leave_out(
    family: Family, known: Collection[str], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The tensors without buffers, and notes that name what no file of the family usually has, and biases of zeros."""
    rest = {name: array for name, array in tensors.items() if not rules.is_buffer(family, name)}
    left = [
        name
        for name, array in rest.items()
        if name not in known and (array.dtype.kind in "biu" or re.search(rules.EMPTY, name))
    ]
    zeros = [
        name
        for name, array in rest.items()
        if family.zeros and name not in known and re.search(family.zeros, name) and not array.any()
    ]
    for name in (*left, *zeros):
        rest.pop(name, None)
    notes = [f"not loaded, as they hold no weights: {wrappers.some(left)}"] if left else []
    notes += [f"not loaded, as they are zero: {wrappers.some(zeros)}"] if zeros else []
    return rest, notes


def assemble(model: nn.Module, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`convert` for tensors that have timm's names already."""
    family = family_of(model)
    tensors = {name: array for name, array in tensors.items() if not rules.is_buffer(family, name)}
    todo = rules.rules_of(model)
    tensors |= _of_one_pixel(todo, tensors)
    _check(todo, tensors, f"the weights do not fit {type(model).__name__}")
    _warn_non_finite(tensors)
    leaves = {rule.path: _leaf(rule.to_linen(tensors[rule.name])) for rule in todo}
    return traverse_util.unflatten_dict(leaves)


def _of_one_pixel(todo: Iterable[rules.Rule], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Linear layers [d, c] where the model has a 1x1 convolution [d, c, 1, 1], and the reverse: the same numbers."""
    pairs = [(rule, tensors[rule.name]) for rule in todo if rule.name in tensors]
    return {
        rule.name: array.reshape(rule.shape)
        for rule, array in pairs
        if {array.ndim, len(rule.shape)} == {2, 4} and (*array.shape, 1, 1)[:4] == (*rule.shape, 1, 1)[:4]
    }


def export(model: nn.Module, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `convert`: timm's names, shapes and axes; BatchNorm's unused counter as int64 0.

    Raises UserError with a table of every variable that is missing, unexpected or misshapen.
    """
    todo = rules.rules_of(model)
    if not isinstance(variables, Mapping):
        raise UserError(f"variables are {shown(variables)}; expected those of model.init or jaxvit.load_pretrained.")
    leaves = traverse_util.flatten_dict(core.unfreeze(dict(variables)))
    known = {rule.path: rule for rule in todo}
    found = {
        known[path].name if path in known else "/".join(path): (
            known[path].to_timm(np.asarray(leaf)) if path in known and _turns(known[path], leaf) else np.asarray(leaf)
        )
        for path, leaf in leaves.items()
    }
    _check(todo, found, f"the variables are not those of this {type(model).__name__}")
    state_dict = {}
    for rule in todo:
        state_dict[rule.name] = np.ascontiguousarray(found[rule.name]).reshape(rule.shape)
        if rule.path[-1] == "var":
            state_dict[rule.name.removesuffix("running_var") + "num_batches_tracked"] = np.zeros((), np.int64)
    return state_dict


def _turns(rule: rules.Rule, leaf: Any) -> bool:
    return rule.axes is None or np.ndim(leaf) == len(rule.axes)


def _leaf(tensor: np.ndarray) -> jnp.ndarray:
    # A copy: the source may be a mapped file, which may change or go.
    return jnp.asarray(np.array(tensor, dtype=np.float32, order="C"))


def _check(todo: Iterable[rules.Rule], tensors: Mapping[str, np.ndarray], headline: str) -> None:
    problems = list_problems(todo, tensors)
    if problems:
        raise UserError(table(headline, problems))


def list_problems(todo: Iterable[rules.Rule], tensors: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Returns (kind, line) for every tensor in which the rules and the tensors disagree."""
    expected = {rule.name: rule.shape for rule in todo}
    missing = [("missing", f"{name} {_show(shape)}") for name, shape in expected.items() if name not in tensors]
    unexpected = [
        ("unexpected", f"{name} {_show(np.shape(array))}") for name, array in tensors.items() if name not in expected
    ]
    shared = {name: tensors[name] for name in expected if name in tensors}
    misshapen = [
        ("misshapen", f"{name} is {_show(array.shape)}, expected {_show(expected[name])}")
        for name, array in shared.items()
        if tuple(array.shape) != expected[name]
    ]
    typed = [
        ("wrong type", f"{name} is {array.dtype}, expected a float")
        for name, array in shared.items()
        if array.dtype.name not in FLOATS
    ]
    return missing + unexpected + misshapen + typed


def table(headline: str, problems: list[tuple[str, str]]) -> str:
    """The headline with a count of each kind, then at most MAX_LINES lines and how many more there are."""
    kinds = list(dict.fromkeys(kind for kind, _ in problems))
    counts = ", ".join(f"{sum(k == kind for k, _ in problems)} {kind}" for kind in kinds)
    lines = [f"{headline}: {counts}."]
    lines += [f"  {kind:<10} {line}" for kind, line in _share(problems, kinds)]
    if len(problems) > MAX_LINES:
        lines.append(f"  ... and {len(problems) - MAX_LINES} more")
    return "\n".join(lines)


def _share(problems: list[tuple[str, str]], kinds: list[str]) -> list[tuple[str, str]]:
    """At most MAX_LINES problems in their order, with some of every kind: a strange name explains a missing one."""
    share = MAX_LINES // len(kinds)
    first = [p for kind in kinds for p in [q for q in problems if q[0] == kind][:share]]
    rest = [p for p in problems if p not in first][: MAX_LINES - len(first)]
    return [p for p in problems if p in first or p in rest]


def _show(shape: Iterable[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _warn_non_finite(tensors: Mapping[str, np.ndarray]) -> None:
    bad = {name: int(n) for name, array in tensors.items() if (n := np.size(array) - np.sum(_finite(array)))}
    if bad:
        total, first = sum(bad.values()), next(iter(bad))
        message = f"{total} weights in {len(bad)} tensors are NaN or infinite (first: {first}); loaded as they are."
        warnings.warn(message, stacklevel=3)


def _finite(array: np.ndarray) -> np.ndarray:
    return np.isfinite(array if array.dtype.name != "bfloat16" else array.astype(np.float32))
