"""Freezing in one vocabulary for all families, layer assignment against timm's, what is frozen as a whole."""

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxvit import optim, tree
from jaxvit.errors import UserError
from jaxvit.models.registry import create_model


def named(paths):
    return tree.unflatten({path: jnp.ones((2, 2)) for path in paths.split()})


RESNET = named(
    "conv1/kernel bn1/scale "
    + " ".join(f"layer{i}_{j}/conv1/kernel layer{i}_{j}/bn1/scale" for i in range(1, 5) for j in range(2))
    + " layer2_0/downsample_0/kernel fc/kernel fc/bias"
)
VIT = named(
    "cls_token pos_embed dist_token patch_embed/proj/kernel "
    + " ".join(f"blocks_{i}/mlp/fc1/kernel blocks_{i}/norm1/scale" for i in range(12))
    + " norm/scale head/kernel head_dist/kernel"
)


def frozen_tops(params, freeze, parts=1):
    mask = tree.named_leaves(optim.freeze_mask(params, freeze))
    return {"/".join(path.split("/")[:parts]) for path, trains in mask.items() if not trains}


def test_patterns_freeze_what_they_find():
    assert frozen_tops(VIT, r"^blocks_[01]/") == {"blocks_0", "blocks_1"}
    assert frozen_tops(VIT, ["^cls", "^pos"]) == {"cls_token", "pos_embed"}
    assert frozen_tops(VIT, []) == set()


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("head_onyl", "matches no parameter.*Did you mean 'head_only'"),
        ("block_3", "matches no parameter"),
        (".", "freezes every parameter"),
        ("last_13_blocks", "has 12 blocks"),
        ("last_0_blocks", "expected 1 to 12"),
        (["^cls", "nothing_here"], "'nothing_here' matches no parameter"),
        ("(", "not a regular expression"),
    ],
)
def test_mistakes_are_named(freeze, message):
    with pytest.raises(UserError, match=message):
        optim.freeze_mask(VIT, freeze)


def test_freezing_the_classifier_alone_is_told_from_training_it_alone():
    for params, head in ((VIT, "head"), (RESNET, "fc")):
        said = [optim.freezes_the_head_alone(params, optim.freeze_mask(params, freeze)) for freeze in
                (f"^{head}", "head_only", "none", "kernel$")]  # fmt: skip
        assert said == [True, False, False, False]
    bare = {name: leaf for name, leaf in VIT.items() if not name.startswith("head")}
    assert not optim.freezes_the_head_alone(bare, optim.freeze_mask(bare, "none"))


def test_split_and_merge_are_inverse_and_only_the_part_is_differentiated():
    mask = optim.freeze_mask(VIT, "last_2_blocks")
    trainable, frozen = optim.split_trainable(VIT, mask)
    chex.assert_trees_all_equal(optim.merge(trainable, frozen), VIT)
    assert jax.tree.structure(optim.merge(trainable, frozen)) == jax.tree.structure(VIT)
    grads = jax.grad(lambda t: sum(jnp.sum(x) for x in jax.tree.leaves(optim.merge(t, frozen))))(trainable)
    assert jax.tree.structure(grads) == jax.tree.structure(trainable)
    line = optim.describe_trainable(VIT, mask)
    assert line == "trains 7 of 31 tensors, 28 of 124 parameters (22.6%)"
    head = {"body": jnp.ones(9_996), "head": jnp.ones(4)}
    line = optim.describe_trainable(head, {"body": False, "head": True})
    assert line == "trains 1 of 2 tensors, 4 of 10,000 parameters (0.04%)"


def test_modules_without_a_parameter_that_trains_are_frozen():
    frozen = optim.frozen_modules(optim.freeze_mask(RESNET, "early"))
    assert {m for m in frozen if m.endswith("bn1")} == {f"layer{i}_{j}/bn1" for i in (1, 2) for j in (0, 1)}
    assert optim.frozen_modules(optim.freeze_mask(RESNET, "^fc/bias$")) == set()  # its kernel trains


@pytest.mark.parametrize("name", ["resnetrs50", "resnet10t"])
def test_what_replaces_the_stems_pool_belongs_to_the_stem(name):
    model = create_model(name, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=3)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    inside = {path for path in tree.named_leaves(params) if not path.startswith(("layer", "fc"))}
    layers, trains = optim.layer_ids(params), tree.named_leaves(optim.freeze_mask(params, "early_with_stem"))
    assert {layers[path] for path in inside} == {0} and not any(trains[path] for path in inside)
    assert not any(tree.named_leaves(optim.freeze_mask(params, "last_1_block"))[path] for path in inside)


# --- against timm ------------------------------------------------------------------------------------------------
