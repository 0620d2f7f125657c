"""The registry: every name's parameter count, suggestions for mistakes, wildcards, tags and preprocessing.

tests/golden/param_counts.json: made by `python tools/make_param_counts.py` from timm 1.0.31 and torchvision.
"""

import dataclasses
import json
import math
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.layers import to_pair
from jaxvit.models.tags import renamed, tag_tables

PINS = json.loads((Path(__file__).parents[1] / "golden" / "param_counts.json").read_text())
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


# Field with the number of blocks -> path of the last block that a model of at most two per stage has.
LAST_BLOCK = {"depth": "blocks_0/", "layers": "layer{number}_1/", "depths": "layers_{index}/blocks_1/"}


@cache
def traced_sizes(model):
    """Path -> size of every parameter, without allocating one."""
    images = jax.ShapeDtypeStruct((1, *to_pair(model.image_size), model.in_channels), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return {path: math.prod(leaf.shape) for path, leaf in flatten_dict(params, sep="/").items()}


def param_count(model):
    """Counts in a shallow model; the blocks that it leaves out of a stage are like the last that it has."""
    field = next((f for f in LAST_BLOCK if hasattr(model, f)), None)
    if field is None or getattr(model, "pruned", None):
        return sum(traced_sizes(model).values())
    depths = getattr(model, field)
    kept = 1 if field == "depth" else 2  # the first block of a stage is not like the others
    shallow = kept if field == "depth" else tuple(min(d, kept) for d in depths)
    sizes = traced_sizes(model.clone(**{field: shallow}))
    count = sum(sizes.values())
    for index, depth in enumerate((depths,) if field == "depth" else depths):
        last = LAST_BLOCK[field].format(index=index, number=index + 1)
        count += max(depth - kept, 0) * sum(size for path, size in sizes.items() if path.startswith(last))
    return count


def test_every_name_has_a_pin_and_every_pin_a_name():
    assert set(PINS) == set(registry.list_models())


@pytest.mark.parametrize("family", list(registry.FAMILIES))
def test_parameter_counts_equal_the_pins(family):
    counts = {name: param_count(registry.create_model(name)) for name in registry.FAMILIES[family].variants}
    assert counts == {name: PINS[name] for name in counts}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_tiny_patch16_224", {"depth": 4}),
        ("resnet50", {"layers": (1, 3, 2, 4)}),
        ("swin_tiny_patch4_window7_224", {"depths": (3, 1, 2, 4)}),
    ],
)
def test_shallow_traces_say_what_full_ones_do(name, fields):
    model = registry.create_model(name, **fields)
    assert param_count(model) == sum(traced_sizes(model).values())


def test_no_name_is_both_supported_and_not():
    names = [name for family in registry.FAMILIES.values() for name in (*family.variants, *family.unsupported)]
    assert len(names) == len(set(names))
    assert set(names) == set(tag_tables())


def test_an_unsupported_name_says_which_option_is_missing(monkeypatch):
    family = registry.FAMILIES["vgg"]
    monkeypatch.setitem(
        registry.FAMILIES, "vgg", dataclasses.replace(family, unsupported={"vgg99": "a hundredth layer"})
    )
    with pytest.raises(UserError, match="'vgg99' is not supported: it needs a hundredth layer"):
        registry.create_model("vgg99")


SWIN, VIT = "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"
MISTAKES = [
    ("resnet81", {}, "unknown model 'resnet81'. Did you mean 'resnet18'"),
    ("swin_tiny", {}, f"Did you mean '{SWIN}'?"),
    ("VIT_TINY", {}, f"Did you mean '{VIT}'"),
    ("", {}, "unknown model ''"),
    (3, {}, "expected e.g. 'resnet18'"),
    ("vit_tiny_patch16_224_in21k", {}, "it is called 'vit_tiny_patch16_224.augreg_in21k' now"),
    ("resnet18.a1", {}, "unknown tag 'a1' of 'resnet18'. Did you mean 'a1_in1k'?"),
    ("resnet18.unheard_of", {}, "unknown tag 'unheard_of' of 'resnet18'"),
    ("resnet18", {"num_clases": 10}, "ResNet has no field 'num_clases'. Did you mean 'num_classes'"),
    ("resnet18", {"img_size": 32}, "it is called 'image_size' here"),
    ("resnet18", {"in_chans": 1}, "it is called 'in_channels' here"),
    ("resnet18", {"pretrained": True}, "load_pretrained"),
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
    (VIT, {"image_size": 230}, "image 230x230 is not divisible by patch size 16x16; the nearest image_size is 224x224"),
    (VIT, {"image_size": (224, 8)}, "not divisible by patch size"),
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
    ("resnet50", {"block_reduce_first": 128}, "block_reduce_first=128 leaves 64 channels none"),
    ("resnet18", {"cardinality": 2}, "block='basic' has no cardinality and no base_width"),
    ("ecaresnet50d_pruned", {"layers": [3, 5, 6, 3]}, "more blocks than `pruned` has widths for"),
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


def test_a_tag_brings_its_classes_and_image_size():
    model = registry.create_model("swin_base_patch4_window12_384.ms_in22k")
    assert (model.num_classes, model.image_size) == (21841, 384)
    assert registry.create_model("vit_base_patch16_224.dino").num_classes == 0
    assert registry.create_model("resnet50.a3_in1k").image_size == 160
    assert registry.create_model("resnet50.a3_in1k", num_classes=7, image_size=32).num_classes == 7


def test_model_fields_are_the_defaults_of_the_entry():
    fields = registry.model_fields("swin_large_patch4_window12_384")
    assert fields["embed_dim"] == 192 and fields["window_size"] == 12 and fields["image_size"] == 384
    assert fields["drop_path_rate"] == 0.1 and fields["num_classes"] == 1000
    assert not {"name", "parent"} & set(fields)


def test_list_models_takes_wildcards_and_sorts_numbers_by_value():
    resnets = registry.list_models("resnet[0-9]*")
    assert resnets.index("resnet34") < resnets.index("resnet101")
    assert len(registry.list_models("swin_*")) == 9
    assert registry.list_models("vgg1?") == ["vgg11", "vgg13", "vgg16", "vgg19"]
    assert registry.list_models("no_such_*") == []
    assert {"alexnet", "deit_tiny_distilled_patch16_224"} < set(registry.list_models())


def test_list_models_with_tags():
    tags = registry.list_models("resnet18", pretrained=True)
    assert "resnet18.a1_in1k" in tags and all(t.startswith("resnet18.") for t in tags)
    assert registry.list_models("swin_*.ms_in22k", pretrained=True) == [
        "swin_base_patch4_window7_224.ms_in22k",
        "swin_base_patch4_window12_384.ms_in22k",
        "swin_large_patch4_window7_224.ms_in22k",
        "swin_large_patch4_window12_384.ms_in22k",
        "swin_small_patch4_window7_224.ms_in22k",
        "swin_tiny_patch4_window7_224.ms_in22k",
    ]
    assert registry.list_models("alexnet*", pretrained=True) == ["alexnet.tv_in1k"]


def test_split_tag():
    assert registry.split_tag("resnet18.a1_in1k") == ("resnet18", "a1_in1k")
    assert registry.split_tag("resnet18") == ("resnet18", None)


CONFIGS = {
    "vit_base_patch16_224": (HALF, 224, 0.9, "bicubic", "center", 1000),
    "vit_base_patch16_224.dino": (IMAGENET, 224, 0.9, "bicubic", "center", 0),
    "vit_base_patch32_clip_224.openai": (CLIP, 224, 0.9, "bicubic", "center", 512),
    "vit_base_patch16_siglip_384.webli": (HALF, 384, 0.9, "bicubic", "center", 0),
    "eva_large_patch14_336.in22k_ft_in1k": (CLIP, 336, 1.0, "bicubic", "squash", 1000),
    "deit_tiny_patch16_224.fb_in1k": (IMAGENET, 224, 0.9, "bicubic", "center", 1000),
    "swin_tiny_patch4_window7_224.ms_in22k": (IMAGENET, 224, 0.9, "bicubic", "center", 21841),
    "swin_base_patch4_window12_384": (IMAGENET, 384, 1.0, "bicubic", "center", 1000),
    "resnet18": (IMAGENET, 224, 0.95, "bicubic", "center", 1000),
    "resnet18.tv_in1k": (IMAGENET, 224, 0.875, "bilinear", "center", 1000),
    "resnet50.a3_in1k": (IMAGENET, 160, 0.95, "bicubic", "center", 1000),
    "vgg16_bn": (IMAGENET, 224, 0.875, "bilinear", "center", 1000),
    "alexnet": (IMAGENET, 224, 0.875, "bilinear", "center", 1000),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_data_config(name):
    norm, size, crop_pct, interpolation, crop_mode, num_classes = CONFIGS[name]
    sizes = {"image_size": (size, size), "in_channels": 3, "num_classes": num_classes}
    crop = {"crop_pct": crop_pct, "crop_mode": crop_mode, "interpolation": interpolation}
    assert registry.data_config(name) == {**sizes, **norm, **crop}


def test_tag_info_says_where_the_weights_lie():
    assert registry.tag_info("deit_tiny_patch16_224")["hub"] == "timm/deit_tiny_patch16_224.fb_in1k"
    quick = registry.tag_info("vit_base_patch32_clip_quickgelu_224.openai")
    assert quick["hub"] == "timm/vit_base_patch32_clip_224.openai"  # shares the file of the plain name
    assert registry.tag_info("deit_tiny_distilled_patch16_224")["classifier"] == ("head", "head_dist")
    alexnet = registry.tag_info("alexnet")
    assert alexnet["hub"] is None and alexnet["url"].endswith("alexnet-owt-7be5be79.pth")
    assert not registry.tag_info("vit_large_patch14_224")["has_weights"]


def test_every_former_name_leads_to_one_of_today():
    for new in renamed().values():
        assert registry.tag_info(new)


@pytest.mark.torch
def test_names_tags_and_defaults_equal_timms():
    timm = pytest.importorskip("timm")
    modules = ("resnet", "vgg", "vision_transformer", "deit", "swin_transformer")
    names = {name for module in modules for name in timm.list_models(module=module)}
    assert set(registry.list_models()) | {n for f in registry.FAMILIES.values() for n in f.unsupported} == {
        *names, "alexnet",
    }  # fmt: skip
    for name in sorted(names & set(registry.list_models())):
        cfg, model = timm.get_pretrained_cfg(name), registry.create_model(name)
        assert (name, model.num_classes, to_pair(model.image_size)) == (name, cfg.num_classes, cfg.input_size[1:])
    tags = {tag for module in modules for tag in timm.list_models(module=module, pretrained=True)}
    assert set(registry.list_models(pretrained=True)) == {*tags, "alexnet.tv_in1k"}


@pytest.mark.torch
def test_every_tag_equals_timms():
    timm = pytest.importorskip("timm")
    for name, tags in tag_tables().items():
        for tag in tags if name != "alexnet" else ():
            full = f"{name}.{tag}" if tag else name
            cfg = timm.get_pretrained_cfg(full)
            expected = timm.data.resolve_data_config(pretrained_cfg=cfg.to_dict())
            config = registry.data_config(full)
            config["input_size"] = (config.pop("in_channels"), *config.pop("image_size"))
            assert (full, config.pop("num_classes")) == (full, cfg.num_classes)
            assert (full, config) == (full, expected)
            info = registry.tag_info(full)
            assert (full, info["hub"], info["license"]) == (full, cfg.hf_hub_id or None, cfg.license)
            assert (full, info["classifier"], info["first_conv"]) == (full, cfg.classifier, cfg.first_conv)
            assert (full, info["fixed_input_size"]) == (full, cfg.fixed_input_size)
            assert info["hub"] or info["url"] == (cfg.url or None)
