"""Fields of a model: what they are given, checked and told."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.models import fields, registry

SWIN, VIT = "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"


MISTAKES = [
    ("resnet81", {}, "unknown model 'resnet81'. Did you mean 'resnet18'"),
    ("swin_tiny", {}, f"Did you mean '{SWIN}'?"),
    ("VIT_TINY", {}, f"Did you mean '{VIT}'"),
    ("vit_tinyy", {}, f"Did you mean '{VIT}'"),
    ("vit-tiny-patch16-24", {}, f"Did you mean '{VIT}'"),
    ("ViT-B/16", {}, "Did you mean 'vit_base_patch16_224'"),
    ("vit_l_32", {}, "Did you mean 'vit_large_patch32_224'"),
    ("efficientnet_b0", {}, "'efficientnet_b0'. jaxvit.list_models() lists all names"),
    ("", {}, "unknown model ''"),
    (3, {}, "expected e.g. 'resnet18'"),
    ("vit_tiny_patch16_224_in21k", {}, "it is now called 'vit_tiny_patch16_224.augreg_in21k'"),
    ("resnet18.a1", {}, "unknown tag 'a1' of 'resnet18'. Did you mean 'a1_in1k'?"),
    ("resnet18.unheard_of", {}, "unknown tag 'unheard_of' of 'resnet18'"),
    ("resnet18", {"num_clases": 10}, "ResNet has no field 'num_clases'. Did you mean 'num_classes'"),
    ("resnet18", {"img_size": 32}, "it is called 'image_size' here"),
    ("resnet18", {"in_chans": 1}, "it is called 'in_channels' here"),
    ("resnet18", {"pretrained": True}, "load_pretrained"),
    (SWIN, {"head_dim": 16}, "'head_dim': a head has embed_dim / num_heads channels"),
    (SWIN, {"dynamic_img_size": True}, "always accepted"),
    ("resnet18", {"stem": "cifr"}, "Did you mean 'cifar'?"),
    ("resnet18", {"num_classes": "10"}, "num_classes='10' has the wrong type; expected a whole number"),
    ("resnet18", {"num_classes": True}, "wrong type"),
    ("resnet18", {"num_classes": -1}, "at least 0"),
    ("resnet18", {"in_channels": 0}, "at least 1"),
    ("resnet18", {"image_size": (32, 32, 3)}, "(a whole number, a whole number)"),
    ("resnet18", {"remat": 1}, "True or False"),
    ("resnet18", {"dtype": "bfloat"}, "Did you mean 'bfloat16'"),
    ("vgg11", {"drop_rate": 1.0}, "0 <= drop_rate < 1"),
    ("vgg11", {"drop_rate": -0.1}, "0 <= drop_rate < 1"),
    (
        VIT,
        {"image_size": 230},
        "image 230x230 is not divisible by patch size 16x16; the nearest image_size is 224x224, or crop_to_patches",
    ),
    (VIT, {"image_size": (224, 8)}, "by patch size 16x16; the nearest image_size is 224x16."),
    (VIT, {"embed_dim": 100}, "embed_dim=100 is not divisible by num_heads=3"),
    (VIT, {"depth": 2.5}, "depth=2.5 has the wrong type"),
    (VIT, {"patch_size": 0}, "at least 1"),
    (VIT, {"mlp_ratio": 0}, "not positive"),
    (VIT, {"mlp_ratio": 1e-9}, "leaves no hidden units"),
    (VIT, {"depth": 10**7}, "depth=10000000 is too large; expected at most 1000"),
    (SWIN, {"mlp_ratio": 1e-9}, "leaves no hidden units"),
    (SWIN, {"depths": [2, 2, 10**4, 2]}, "is too large"),
    ("resnext50_32x4d", {"channels": [8, 16, 32, 64]}, "8 is too narrow, as a group would have less than one channel"),
    ("resnext50_32x4d", {"channels": [8, 16, 32, 64]}, "expected at least 16"),
    ("resnet50", {"channels": [1, 1, 1, 1], "base_width": 32}, "1 is too narrow"),
    ("senet154", {"cardinality": 3, "base_width": 3}, "cardinality=3 does not divide the 4 and 9 channels"),
    ("ecaresnet50d_pruned", {"cardinality": 2}, "cardinality=2 does not divide"),
    ("resnet50", {"block_reduce_first": 128}, "block_reduce_first=128 leaves no channels of 64"),
    ("resnet18", {"cardinality": 2}, "block='basic' has no cardinality and no base_width"),
    ("ecaresnet50d_pruned", {"layers": [3, 5, 6, 3]}, "blocks than `pruned` has widths for"),
    ("resnet50t", {"stem_width": 2}, "stem_width=2 leaves a stem of no channels"),
    ("resnet50", {"down_kernel_size": 2}, "down_kernel_size=2 is even"),
    ("resnet50", {"layers": [1, 1]}, "expected one entry per stage"),
    ("resnet50_gn", {"channels": [8, 16, 32, 64]}, "32 groups, which do not divide 8 channels"),
    ("resnet50_gn", {"stem_type": "deep", "stem_width": 8}, "which do not divide 8 channels"),
    ("vgg11_bn", {"norm_layer": "groupnorm", "cfg": [8, "M"]}, "which do not divide 8 channels"),
    ("vgg11", {"cfg": [8, "X"]}, "cfg holds 'X'"),
    ("vgg11", {"cfg": ["M"]}, "has no convolution"),
    ("vgg11", {"mlp_ratio": 1e-9}, "leaves no hidden units of 4096"),
    (VIT, {"global_pool": "avrg"}, "Did you mean 'avg'"),
    (SWIN, {"window_size": [7, 7, 7]}, "each of the 4 stages"),
    (SWIN, {"depths": [2, 2]}, "differ in length"),
    (SWIN, {"embed_dim": 97}, "not divisible by its num_heads=3"),
    (SWIN, {"drop_path_rate": float("nan")}, "not finite"),
    (SWIN, {"patch_size": 3}, "not divisible by patch size 3x3"),
]


@pytest.mark.parametrize(("name", "fields", "message"), MISTAKES)
def test_mistakes_are_named_with_the_nearest_choice(name, fields, message):
    with pytest.raises(UserError) as error:
        registry.create_model(name, **fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_default_passes_the_checks_of_given_values():
    for name in registry.list_models():
        assert registry.create_model(name, **registry.model_fields(name)) == registry.create_model(name)


def test_values_from_json_make_hashable_modules():
    values = {"window_size": [4, 4, [2, 3], 4], "image_size": [32, 64], "depths": [1, 1, 1, 1], "dtype": "bfloat16"}
    model = registry.create_model(SWIN, **values, mlp_ratio=np.float32(2), num_classes=np.int64(3))
    assert model.window_size == (4, 4, (2, 3), 4) and model.image_size == (32, 64)
    assert model.dtype == jnp.bfloat16 and type(model.num_classes) is int
    assert hash(model) == hash(registry.create_model(SWIN, **values, mlp_ratio=2.0, num_classes=3))


def test_none_means_not_given_where_it_is_no_value():
    assert registry.create_model("resnet18", num_classes=None, dtype=None) == registry.create_model("resnet18")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("module", "name", "family"),
    [
        ("eva", "Eva", "eva"),
        ("convnext", "ConvNeXt", "convnext"),
        ("swin_transformer", "SwinTransformer", "swin"),
        ("swin_transformer_v2", "SwinTransformerV2", "swinv2"),
        ("vision_transformer", "VisionTransformer", "vit"),
    ],
)
def test_an_argument_of_timms_class_is_a_field_or_refused_by_name(module, name, family):
    models = pytest.importorskip("timm.models")
    theirs = inspect.signature(getattr(getattr(models, module), name)).parameters
    known = {*fields.field_kinds(registry.FAMILIES[family].model), *fields.ABSENT}
    assert {fields.ELSEWHERE.get(word, word) for word in theirs} <= known
