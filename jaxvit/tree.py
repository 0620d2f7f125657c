"""Trees of arrays seen by name: "blocks_0/attn/qkv/kernel" paths, regex masks, counts, rows for a table."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxvit import patterns
from jaxvit.errors import UserError, suggest

Tree = Any  # a pytree; nested dictionaries in practice


def path_str(path: tuple[Any, ...]) -> str:
    """Joins a key path of jax.tree_util to "a/b/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Tree) -> dict[str, Any]:
    """Returns {"a/b/kernel": leaf} in the tree's own order."""
    return {path_str(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_with_path(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Maps fn(path, leaf, *other_leaves) over the leaves; path is "a/b/kernel"."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: fn(path_str(path), *leaves), tree, *rest)


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Builds nested dictionaries from {"a/b/kernel": leaf}: the inverse of `named_leaves` for such trees."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def regex_mask(tree: Tree, regexes: str | Iterable[str]) -> Tree:
    """Marks with True each leaf whose path one of the regexes finds (`re.search`).

    Raises:
      UserError: a pattern is not a regex, might run for ever, or matches no leaf.
    """
    regexes = [regexes] if isinstance(regexes, str) else list(regexes)
    paths = list(named_leaves(tree))
    hits: set[str] = set()
    for pattern in regexes:
        find = patterns.compile(pattern).search
        found = {path for path in paths if find(path)}
        if not found:
            tops = sorted({path.split("/")[0] for path in paths})
            hint = suggest(pattern, tops) or f" Top names: {', '.join(tops[:12])}."
            raise UserError(f"the pattern {pattern!r} matches no parameter.{hint}")
        hits |= found
    return map_with_path(lambda path, _: path in hits, tree)


def split(tree: Tree, mask: Tree) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits nested dictionaries by a tree of booleans: (where True, where False), both pruned of empty branches.

    Pruned trees keep their paths and have no placeholders, so that `jax.grad`, optax and a checkpoint see
    just a smaller tree.
    """
    chosen, leaves = named_leaves(mask), named_leaves(tree)
    if chosen.keys() != leaves.keys():
        raise UserError("a mask must have the names of its tree, one boolean for each.")
    return (
        unflatten({path: leaf for path, leaf in leaves.items() if chosen[path]}),
        unflatten({path: leaf for path, leaf in leaves.items() if not chosen[path]}),
    )


def merge(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested dictionaries with no leaf in common: the inverse of `split`. Keys are sorted, as jax does."""
    merged: dict[str, Any] = {}
    for name in sorted({name for tree in trees for name in tree}):
        parts = [tree[name] for tree in trees if name in tree]
        if len(parts) == 1:
            merged[name] = parts[0]
        elif all(isinstance(part, Mapping) for part in parts):
            merged[name] = merge(*parts)
        else:
            raise UserError(f"cannot merge: {name!r} is in more than one tree.")
    return merged


def count(tree: Tree) -> int:
    """Returns the number of scalars in the tree; works on arrays and on `jax.ShapeDtypeStruct`s."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def num_bytes(tree: Tree) -> int:
    """Returns the size of the tree in bytes, unsharded."""
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def table_rows(tree: Tree, *, depth: int | None = None) -> list[tuple[str, str, str, int]]:
    """Rows (name, shape, dtype, scalars) of a parameter table.

    With `depth`, leaves are summed under the first `depth` parts of their name, and shape says how many there are.
    """
    leaves = named_leaves(tree)
    if depth is None:
        return [
            (path, "x".join(map(str, leaf.shape)) or "scalar", str(leaf.dtype), count(leaf))
            for path, leaf in leaves.items()
        ]
    groups: dict[str, list[Any]] = {}
    for path, leaf in leaves.items():
        groups.setdefault("/".join(path.split("/")[:depth]), []).append(leaf)
    return [
        (name, f"{len(group)} tensors", "/".join(sorted({str(leaf.dtype) for leaf in group})), count(group))
        for name, group in groups.items()
    ]
