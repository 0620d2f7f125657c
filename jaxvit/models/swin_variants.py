"""Swin's entry points of timm 1.0.31: name -> fields of `SwinTransformer` that differ; and the family's record."""

import re
from typing import Any

from jaxvit.models.family import MEGATRON, Family, Fields, Tap, patches_fit
from jaxvit.models.hf_model import Config, HfModel
from jaxvit.models.layers import REMAT_CHOICES, to_pair
from jaxvit.models.layouts import HF_TRANSFORMER, Layout, Tensors, fuse_qkv
from jaxvit.models.swin import CHOICES, NORM_EPS, SwinTransformer, check_fields

_SMALL = {"depths": (2, 2, 18, 2)}
_BASE = {"embed_dim": 128, "num_heads": (4, 8, 16, 32), **_SMALL}
_LARGE = {"embed_dim": 192, "num_heads": (6, 12, 24, 48), **_SMALL}
_384 = {"image_size": 384, "window_size": 12}

VARIANTS: dict[str, dict[str, Any]] = {
    # Liu et al., 2021, table 7
    "swin_tiny_patch4_window7_224": {},
    "swin_small_patch4_window7_224": _SMALL,
    "swin_base_patch4_window7_224": _BASE,
    "swin_base_patch4_window12_384": {**_BASE, **_384},
    "swin_large_patch4_window7_224": _LARGE,
    "swin_large_patch4_window12_384": {**_LARGE, **_384},
    # Chen et al., 2021, "Searching the Search Space of Vision Transformer"
    "swin_s3_tiny_224": {"window_size": (7, 7, 14, 7)},
    "swin_s3_small_224": {"window_size": (14, 14, 14, 7), **_SMALL},
    "swin_s3_base_224": {"window_size": (7, 7, 14, 7), "depths": (2, 2, 30, 2)},
}


def shift_downsample(tensors: Tensors) -> Tensors:
    """Swin's first layout: the patch merging ends a stage there and begins the next one in timm."""
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name): array
        for name, array in tensors.items()
    }


RELEASES = (  # as Microsoft's first files have it
    Layout(r"^layers\.0\.downsample\.", finish=shift_downsample),
    Layout(r"^head\.(weight|bias)$", ((r"^head\.(weight|bias)$", r"head.fc.\1"),)),
)


def small(fields: Fields) -> dict[str, Any]:
    depths = (2, 1) if sum(fields["depths"]) <= 12 else (2, 2)
    sizes = {"image_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 16}
    return {**sizes, "num_heads": (1, 2), "depths": depths}


def taps(model: SwinTransformer) -> tuple[Tap, ...]:
    """The output of every stage."""
    stride, d = max(to_pair(model.patch_size)), model.embed_dim
    return tuple(Tap(f"layers.{i}", d * 2**i, stride * 2**i, f"layers_{i}") for i in range(len(model.depths)))


def transformers(config: Config) -> dict[str, Any]:
    return {
        "patch_size": config.get("patch_size", 4),
        "embed_dim": config.get("embed_dim", 96),
        "depths": config.get("depths", [2, 2, 6, 2]),
        "num_heads": config.get("num_heads", [3, 6, 12, 24]),
        "window_size": config.get("window_size", 7),
        "mlp_ratio": config.get("mlp_ratio", 4.0),
        "qkv_bias": config.get("qkv_bias", True),
    }


FAMILY = Family(
    name="swin",
    model=SwinTransformer,
    variants=VARIANTS,
    timm_modules=("swin_transformer",),
    choices={**CHOICES, "remat": REMAT_CHOICES},
    check=check_fields,
    depth_field="depths",
    small=small,
    stem=r"patch_embed|absolute_pos_embed|pos_embed",
    blocks=((r"layers_(\d+)/downsample", (0,)), (r"layers_(\d+)/blocks_(\d+)", ())),
    stages=True,
    last_norm=r"norm",
    sharding=MEGATRON,
    mark=r"^layers\.0\.blocks\.0\.attn\.relative_position_bias_table$",
    first_conv=("patch_embed.proj",),
    classifiers={"head.fc": "head.hidden"},
    buffers=(r"\.relative_position_index$", r"\.attn_mask$", r"\.num_batches_tracked$"),
    layouts=(
        Layout(
            r"^(swin\.)?embeddings\.patch_embeddings\.projection\.weight$", HF_TRANSFORMER, fuse_qkv, transformers=True
        ),
        *RELEASES,
    ),
    fits=lambda tensors, fields: patches_fit(tensors.get("patch_embed.proj.weight"), fields),
    window_tables=r"^layers\.(\d+)\..*relative_position_bias_table$",
    transformers={"swin": HfModel("swin_base_patch4_window7_224", transformers)},
    transformers_fields={"num_heads": "num_heads"},
    transformers_only={"hidden_act": "gelu", "layer_norm_eps": NORM_EPS},
    timm_args=(
        "global_pool", "patch_size", "embed_dim", "depths", "num_heads", "window_size", "always_partition",
        "mlp_ratio", "qkv_bias",
    ),
    takes_image_size=True,
    default_layer="norm",  # the last before the mean
    taps=taps,
    not_maps=frozenset({"attn"}),  # windows
    attention="windows",
    attention_runs=lambda model, train: model.attn_implementation or "xla",
)  # fmt: skip
