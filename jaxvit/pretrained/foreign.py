"""Other layouts of the same weights, recognised by marker keys and renamed to timm's: tables, then two small steps."""

import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.family import Family
from jaxvit.pretrained.google import fuse_qkv, google_vit

Tensors = dict[str, np.ndarray]

# Each table: (pattern, replacement), every row tried in order on every name. A replacement None drops the tensor.
Table = tuple[tuple[str, str | None], ...]

HF_TRANSFORMER: Table = (
    (r"^(vit|deit|swin|dinov2|dinov2_with_registers)\.", ""),
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
HF_RESNET: Table = (
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
    *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
    *((rf"^encoder\.stages\.{i}\.layers\.", f"layer{i + 1}.") for i in range(4)),
    (r"^classifier\.1\.", "fc."),
)
# torchvision's hidden layers are dense; timm's are convolutions (reshaped below).
TORCHVISION_VGG: Table = (
    (r"^classifier\.0\.", "pre_logits.fc1."),
    (r"^classifier\.3\.", "pre_logits.fc2."),
    (r"^classifier\.6\.", "head.fc."),
)
DEIT3: Table = ((r"\.gamma_([12])$", r".ls\1.gamma"),)
DINOV2: Table = ((r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))
# CLIP as OpenAI and OpenCLIP save it: the image tower alone.
CLIP: Table = (
    (r"^(?!visual\.)", None),
    (r"^visual\.", ""),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^proj$", "head.weight"),
)
AIMV2: Table = (
    (r"^preprocessor\.patchifier\.", "patch_embed."),
    (r"^preprocessor\.pos_embed$", "pos_embed"),
    (r"^trunk\.", ""),
    (r"^post_trunk_norm\.", "norm."),
    (r"\.norm_([12])\.", r".norm\1."),
    (r"\.mlp\.fc1\.", ".mlp.fc1_g."),
    (r"\.mlp\.fc3\.", ".mlp.fc1_x."),
)
# The image branch (A) of a network that also reads text (B).
BEIT3: Table = (
    (r"^(?!beit3\.|fc_norm\.|head\.)", None),
    (r"\.B\.", None),
    (r"^beit3\.(text_embed\.weight|vision_embed\.mask_token)$", None),
    (r"^beit3\.", ""),
    (r"\.A\.", "."),
    (r"^vision_embed\.cls_token$", "cls_token"),
    (r"^vision_embed\.", "patch_embed."),
    (r"^encoder\.embed_positions\.weight$", "pos_embed"),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.inner_attn_ln\.", ".attn.norm."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"\.ffn\.ffn_layernorm\.", ".mlp.norm."),
    (r"\.ffn\.", ".mlp."),
)
# Without the conditioner of the images and the heads of the teachers.
RADIO_PATCHES = "radio_model.model.patch_generator."
RADIO: Table = (
    (r"^(?!radio_model\.model\.(blocks\.|patch_generator\.(embedder\.weight|pos_embed|cls_token\.token)$))", None),
    (r"^radio_model\.model\.", ""),
    (r"^patch_generator\.embedder\.", "patch_embed.proj."),
    (r"^patch_generator\.pos_embed$", "pos_embed"),
    (r"^patch_generator\.cls_token\.token$", "tokens"),
    (r"\.grandma$", ".gamma"),
)
TIPS: Table = ((r"^(?!vision_encoder\.)", None), (r"^vision_encoder\.", ""), (r"^mask_token$", None))


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


def shift_downsample(tensors: Tensors) -> Tensors:
    """Swin's first layout: the patch merging ends a stage there and begins the next one in timm."""
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name): array
        for name, array in tensors.items()
    }


def _swin(tensors: Tensors) -> Tensors:
    if "embeddings.patch_embeddings.projection.weight" in {name.removeprefix("swin.") for name in tensors}:
        tensors = fuse_qkv(rename(tensors, HF_TRANSFORMER))
    if any(name.startswith("layers.0.downsample.") for name in tensors):
        tensors = shift_downsample(tensors)
    return rename(tensors, ((r"^head\.(weight|bias)$", r"head.fc.\1"),))


def _vit(tensors: Tensors) -> Tensors:
    if any(name.endswith("embedding/kernel") for name in tensors):
        return google_vit(tensors)
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in tensors):
        tensors = fuse_qkv(rename(tensors, HF_TRANSFORMER))
    if "visual.class_embedding" in tensors:
        tensors = _clip(rename(tensors, CLIP))
    if "preprocessor.patchifier.proj.weight" in tensors:
        tensors = rename(tensors, AIMV2)
    if any(name.startswith("beit3.") for name in tensors):
        tensors = _beit3(rename(tensors, BEIT3))
    if f"{RADIO_PATCHES}embedder.weight" in tensors:
        tensors = _radio(rename(tensors, RADIO))
    if "vision_encoder.mask_token" in tensors:
        tensors = rename(tensors, TIPS)
    if "register_tokens" in tensors:
        tensors = _registers(tensors)
    return rename(tensors, DEIT3 + DINOV2)


def _clip(tensors: Tensors) -> Tensors:
    """CLIP's tables and tokens lack the leading axes, its projection is a classifier without bias: [d, n]."""
    added = {"cls_token": (None, None), "pos_embed": (None,)}
    tensors = {name: array[added[name]] if name in added else array for name, array in tensors.items()}
    if (head := tensors.get("head.weight")) is not None and head.ndim == 2:
        tensors |= {"head.weight": head.T, "head.bias": np.zeros(head.shape[1], np.float32)}
    return tensors


def _beit3(tensors: Tensors) -> Tensors:
    """BEiT-3's position table is fairseq's, whose first two entries stand for padding."""
    table = tensors.get("pos_embed")
    if table is not None and table.ndim == 2:
        tensors |= {"pos_embed": table[None, 2:]}
    return fuse_qkv(tensors)


def _radio(tensors: Tensors) -> Tensors:
    """RADIO's patches are flat and have no bias; its first token is the class token, the others are registers."""
    kernel, tokens = tensors.get("patch_embed.proj.weight"), tensors.pop("tokens", None)
    if kernel is not None and kernel.ndim == 2:
        side = math.isqrt(kernel.shape[1] // 3)
        kernel = kernel.reshape(len(kernel), 3, side, side)
    if kernel is not None:
        bias = np.zeros(kernel.shape[:1], np.float32)
        tensors |= {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": bias}
    if tokens is not None:
        tensors |= {"cls_token": tokens[None, :1], "reg_token": tokens[None, 1:]}
    return tensors


def _registers(tensors: Tensors) -> Tensors:
    """DINOv2 with registers: timm has no position for the class token, so it is added to the token itself."""
    tensors = dict(tensors)
    tensors["reg_token"] = tensors.pop("register_tokens")
    table, token = tensors.get("pos_embed"), tensors.get("cls_token")
    if table is not None and token is not None and table.ndim == 3:
        tensors |= {"cls_token": token + table[:, :1], "pos_embed": table[:, 1:]}
    return tensors


def _resnet(tensors: Tensors) -> Tensors:
    if any(name.endswith("embedder.embedder.convolution.weight") for name in tensors):
        return rename(tensors, HF_RESNET)
    return tensors


def _vgg(tensors: Tensors) -> Tensors:
    first, second = tensors.get("classifier.0.weight"), tensors.get("classifier.3.weight")
    renamed = rename(tensors, TORCHVISION_VGG)
    if first is not None and first.ndim == 2 and first.shape[1] % 49 == 0:
        renamed["pre_logits.fc1.weight"] = first.reshape(first.shape[0], -1, 7, 7)
    if second is not None and second.ndim == 2:
        renamed["pre_logits.fc2.weight"] = second[:, :, None, None]
    return renamed


LAYOUTS: dict[str, Callable[[Tensors], Tensors]] = {
    "resnet": _resnet,
    "swin": _swin,
    "vgg": _vgg,
    "vit": _vit,
}


def to_timm(family: Family, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Renames any known layout of the family to timm's; names that no table knows are left as they are."""
    return LAYOUTS.get(family.name, lambda same: same)(dict(tensors))
