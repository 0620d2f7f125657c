"""Other layouts of a family's weights, as other libraries and first releases have them: how they become timm's."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxvit.errors import UserError

Tensors = dict[str, np.ndarray]

# (pattern, replacement), every row tried in order on every name. A replacement None drops the tensor.
Table = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """A layout is recognised by a name that `mark` finds; `table` renames it, `finish` does what names cannot."""

    mark: str
    table: Table = ()
    finish: Callable[[Tensors], Tensors] = lambda tensors: tensors
    resampling: str | None = None  # as `Family.resampling`, whatever the variant
    crops: bool = False  # positions at another size: a square, cut from its upper left
    transformers: bool = False  # that of Hugging Face Transformers, whose config.json says what tensors do not show


def rename(tensors: Tensors, table: Table) -> Tensors:
    """Applies every row of a table to every name; rows with None drop the tensor."""
    renamed: Tensors = {}
    for name, array in tensors.items():
        for pattern, replacement in table:
            if replacement is None and re.search(pattern, name):
                break
            if replacement is not None:
                name = re.sub(pattern, replacement, name)
        else:
            if name in renamed:
                raise UserError(f"two tensors of the checkpoint both mean {name!r}; expected one.")
            renamed[name] = array
    return renamed


def fuse_qkv(tensors: Tensors) -> Tensors:
    """Joins attn.q, attn.k and attn.v, each [d, d] or [d], into attn.qkv along the first axis."""
    fused: Tensors = {}
    for name, array in tensors.items():
        match = re.fullmatch(r"(.*\.attn)\.([qkv])\.(weight|bias)", name)
        parts = [tensors.get(f"{match[1]}.{part}.{match[3]}") for part in "qkv"] if match else []
        whole = [part for part in parts if part is not None]
        if not match or len(whole) < 3 or len({part.shape[1:] for part in whole}) > 1 or array.ndim == 0:
            fused[name] = array
        elif match[2] == "q":
            fused[f"{match[1]}.qkv.{match[3]}"] = np.concatenate(whole)
    return fused


# Transformers' names of a ViT and of a Swin.
HF_TRANSFORMER: Table = (
    (r"^(vit|deit|swin|dinov2|dinov2_with_registers)\.", ""),
    (r"^decoder\.", None),  # of masked autoencoders
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^embeddings\.mask_token$", None),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^pooler\.", None),
    (r"\.relative_position_index$", None),
    (r"^(encoder\.layer|layers)\.(\d+)\.(?!blocks|downsample)", r"blocks.\2."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.attention\.(?:attention\.|self\.)?(?:query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(?:attention\.|self\.)?(?:key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(?:attention\.|self\.)?(?:value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.\w+\.relative_position_bias_table$", ".attn.relative_position_bias_table"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    (r"^distillation_classifier\.", "head_dist."),
    (r"^(cls_)?classifier\.", "head."),
)
