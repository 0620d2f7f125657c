"""Named trees: paths, masks, splitting and merging, counts, table rows."""

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxvit import tree
from jaxvit.errors import UserError

PARAMS = {
    "blocks_0": {"attn": {"qkv": {"kernel": jnp.ones((4, 12)), "bias": jnp.ones(12)}}},
    "cls_token": jnp.ones((1, 1, 4)),
    "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
}


def test_paths_and_unflatten_are_inverse():
    named = tree.named_leaves(PARAMS)
    assert set(named) == {
        "blocks_0/attn/qkv/kernel",
        "blocks_0/attn/qkv/bias",
        "cls_token",
        "head/kernel",
        "head/bias",
    }
    chex.assert_trees_all_equal(tree.unflatten(named), PARAMS)
    ranks = tree.map_with_path(lambda path, x, y: (path, x.ndim + y.ndim), PARAMS, PARAMS)
    assert ranks["blocks_0"]["attn"]["qkv"]["kernel"] == ("blocks_0/attn/qkv/kernel", 4)


def test_regex_mask_marks_what_a_pattern_finds():
    mask = tree.named_leaves(tree.regex_mask(PARAMS, ["^head/", "qkv/bias$"]))
    assert [path for path, on in mask.items() if on] == ["blocks_0/attn/qkv/bias", "head/bias", "head/kernel"]


@pytest.mark.parametrize(
    ("pattern", "message"), [("haed", "matches no parameter. Did you mean 'head'"), ("(", "not a regular")]
)
def test_regex_mask_refuses(pattern, message):
    with pytest.raises(UserError, match=message):
        tree.regex_mask(PARAMS, pattern)


def test_split_prunes_and_merge_restores():
    chosen, rest = tree.split(PARAMS, tree.regex_mask(PARAMS, "^head/"))
    assert set(chosen) == {"head"} and set(rest) == {"blocks_0", "cls_token"}
    merged = tree.merge(chosen, rest)
    chex.assert_trees_all_equal(merged, PARAMS)
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)
    with pytest.raises(UserError, match="more than one tree"):
        tree.merge(PARAMS, chosen)
    with pytest.raises(UserError, match="mask must have the names"):
        tree.split(PARAMS, {"head": True})


def test_counts_and_rows_need_shapes_only():
    shapes = jax.eval_shape(lambda: PARAMS)
    assert tree.count(shapes) == 48 + 12 + 4 + 8 + 2
    assert tree.num_bytes(shapes) == 4 * 74
    assert ("blocks_0/attn/qkv/kernel", "4x12", "float32", 48) in tree.table_rows(shapes)
    assert ("head", "2 tensors", "float32", 10) in tree.table_rows(shapes, depth=1)
