"""The layouts in which weights of Vision Transformers are found, in addition to timm's."""

import math

import numpy as np

from jaxvit.errors import UserError
from jaxvit.models.layouts import HF_TRANSFORMER, Layout, Table, Tensors, fuse_qkv
from jaxvit.models.vit_google import google_vit

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
# The image tower of CLIP and SigLIP in Transformers.
HF_CLIP: Table = (
    (r"^(text_model|text_projection|logit_scale|logit_bias)\b", None),
    (r"\bposition_ids$", None),
    (r"^vision_model\.", ""),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"^visual_projection\.", "head."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_", "attn_pool.qkv."),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
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
RADIO: Table = (
    (r"^(?!radio_model\.model\.(blocks\.|patch_generator\.(embedder\.weight|pos_embed|cls_token\.token)$))", None),
    (r"^radio_model\.model\.", ""),
    (r"^patch_generator\.embedder\.", "patch_embed.proj."),
    (r"^patch_generator\.pos_embed$", "pos_embed"),
    (r"^patch_generator\.cls_token\.token$", "tokens"),
    (r"\.grandma$", ".gamma"),
)
# Relative positions of BEiT and data2vec: of each block or of all, in Microsoft's, timm's and Transformers' names.
BEIT = (
    r"(^|(?<!\d)\.)blocks\.\d+\.attn\.relative_position_bias_table$|\brel_pos_bias\.relative_position_bias_table$|"
    r"\b(layer|layers)\.\d+\.(attention\.attention\.)?relative_position_bias\.|"
    r"\bencoder\.relative_position_bias\.|\bshared_position_bias\."
)
TIPS: Table = ((r"^(?!vision_encoder\.)", None), (r"^vision_encoder\.", ""), (r"^mask_token$", None))


def _clip(tensors: Tensors) -> Tensors:
    """CLIP's tables and tokens lack the leading axes, its projection is a classifier without bias: [d, n]."""
    added = {"cls_token": (None, None), "pos_embed": (None,)}
    tensors = {name: array[added[name]] if name in added else array for name, array in tensors.items()}
    if (head := tensors.get("head.weight")) is not None and head.ndim == 2:
        tensors |= {"head.weight": head.T, "head.bias": np.zeros(head.shape[1], np.float32)}
    return tensors


def _hf_clip(tensors: Tensors) -> Tensors:
    """The same in Transformers; the query of SigLIP's pool is apart from its keys and values in timm."""
    found: Tensors = {}
    for name, array in fuse_qkv(tensors).items():
        leaf = name.removeprefix("attn_pool.qkv.")
        if leaf != name and len(array) % 3 == 0:
            q, k, v = np.split(array, 3)
            found |= {f"attn_pool.q.{leaf}": q, f"attn_pool.kv.{leaf}": np.concatenate([k, v])}
        else:
            axes = {"cls_token": (None, None), "pos_embed": (None,)}.get(name)
            found[name] = array if axes is None else array[axes]
    if (head := found.get("head.weight")) is not None and "head.bias" not in found:
        found["head.bias"] = np.zeros(head.shape[:1], np.float32)
    return found


def _beit(tensors: Tensors) -> Tensors:
    raise UserError(
        "these are weights of a BEiT or data2vec, whose attention needs a bias for the relative positions of all "
        "patches; no model here has one.\nExpected weights of another model, such as 'eva02_base_patch14_224'."
    )


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


LAYOUTS = (
    Layout(r"embedding/kernel$", finish=google_vit, resampling="bilinear"),
    Layout(BEIT, finish=_beit),
    Layout(r"embeddings\.patch_embeddings\.projection\.weight$", HF_TRANSFORMER, fuse_qkv, transformers=True),
    Layout(r"^(vision_model\.)?embeddings\.patch_embedding\.weight$", HF_CLIP, _hf_clip, transformers=True),
    Layout(r"^visual\.class_embedding$", CLIP, _clip),
    Layout(r"^preprocessor\.patchifier\.proj\.weight$", AIMV2),
    Layout(r"^beit3\.", BEIT3, _beit3),
    Layout(r"^radio_model\.model\.patch_generator\.embedder\.weight$", RADIO, _radio, crops=True),
    Layout(r"^vision_encoder\.mask_token$", TIPS),
    Layout(r"^blocks\.0\.0\.norm1\.weight$", ((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),)),  # DINOv2 in training
    Layout(r"^register_tokens$", finish=_registers),
    Layout(r"\.gamma_[12]$", DEIT3),
    Layout(r"\.mlp\.w(12|3)\.", DINOV2),
)
