"""Stages and layers of every family."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import pytest

from jaxvit import optim, tree
from jaxvit.errors import UserError


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
    with pytest.raises(UserError, match="known family"):
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
        ("vit_base_patch16_siglip_224", {"depth": 2, "embed_dim": 24, "num_heads": 2}),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 24}),
        ("convnext_tiny", {"dims": (8, 16, 24, 32)}),
        ("convnextv2_atto", {}),
        ("convnext_tiny_hnf", {"depths": (1, 2, 3, 1)}),
        ("resnet18", {}),
        ("resnet26d", {}),
        ("resnetrs50", {}),
        ("vgg11_bn", {}),
        ("vit_small_patch14_reg4_dinov2", {"depth": 2}),
        ("eva02_base_patch14_224", {"depth": 3, "embed_dim": 24, "num_heads": 2, "num_classes": 5}),
        ("vit_small_patch16_rope_mixed_ape_224", {"depth": 2, "embed_dim": 24, "num_heads": 2}),
        ("vit_pe_core_tiny_patch16_384", {"depth": 2}),
        ("vit_pe_lang_large_patch14_448", {"depth": 2, "embed_dim": 24, "num_heads": 2}),
        ("vit_tiny_patch16_dinov3_qkvb", {"depth": 3, "num_classes": 5}),
        ("vit_base_patch16_sapiens2", {"depth": 2, "num_kv_heads": (2, 1), "embed_dim": 24, "num_heads": 2}),
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
