"""Freezing in one vocabulary for all families, layer assignment against timm's, what is frozen as a whole."""

import contextlib
import functools

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
SWIN = named(
    "patch_embed/proj/kernel patch_embed/norm/scale layers_0/blocks_0/attn/relative_position_bias_table "
    + " ".join(f"layers_{i}/blocks_{j}/mlp/fc1/kernel" for i in range(4) for j in range(2))
    + " "
    + " ".join(f"layers_{i}/downsample/reduction/kernel" for i in range(1, 4))
    + " norm/scale head/fc/kernel"
)
VGG = named(  # with norms: conv 0, 4, 8, 11, 15
    " ".join(f"features_{i}/kernel features_{i + 1}/scale" for i in (0, 4, 8, 11, 15))
    + " pre_logits/fc1/kernel head/fc/kernel"
)
ALEXNET = named(
    " ".join(f"features_{i}/kernel" for i in (0, 3, 6, 8, 10))
    + " classifier_1/kernel classifier_4/kernel classifier_6/kernel"
)


def frozen_tops(params, freeze, parts=1):
    mask = tree.named_leaves(optim.freeze_mask(params, freeze))
    return {"/".join(path.split("/")[:parts]) for path, trains in mask.items() if not trains}


def test_families_are_recognised():
    families = [optim.family_of(params) for params in (RESNET, VIT, SWIN, VGG, ALEXNET)]
    assert families == ["resnet", "vit", "swin", "vgg", "alexnet"]
    with pytest.raises(UserError, match="no known family"):
        optim.family_of({"dense": {"kernel": jnp.ones(2)}})


def test_stages_of_resnet():
    early = {"layer1_0", "layer1_1", "layer2_0", "layer2_1"}
    assert frozen_tops(RESNET, "none") == set()
    assert frozen_tops(RESNET, "early") == early  # the stem trains
    assert frozen_tops(RESNET, "early_with_stem") == early | {"conv1", "bn1"}
    assert frozen_tops(RESNET, "middle") == {"layer2_0", "layer2_1", "layer3_0", "layer3_1"}
    assert frozen_tops(RESNET, "head_only") == set(RESNET) - {"fc"}
    assert frozen_tops(RESNET, "last_3_blocks") == set(RESNET) - {"layer3_1", "layer4_0", "layer4_1", "fc"}


def test_stages_of_the_others():
    blocks = lambda *numbers: {f"blocks_{i}" for i in numbers}  # noqa: E731
    assert frozen_tops(VIT, "early") == blocks(*range(6))
    assert frozen_tops(VIT, "middle") == blocks(*range(3, 9))
    assert frozen_tops(VIT, "early_with_stem") == blocks(*range(6)) | {
        "cls_token",
        "pos_embed",
        "dist_token",
        "patch_embed",
    }
    assert frozen_tops(VIT, "head_only") == set(VIT) - {"head", "head_dist"}
    assert frozen_tops(VIT, "last_1_block") == set(VIT) - {"blocks_11", "norm", "head", "head_dist"}
    assert frozen_tops(SWIN, "early") == {"layers_0", "layers_1"}
    assert frozen_tops(SWIN, "middle") == {"layers_1", "layers_2"}
    trains = set(tree.named_leaves(SWIN)) - {
        p for p, on in tree.named_leaves(optim.freeze_mask(SWIN, "last_2_blocks")).items() if not on
    }
    assert {p.split("/")[0] for p in trains} == {"layers_3", "norm", "head"}  # its patch merging too
    assert frozen_tops(VGG, "early") == {f"features_{i}" for i in (4, 5, 8, 9)}  # a norm with its convolution
    assert frozen_tops(VGG, "early_with_stem") == {f"features_{i}" for i in (0, 1, 4, 5, 8, 9)}
    assert frozen_tops(VGG, "head_only") == set(VGG) - {"head"}
    assert frozen_tops(ALEXNET, "head_only") == set(ALEXNET) - {"classifier_6"}
    assert frozen_tops(ALEXNET, "last_1_blocks") == {f"features_{i}" for i in (0, 3, 6, 8)}


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


def our_path(name):
    """The name in our form: numbers joined to the part before, weight as kernel."""
    joined = functools.reduce(lambda a, b: f"{a}_{b}" if b.isdigit() else f"{a}/{b}", name.split("."))
    return joined.removesuffix("weight") + "kernel" if joined.endswith("weight") else joined


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_tiny_patch16_224", {"depth": 3}),
        ("deit_tiny_distilled_patch16_224", {"depth": 3}),
        ("vit_base_patch16_clip_224", {"depth": 2, "embed_dim": 24, "num_heads": 2}),
        ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "avg"}),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 24}),
        ("resnet18", {}),
        ("resnet26d", {}),
        ("resnetrs50", {}),
        ("vgg11_bn", {}),
        ("vit_small_patch14_reg4_dinov2", {"depth": 2}),
    ],
)
def test_layers_rates_and_decay_are_timms(name, fields):
    pytest.importorskip("torch")
    with contextlib.suppress(ImportError):  # where only a CPU build of torch is installed
        import torchvision_cpu  # noqa: F401
    timm = pytest.importorskip("timm")
    from timm.models import group_parameters
    from timm.optim import param_groups_layer_decay

    model = timm.create_model(name, **fields)
    theirs = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    theirs = {our_path(key): layer for key, layer in theirs.items()}
    shapes = {our_path(key): jax.ShapeDtypeStruct(tuple(p.shape), jnp.float32) for key, p in model.named_parameters()}
    params = tree.unflatten(shapes)
    assert optim.layer_ids(params) == theirs

    spared = getattr(model, "no_weight_decay", lambda: ())()
    groups = param_groups_layer_decay(model, weight_decay=0.1, no_weight_decay_list=spared, layer_decay=0.75)
    path_of = {id(p): our_path(key) for key, p in model.named_parameters()}
    theirs = {
        path_of[id(p)]: (pytest.approx(g["lr_scale"]), g["weight_decay"] > 0) for g in groups for p in g["params"]
    }
    decays, scales = tree.named_leaves(optim.decay_mask(params)), optim.layer_scales(params, 0.75)
    assert {path: (scales[path], decays[path]) for path in decays} == theirs
