"""The registry: every name's parameter count, suggestions for mistakes, wildcards, tags and preprocessing.

tests/golden/param_counts.json: made by `python tools/make_param_counts.py` from timm 1.0.31 and torchvision.
"""

import dataclasses
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.models.layers import to_pair
from jaxvit.models.tags import tag_tables

PINS = json.loads((Path(__file__).parents[1] / "golden" / "param_counts.json").read_text())
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


# Family -> the blocks of a stage that a shallow model keeps, and the path of the last of them.
SHALLOW = {
    "vit": (1, "blocks_0/"),
    "resnet": (2, "layer{number}_1/"),  # the first block of a stage is not like the others
    "eva": (1, "blocks_0/"),
    "swin": (1, "layers_{index}/blocks_0/"),
    "swinv2": (1, "layers_{index}/blocks_0/"),
    "convnext": (1, "stages_{index}/blocks_0/"),
}


@cache
def traced_sizes(model):
    """Path -> size of every parameter, without allocating one."""
    images = jax.ShapeDtypeStruct((1, *to_pair(model.image_size), model.in_channels), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return {path: math.prod(leaf.shape) for path, leaf in flatten_dict(params, sep="/").items()}


def param_count(model):
    """Counts in a shallow model; the blocks that it leaves out of a stage are like the last that it has."""
    family = registry.family_of(model)
    if family.name not in SHALLOW or getattr(model, "pruned", None):
        return sum(traced_sizes(model).values())
    if isinstance(getattr(model, "num_kv_heads", None), tuple):  # its blocks are of two kinds
        return sum_of_kinds(model)
    (kept, last), depths = SHALLOW[family.name], getattr(model, str(family.depth_field))
    stages = (depths,) if isinstance(depths, int) else depths
    shallow = kept if isinstance(depths, int) else tuple(min(d, kept) for d in depths)
    sizes = traced_sizes(model.clone(**{str(family.depth_field): shallow}))
    count = sum(sizes.values())
    for index, depth in enumerate(stages):
        path = last.format(index=index, number=index + 1)
        block = (path, "rope/freqs")  # learnt frequencies of all blocks lie in one tensor
        count += max(depth - kept, 0) * sum(size for name, size in sizes.items() if name.startswith(block))
    return count


def sum_of_kinds(model):
    """Counts one block of each kind of attention in a model of that block, and the rest once."""
    rest, count = 0, 0
    for heads in set(model.num_kv_heads):
        sizes = traced_sizes(model.clone(depth=1, num_kv_heads=(heads,)))
        block = sum(size for path, size in sizes.items() if path.startswith("blocks_0/"))
        rest, count = sum(sizes.values()) - block, count + block * model.num_kv_heads.count(heads)
    return rest + count


def test_every_name_has_a_pin_and_every_pin_a_name():
    assert set(PINS) == set(registry.list_models())


@pytest.mark.parametrize("part", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 12))])
@pytest.mark.parametrize("family", list(registry.FAMILIES))
def test_parameter_counts_equal_the_pins(family, part):
    names = list(registry.FAMILIES[family].variants)[part::12]  # tracing all of them takes a minute
    counts = {name: param_count(registry.create_model(name)) for name in names}
    assert counts == {name: PINS[name] for name in counts}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_tiny_patch16_224", {"depth": 4}),
        ("resnet50", {"layers": (1, 3, 2, 4)}),
        ("swin_tiny_patch4_window7_224", {"depths": (3, 1, 2, 4)}),
        ("vit_base_patch16_sapiens2", {"depth": 3, "num_kv_heads": (12, 6, 12)}),
        ("convnextv2_atto", {"depths": (3, 1, 2, 4)}),
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


@pytest.mark.parametrize("door", [registry.data_config, registry.list_models, registry.create_model])
def test_a_name_is_text(door):
    with pytest.raises(UserError, match="expected .*'(resnet18|vit_\\*)'"):
        door(18)


@pytest.mark.parametrize("family", registry.FAMILIES.values(), ids=lambda family: family.name)
def test_pixels_that_are_not_normalised_are_refused(family):
    """Torch's layers refuse integers; here they would be computed with, from 0 to 255."""
    model: Any = registry.create_model(next(iter(family.variants)))
    shape = (1, *to_pair(model.image_size), model.in_channels)
    with pytest.raises(UserError, match="images are uint8"):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.uint8))


TOKENS = {"image_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 4}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vit_small_patch16_dinov3", TOKENS),  # layer scale
        ("vit_base_patch16_siglip_224", {**TOKENS, "patch_size": 8}),  # pooling by attention
        ("vit_base_patch16_reg4_gap_256", {**TOKENS, "block_fn": "parallel_scaling"}),
        ("eva02_tiny_patch14_224", {**TOKENS, "patch_size": 8}),
        ("vit_small_patch16_rope_mixed_224", TOKENS),
        ("deit_tiny_distilled_patch16_224", TOKENS),
        ("swinv2_tiny_window8_256", {"image_size": 32, "depths": (1,), "num_heads": (2,), "embed_dim": 16}),
        ("convnext_atto", {"image_size": 32, "depths": (1, 1, 1, 1)}),
        ("convnextv2_atto", {"image_size": 32, "depths": (1, 1, 1, 1), "conv_mlp": True}),
        ("resnet18", {"image_size": 32, "layers": (1,), "channels": (8,)}),
    ],
)
def test_parameters_are_float32_where_64_bits_are_switched_on(name, fields):
    model: Any = registry.create_model(name, **fields)
    with jax.enable_x64(True):
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, model.in_channels)))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}


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


CONFIGS = {
    "vit_base_patch16_224": (HALF, 224, 0.9, "bicubic", "center", 1000),
    "vit_base_patch16_224.dino": (IMAGENET, 224, 0.9, "bicubic", "center", 0),
    "vit_base_patch32_clip_224.openai": (CLIP, 224, 0.9, "bicubic", "center", 512),
    "vit_base_patch16_siglip_384.webli": (HALF, 384, 0.9, "bicubic", "center", 0),
    "eva_large_patch14_336.in22k_ft_in1k": (CLIP, 336, 1.0, "bicubic", "squash", 1000),
    "vit_small_patch16_dinov3.lvd1689m": (IMAGENET, 256, 1.0, "bicubic", "center", 0),
    "eva02_large_patch14_448.mim_m38m_ft_in1k": (CLIP, 448, 1.0, "bicubic", "center", 1000),
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


@pytest.mark.torch
def test_names_tags_and_defaults_equal_timms():
    timm = pytest.importorskip("timm")
    modules = [module for family in registry.FAMILIES.values() for module in family.timm_modules]
    names = {name for module in modules for name in timm.list_models(module=module)}
    assert set(registry.list_models()) | {n for f in registry.FAMILIES.values() for n in f.unsupported} == {
        *names, "alexnet",
    }  # fmt: skip
    for name in sorted(names & set(registry.list_models())):
        cfg, model = timm.get_pretrained_cfg(name), registry.create_model(name)
        assert (name, model.num_classes, to_pair(model.image_size)) == (name, cfg.num_classes, cfg.input_size[1:])
    tags = {tag for module in modules for tag in timm.list_models(module=module, pretrained=True)}
    assert set(registry.list_models(pretrained=True)) == {*tags, "alexnet.tv_in1k"}
