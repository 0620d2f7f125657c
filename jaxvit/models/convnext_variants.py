"""timm's 31 entry points of `convnext.py` (1.0.31): name -> fields of `ConvNeXt` that differ; the family's record.

Sources: Liu et al., 2022, table 9 (tiny to xlarge); Woo et al., 2023, table 8 (V2); OpenCLIP (large_mlp, xxlarge); timm
(atto to nano, overlapping stems, head norm first, other norms, tests).
"""

import re
from typing import Any

import numpy as np

from jaxvit.models.convnext import NORMS, STAGES, ConvNeXt, check_fields
from jaxvit.models.family import MEGATRON, Family, Fields, ShardingRules, Tap, Tensors
from jaxvit.models.hf_model import Config, HfModel, activation, wholes
from jaxvit.models.layers import REMAT_CHOICES
from jaxvit.models.layouts import Layout, Table
from jaxvit.models.layouts import Tensors as Renamed
from jaxvit.ops.activations import ACTIVATIONS
from jaxvit.ops.pooling import MAP_POOLS

_CONV = {"conv_mlp": True}
_ZEPTO = {**_CONV, "depths": (2, 2, 4, 2), "dims": (32, 64, 128, 256), "norm_layer": "simplenorm"}
_ATTO = {**_CONV, "depths": (2, 2, 6, 2), "dims": (40, 80, 160, 320)}
_FEMTO = {**_CONV, "depths": (2, 2, 6, 2), "dims": (48, 96, 192, 384)}
_PICO = {**_CONV, "depths": (2, 2, 6, 2), "dims": (64, 128, 256, 512)}
_NANO = {**_CONV, "depths": (2, 2, 8, 2), "dims": (80, 160, 320, 640)}
_DEEP = {"depths": (3, 3, 27, 3)}
_BASE = {**_DEEP, "dims": (128, 256, 512, 1024)}
_LARGE = {**_DEEP, "dims": (192, 384, 768, 1536)}
_V2 = {"use_grn": True, "ls_init_value": None}
_TIERED = {"stem_type": "overlap_tiered"}
_TEST = {"image_size": 160, "norm_eps": 1e-5, "act_layer": "gelu_tanh"}
_FLAT = {"depths": (1, 1, 1, 1), "dims": (32, 64, 96, 128)}

VARIANTS: dict[str, dict[str, Any]] = {
    "convnext_zepto_rms": _ZEPTO,
    "convnext_zepto_rms_ols": {**_ZEPTO, "stem_type": "overlap_act"},
    "convnext_atto": _ATTO,
    "convnext_atto_ols": {**_ATTO, **_TIERED},
    "convnext_atto_rms": {**_ATTO, "norm_layer": "rmsnorm2d"},
    "convnext_femto": _FEMTO,
    "convnext_femto_ols": {**_FEMTO, **_TIERED},
    "convnext_pico": _PICO,
    "convnext_pico_ols": {**_PICO, **_TIERED},
    "convnext_nano": _NANO,
    "convnext_nano_ols": {**_NANO, "stem_type": "overlap"},
    "convnext_tiny_hnf": {**_CONV, "head_norm_first": True},
    "convnext_tiny": {},
    "convnext_small": _DEEP,
    "convnext_base": _BASE,
    "convnext_large": _LARGE,
    "convnext_large_mlp": {**_LARGE, "head_hidden_size": 1536, "image_size": 320},
    "convnext_xlarge": {**_DEEP, "dims": (256, 512, 1024, 2048)},
    "convnext_xxlarge": {
        "depths": (3, 4, 30, 3), "dims": (384, 768, 1536, 3072), "norm_eps": 1e-5, "image_size": 256,
    },
    "convnextv2_atto": {**_ATTO, **_V2},
    "convnextv2_femto": {**_FEMTO, **_V2},
    "convnextv2_pico": {**_PICO, **_V2},
    "convnextv2_nano": {**_NANO, **_V2},
    "convnextv2_tiny": _V2,
    "convnextv2_small": {**_DEEP, **_V2},
    "convnextv2_base": {**_BASE, **_V2},
    "convnextv2_large": {**_LARGE, **_V2},
    "convnextv2_huge": {**_DEEP, **_V2, "dims": (352, 704, 1408, 2816), "image_size": 384},
    "test_convnext": {**_TEST, "depths": (1, 2, 4, 2), "dims": (24, 32, 48, 64)},
    "test_convnext2": {**_TEST, **_FLAT},
    "test_convnext3": {**_TEST, **_FLAT, "kernel_sizes": (7, 5, 5, 3), "act_layer": "silu"},
}  # fmt: skip

# As the authors of both papers, of DINOv3 and of EUPE save it.
FACEBOOK: Table = (
    (r"^(projectors|norms)\.", None),  # of distillation; DINOv3's last of `norms` is `norm` again
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
)
# The image tower of OpenCLIP.
OPEN_CLIP: Table = (
    (r"^(?!visual\.)", None),
    (r"^visual\.trunk\.", ""),
    (r"^visual\.head\.proj\.", "head.fc."),
    (r"^visual\.head\.mlp\.fc1\.", "head.pre_logits.fc."),
    (r"^visual\.head\.mlp\.fc2\.", "head.fc."),
)
# Transformers' ConvNext, ConvNextV2 and DINOv3ConvNext.
HF_CONVNEXT: Table = (
    (r"^(convnext|convnextv2|dinov3_convnext)\.", ""),
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^encoder\.", ""),
    (r"^stages\.0\.downsample_layers\.", "stem."),
    (r"\.(downsampling_layer|downsample_layers)\.", ".downsample."),
    (r"^(stages\.\d+)\.layers\.", r"\1.blocks."),
    (r"\.(dwconv|depthwise_conv)\.", ".conv_dw."),
    (r"(\.blocks\.\d+)\.(layernorm|layer_norm)\.", r"\1.norm."),
    (r"\.(?:pwconv|pointwise_conv)([12])\.", r".mlp.fc\1."),
    (r"(\.blocks\.\d+)\.grn\.", r"\1.mlp.grn."),
    (r"\.layer_scale_parameter$", ".gamma"),
    (r"^(layernorm|layer_norm)\.", "head.norm."),
    (r"^classifier\.", "head.fc."),
)


def _flat_norms(tensors: Renamed) -> Renamed:
    """Global response norms, which have axes of length 1 for the map in other layouts."""
    return {name: array.reshape(-1) if ".grn." in name else array for name, array in tensors.items()}


def _open_clip(tensors: Renamed) -> Renamed:
    """A projection without a bias."""
    weight = tensors.get("head.fc.weight")
    if weight is not None and weight.ndim and "head.fc.bias" not in tensors:
        tensors["head.fc.bias"] = np.zeros(weight.shape[:1], np.float32)
    return tensors


def _pretrained(tensors: Renamed) -> Renamed:
    """V2 as its masked pretraining left it has no head, not even the norm in it; as in timm that is the identity."""
    last = tensors.get(f"stages.{STAGES - 1}.blocks.0.norm.weight")
    if last is not None and not any(name.startswith(("head.", "norm_pre.")) for name in tensors):
        tensors["head.norm.weight"], tensors["head.norm.bias"] = np.ones_like(last), np.zeros_like(last)
    return tensors


LAYOUTS = (
    Layout(r"^visual\.trunk\.stem\.0\.weight$", OPEN_CLIP, _open_clip),
    Layout(r"^downsample_layers\.0\.0\.weight$", FACEBOOK, _flat_norms),
    Layout(
        r"(^|\.)embeddings\.layernorm\.weight$|^stages\.0\.downsample_layers\.0\.weight$",
        HF_CONVNEXT,
        _flat_norms,
        transformers=True,
    ),
    Layout(r"^stages\.0\.blocks\.0\.mlp\.grn\.weight$", finish=_pretrained),
)


def _small(fields: Fields) -> dict[str, Any]:
    return {"image_size": 16, "patch_size": 1, "stem_type": "patch", "dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}


def _fits(tensors: Tensors, fields: Fields) -> bool:
    """Whether a file shows a variant's widths, its norms, its stem and its head."""
    widths = [tensors.get(f"stages.{i}.blocks.0.norm.weight") for i in range(STAGES)]
    stem = tensors.get("stem.0.weight")
    if stem is None or any(width is None for width in widths):
        return False
    last = max(int(found[1]) for name in tensors if (found := re.match(r"stem\.(\d+)\.", name)))
    shown = {
        "dims": tuple(len(width) for width in widths if width is not None),
        "use_grn": any(".grn." in name for name in tensors),
        "head_norm_first": "norm_pre.weight" in tensors,
        "norm_layer": "norm" if "stages.0.blocks.0.norm.bias" in tensors else "rms",
        "head_hidden_size": len(tensors.get("head.pre_logits.fc.weight", ())) or None,
        "stem": ("patch", last) if stem.shape[2:] == (4, 4) else (len(stem), last),
        "kernel_sizes": _kernel_size(tensors),
    }
    model = ConvNeXt(**fields)
    wanted = {field: fields[field] for field in ("dims", "use_grn", "head_norm_first", "head_hidden_size")}
    wanted["norm_layer"] = "norm" if fields["norm_layer"].startswith("layernorm") else "rms"
    patch = fields["stem_type"] == "patch"
    wanted["stem"] = ("patch", 1) if patch else (model.stem_width(), 3 if fields["stem_type"] == "overlap_act" else 2)
    wanted["kernel_sizes"] = model.stage_kernels()
    return shown == wanted


def _kernel_size(tensors: Tensors) -> tuple[int, ...]:
    return tuple(tensors[f"stages.{i}.blocks.0.conv_dw.weight"].shape[-1] for i in range(STAGES))


def _taps(model: ConvNeXt) -> tuple[Tap, ...]:
    """The output of every stage."""
    sizes = zip(model.dims, model.strides(), strict=True)
    return tuple(Tap(f"stages.{i}", width, stride, f"stages_{i}") for i, (width, stride) in enumerate(sizes))


def _transformers(config: Config) -> dict[str, Any]:
    return {
        "depths": wholes(config, "depths", [3, 3, 9, 3]),
        "dims": wholes(config, "hidden_sizes", [96, 192, 384, 768]),
        "patch_size": config.get("patch_size", 4),
        "act_layer": activation(config.get("hidden_act", "gelu")),
    }


SHARDING: ShardingRules = (
    *MEGATRON,
    (r"\bfc1/kernel$", (None, None, "fsdp", "tensor")),  # as 1x1 convolutions
    (r"\bfc2/kernel$", (None, None, "tensor", "fsdp")),
)

FAMILY = Family(
    name="convnext",
    model=ConvNeXt,
    variants=VARIANTS,
    timm_modules=("convnext",),
    choices={
        "act_layer": tuple(ACTIVATIONS),
        "global_pool": tuple(MAP_POOLS),
        "norm_layer": tuple(NORMS),
        "stem_type": ("patch", "overlap", "overlap_tiered", "overlap_act"),
        "remat": REMAT_CHOICES,
    },
    check=check_fields,
    depth_field="depths",
    small=_small,
    stem=r"stem_",
    blocks=((r"stages_(\d+)/downsample", (0,)), (r"stages_(\d+)/blocks_(\d+)", ())),
    stages=True,
    last_norm=r"norm_pre",
    sharding=SHARDING,
    mark=r"^stages\.0\.blocks\.0\.conv_dw\.weight$",
    first_conv=("stem.0",),
    classifiers={"head.fc": "head.pre_logits.fc"},
    layouts=LAYOUTS,
    fits=_fits,
    taps=_taps,
    default_layer=lambda model: "norm_pre" if model.head_norm_first else "stages_3",
    branch_ends=r"\bgamma$",
    transformers={
        "convnext": HfModel("convnext_tiny", _transformers, image_size=None),
        "convnextv2": HfModel("convnextv2_tiny", _transformers, image_size=None),
        "dinov3_convnext": HfModel("convnext_tiny", _transformers, image_size=None),
    },
    transformers_fields={"hidden_act": "act_layer"},
    timm_args=(
        "global_pool", "depths", "dims", "kernel_sizes", "ls_init_value", "stem_type", "patch_size", "output_stride",
        "head_norm_first", "head_hidden_size", "head_init_scale", "conv_mlp", "conv_bias", "use_grn", "act_layer",
        "norm_layer", "norm_eps",
    ),
)  # fmt: skip
