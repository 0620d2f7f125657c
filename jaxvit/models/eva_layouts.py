"""The layouts in which weights of EVA and its relatives are found, in addition to timm's."""

import numpy as np

from jaxvit.models.layouts import Layout, Table, Tensors, fuse_qkv

# SwiGLU of EVA-02, DINOv3 and Sapiens2: gate and value in one matrix or apart, then the way out.
SWIGLU: Table = (
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
# EVA-02 as BAAI released it.
EVA02: Table = ((r"\.mlp\.ffn_ln\.", ".mlp.norm."), (r"\.attn\.inner_attn_ln\.", ".attn.norm."), *SWIGLU)
UNFUSED: Table = ((r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),)
# After masked pretraining: the last norm is taken for that after pooling, as timm does it.
MASKED: Table = ((r"^mask_token$|^lm_head\.", None), (r"^norm\.", "fc_norm."))
# DINOv3, EUPE and LingBot-Vision as they were released.
DINOV3: Table = (
    (r"\.periods$|\.bias_mask$|^mask_token$|^projectors\.|^local_cls_norm", None),
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    *SWIGLU,
)
SAPIENS2: Table = (
    (r"^mask_token$", None),
    (r"^storage_tokens$", "reg_token"),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.attn\.w([qkv])\.", r".attn.\1_proj."),
    (r"\.attn\.gamma\.weight$", ".gamma_1"),
    (r"\.ffn\.", ".mlp."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"^ln1\.", "norm."),
    *SWIGLU,
)
# DINOv3 in Transformers.
HF_DINOV3: Table = (
    (r"^embeddings\.mask_token$|^rope_embeddings\.", None),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^((model|encoder)\.)?layer\.", "blocks."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
# RoPE ViTs as Naver released them; the places of patches are computed.
NAVER: Table = ((r"^freqs$", "rope.freqs"), (r"^freqs_t_[xy]$", None))
# The image tower of a Perception Encoder, alone and within CLIP.
PE_CLIP: Table = ((r"^(?!visual\.)", None), (r"^visual\.", ""))
PE: Table = (
    (r"^attn_pool\.attn\.", "attn_pool."),
    (r"^attn_pool\.layernorm\.", "attn_pool.norm."),
    (r"^attn_pool\.probe$", "attn_pool.latent"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ls_([12])\.gamma$", r".gamma_\1"),
    (r"\.in_proj_", ".qkv."),
    (r"\.out_proj\.", ".proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^proj$", "head.weight"),
)


def _split_bias(tensors: Tensors) -> Tensors:
    """Meta's joint bias of queries, keys and values; that of the keys is masked out."""
    found: Tensors = {}
    for name, array in tensors.items():
        start = name.removesuffix("qkv.bias")
        if start == name or len(array) % 3:
            found[name] = array
        else:
            found[f"{start}q_bias"], _, found[f"{start}v_bias"] = np.split(array, 3)
    return found


def _transformers(tensors: Tensors) -> Tensors:
    """One matrix for queries, keys and values, whose biases have names of their own; `up_proj` is the value or all."""
    gated = any(".mlp.fc1_g." in name for name in tensors)
    found: Tensors = {}
    for name, array in fuse_qkv(tensors).items():
        if name == "reg_token" and array.ndim == 3 and not array.shape[1]:
            continue  # no registers
        for part in "qv":
            name = name.replace(f".attn.{part}.bias", f".attn.{part}_bias")
        found[name.replace(".mlp.up_proj.", ".mlp.fc1_x." if gated else ".mlp.fc1.")] = array
    return found


def _frequencies(tensors: Tensors) -> Tensors:
    """Learnt frequencies [2, depth, heads * hd/2] of heads of 64 channels, as all of Naver's models have them."""
    freqs = tensors.get("rope.freqs")
    if freqs is not None and freqs.ndim == 3 and freqs.shape[-1] % 32 == 0:
        tensors |= {"rope.freqs": freqs.reshape(*freqs.shape[:2], -1, 32)}
    return tensors


def _perception(tensors: Tensors) -> Tensors:
    """Leading axes, the pool's query apart from its keys and values, and a projection for a classifier."""
    added = {"cls_token": (None, None), "pos_embed": (None,)}
    found: Tensors = {}
    for name, array in tensors.items():
        leaf = name.removeprefix("attn_pool.qkv.")
        if leaf != name and len(array) % 3 == 0:
            q, k, v = np.split(array, 3)
            found |= {f"attn_pool.q.{leaf}": q, f"attn_pool.kv.{leaf}": np.concatenate([k, v])}
        else:
            found[name] = array[added[name]] if name in added else array
    if (head := found.get("head.weight")) is not None and head.ndim == 2:
        found |= {"head.weight": head.T, "head.bias": np.zeros(head.shape[1], np.float32)}
    return found


LAYOUTS = (
    Layout(r"^embeddings\.patch_embeddings\.weight$", HF_DINOV3, _transformers, transformers=True),
    Layout(r"^visual\.conv1\.weight$", PE_CLIP),
    Layout(r"^conv1\.weight$", PE, _perception),
    Layout(r"^blocks\.0\.attn\.wq\.weight$", SAPIENS2),
    Layout(r"^storage_tokens$", DINOV3, _split_bias),
    Layout(r"^freqs$", NAVER, _frequencies),
    Layout(r"\.mlp\.w(12|3)\.|\.inner_attn_ln\.", EVA02),
    Layout(r"^blocks\.0\.attn\.q_proj\.weight$", UNFUSED),
    Layout(r"^mask_token$|^lm_head\.weight$", MASKED),
)
