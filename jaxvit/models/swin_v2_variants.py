"""Swin V2's 12 entry points of timm 1.0.31: name -> fields of `SwinTransformerV2` that differ; the family's record."""

import re
from dataclasses import replace
from typing import Any

from jaxvit.models import swin_variants
from jaxvit.models.hf_model import Config, HfModel
from jaxvit.models.layouts import HF_TRANSFORMER, Layout, Table, Tensors, fuse_qkv
from jaxvit.models.swin_v2 import SwinTransformerV2, check_fields

_SMALL = {"depths": (2, 2, 18, 2)}
_BASE = {"embed_dim": 128, "num_heads": (4, 8, 16, 32), **_SMALL}
_LARGE = {"embed_dim": 192, "num_heads": (6, 12, 24, 48), **_SMALL}
_22K = {"window_size": 12, "image_size": 192, "num_classes": 21841}
_LEARNT = {"pretrained_window_sizes": (12, 12, 12, 6)}
_TO_16, _TO_24 = {**_LEARNT, "window_size": 16}, {**_LEARNT, "window_size": 24, "image_size": 384}

# Liu et al., 2022, "Swin Transformer V2: Scaling Up Capacity and Resolution"
VARIANTS: dict[str, dict[str, Any]] = {
    "swinv2_tiny_window8_256": {},
    "swinv2_tiny_window16_256": {"window_size": 16},
    "swinv2_small_window8_256": _SMALL,
    "swinv2_small_window16_256": {**_SMALL, "window_size": 16},
    "swinv2_base_window8_256": _BASE,
    "swinv2_base_window16_256": {**_BASE, "window_size": 16},
    "swinv2_base_window12_192": {**_BASE, **_22K},
    "swinv2_base_window12to16_192to256": {**_BASE, **_TO_16},
    "swinv2_base_window12to24_192to384": {**_BASE, **_TO_24},
    "swinv2_large_window12_192": {**_LARGE, **_22K},
    "swinv2_large_window12to16_192to256": {**_LARGE, **_TO_16},
    "swinv2_large_window12to24_192to384": {**_LARGE, **_TO_24},
}

HF_SWINV2: Table = (
    (r"^swinv2\.", ""),
    (r"\.attention\.self\.logit_scale$", ".attn.logit_scale"),
    (r"\.attention\.self\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."),
    (r"\.relative_coords_table$", None),
    *HF_TRANSFORMER,
)


def _separate_biases(tensors: Tensors) -> Tensors:
    """Queries, keys and values joined; their biases, of which keys have none, stay apart."""
    return {re.sub(r"\.attn\.([qv])\.bias$", r".attn.\1_bias", name): a for name, a in fuse_qkv(tensors).items()}


def _transformers(config: Config) -> dict[str, Any]:
    return {
        **swin_variants.transformers(config),
        "pretrained_window_sizes": config.get("pretrained_window_sizes", [0, 0, 0, 0]),
    }


# As Swin's, but for what is named here.
FAMILY = replace(
    swin_variants.FAMILY,
    name="swinv2",
    model=SwinTransformerV2,
    variants=VARIANTS,
    timm_modules=("swin_transformer_v2",),
    check=check_fields,
    decays=r"(?!.*/cpb_mlp_).*kernel$",
    mark=r"^layers\.0\.blocks\.0\.attn\.logit_scale$",
    buffers=(r"\.relative_position_index$", r"\.relative_coords_table$", r"\.attn_mask$", r"\.k_bias$"),
    layouts=(
        Layout(r"\.continuous_position_bias_mlp\.", HF_SWINV2, _separate_biases, transformers=True),
        *swin_variants.RELEASES,
    ),
    window_tables=None,  # the bias is computed
    transformers={"swinv2": HfModel("swinv2_tiny_window8_256", _transformers)},
    transformers_fields={"num_heads": "num_heads", "pretrained_window_sizes": "pretrained_window_sizes"},
    timm_args=(*swin_variants.FAMILY.timm_args, "act_layer", "pretrained_window_sizes"),
)
