"""EVA and its relatives by timm's names: what each entry point and its default weights fix (timm 1.0.31).

Only fields that differ from those of `Eva`; `num_classes=0` are weights without a classifier, of which most are.
"""

from typing import Any

Fields = dict[str, Any]

# Widths: token width, blocks, heads; 12 blocks unless said.
_TINY: Fields = {"embed_dim": 192, "num_heads": 3}
_SMALL: Fields = {"embed_dim": 384, "num_heads": 6}
_MEDIUM: Fields = {"embed_dim": 512, "num_heads": 8}
_BETWIXT: Fields = {"embed_dim": 640, "num_heads": 10}
_BASE: Fields = {"embed_dim": 768, "num_heads": 12}
_LARGE: Fields = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_HUGE: Fields = {"embed_dim": 1280, "depth": 32, "num_heads": 20}
_GIANT: Fields = {"embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 6144 / 1408}
_ENORMOUS: Fields = {"embed_dim": 1792, "depth": 64, "num_heads": 16, "mlp_ratio": 15360 / 1792}
_GIANT2: Fields = {"embed_dim": 1536, "depth": 40, "num_heads": 24}
_GIGANTIC: Fields = {"embed_dim": 1536, "depth": 50, "num_heads": 16, "mlp_ratio": 8960 / 1536}
_7B: Fields = {"embed_dim": 4096, "depth": 40, "num_heads": 32, "mlp_ratio": 2.0}

# Kinds: what the members of a series share.
_EVA02: Fields = {
    "mlp_ratio": 4 * 2 / 3,
    "swiglu_mlp": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (16, 16),  # 224 / 14
}
_SUBLN: Fields = _EVA02 | {"qkv_fused": False, "scale_mlp": True}  # from the size of a base model up
_EVA02_CLIP: Fields = _SUBLN | {"scale_attn_inner": True, "global_pool": "token"}
_GAP: Fields = {
    "init_values": 1e-5,
    "class_token": False,
    "use_rot_pos_emb": True,
    "use_abs_pos_emb": False,
    "ref_feat_shape": (16, 16),
}
_PE: Fields = {
    "attn_type": "rope",
    "use_pre_transformer_norm": True,
    "use_rot_pos_emb": True,
    "rope_grid_offset": 1.0,
    "rope_grid_indexing": "xy",
    "norm_eps": 1e-5,
}
_PE_CORE: Fields = _PE | {"global_pool": "map", "attn_pool_num_heads": 8, "attn_pool_mlp_ratio": 4.0}
_PE_PLAIN: Fields = _PE | {"use_post_transformer_norm": False, "use_fc_norm": False}  # language, spatial
_PE_NO_CLASS: Fields = {"class_token": False, "rope_grid_offset": 0.0}
_ROPE: Fields = {
    "attn_type": "rope",
    "init_values": 1e-5,
    "global_pool": "token",
    "use_abs_pos_emb": False,
    "use_rot_pos_emb": True,
    "rope_grid_indexing": "xy",
    "rope_temperature": 100.0,
}
_MIXED: Fields = _ROPE | {"rope_type": "mixed", "rope_temperature": 10.0}
_APE: Fields = {"use_abs_pos_emb": True, "no_embed_class": True}
_DINOV3: Fields = {
    "qkv_bias": False,
    "init_values": 1e-5,
    "dynamic_img_size": True,
    "rope_type": "dinov3",
    "rope_temperature": 100.0,
    "rope_rotate_half": True,
    "use_rot_pos_emb": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 4,
    "use_fc_norm": False,
    "norm_eps": 1e-5,
}
_QKVB: Fields = _DINOV3 | {"qkv_bias": True}
_PLUS: Fields = {"swiglu_mlp": True, "swiglu_align_to": 8}
_LINGBOT: Fields = _QKVB | {"global_pool": "token"}
_SAPIENS2: Fields = _QKVB | {
    "attn_type": "rope",
    "qkv_fused": False,
    "qk_norm": True,
    "global_pool": "token",
    "swiglu_mlp": True,
    "init_values": 1.0,
    "attn_only_layer_scale": True,
    "rope_rescale_coords": 2.0,
    "num_reg_tokens": 8,
    "norm_layer": "rmsnorm",
    "norm_eps": 1e-6,
}


def _vit(width: Fields, patch_size: int, image_size: Any, num_classes: int, kind: Fields, **fields: Any) -> Fields:
    sizes = {"patch_size": patch_size, "image_size": image_size, "num_classes": num_classes}
    return sizes | width | kind | fields


def _sapiens2(width: Fields, depth: int) -> Fields:
    """Of the inner blocks two heads share their keys and values, but for the eight at each end."""
    heads = width["num_heads"]
    shared = tuple(heads if i < 8 or i >= depth - 8 else heads // 2 for i in range(depth))
    return _vit(width, 16, (1024, 768), 0, _SAPIENS2, depth=depth, num_kv_heads=shared)


# name: width, patch size, image size, classes (0: features only), the kind, the rest
VARIANTS: dict[str, Fields] = {
    # EVA: Fang et al., 2022; Sun et al., 2023 (CLIP)
    "eva_giant_patch14_224": _vit(_GIANT, 14, 224, 1000, {}),
    "eva_giant_patch14_336": _vit(_GIANT, 14, 336, 1000, {}),
    "eva_giant_patch14_560": _vit(_GIANT, 14, 560, 1000, {}),
    "eva_giant_patch14_clip_224": _vit(_GIANT, 14, 224, 1024, {}, global_pool="token"),
    # EVA-02: Fang et al., 2023; Sun et al., 2023 (CLIP)
    "eva02_tiny_patch14_224": _vit(_TINY, 14, 224, 0, _EVA02),
    "eva02_small_patch14_224": _vit(_SMALL, 14, 224, 0, _EVA02),
    "eva02_base_patch14_224": _vit(_BASE, 14, 224, 0, _SUBLN),
    "eva02_large_patch14_224": _vit(_LARGE, 14, 224, 0, _SUBLN),
    "eva02_tiny_patch14_336": _vit(_TINY, 14, 336, 1000, _EVA02),
    "eva02_small_patch14_336": _vit(_SMALL, 14, 336, 1000, _EVA02),
    "eva02_base_patch14_448": _vit(_BASE, 14, 448, 1000, _SUBLN),
    "eva02_large_patch14_448": _vit(_LARGE, 14, 448, 1000, _SUBLN),
    "eva02_base_patch16_clip_224": _vit(_BASE, 16, 224, 512, _EVA02_CLIP),
    "eva02_large_patch14_clip_224": _vit(_LARGE, 14, 224, 768, _EVA02_CLIP),
    "eva02_large_patch14_clip_336": _vit(_LARGE, 14, 336, 768, _EVA02_CLIP),
    "eva02_enormous_patch14_clip_224": _vit(_ENORMOUS, 14, 224, 1024, {}, use_post_norm=True, global_pool="token"),
    # timm's own
    "vit_medium_patch16_rope_reg1_gap_256": _vit(_MEDIUM, 16, 256, 1000, _GAP, num_reg_tokens=1),
    "vit_mediumd_patch16_rope_reg1_gap_256": _vit(
        _MEDIUM, 16, 256, 1000, _GAP, num_reg_tokens=1, depth=20, qkv_bias=False
    ),
    "vit_betwixt_patch16_rope_reg4_gap_256": _vit(_BETWIXT, 16, 256, 1000, _GAP, num_reg_tokens=4),
    "vit_base_patch16_rope_reg1_gap_256": _vit(_BASE, 16, 256, 1000, _GAP, num_reg_tokens=1),
    # Perception Encoder: Bolya et al., 2025
    "vit_pe_core_tiny_patch16_384": _vit(_TINY, 16, 384, 512, _PE_CORE, ref_feat_shape=(24, 24)),
    "vit_pe_core_small_patch16_384": _vit(_SMALL, 16, 384, 512, _PE_CORE, ref_feat_shape=(24, 24)),
    "vit_pe_core_base_patch16_224": _vit(_BASE, 16, 224, 1024, _PE_CORE, ref_feat_shape=(14, 14)),
    "vit_pe_core_large_patch14_336": _vit(_LARGE, 14, 336, 1024, _PE_CORE, ref_feat_shape=(24, 24)),
    "vit_pe_core_gigantic_patch14_448": _vit(
        _GIGANTIC, 14, 448, 1280, _PE_CORE | _PE_NO_CLASS, ref_feat_shape=(32, 32)
    ),
    "vit_pe_lang_large_patch14_448": _vit(
        _LARGE, 14, 448, 0, _PE_PLAIN, ref_feat_shape=(32, 32), depth=23, init_values=0.1
    ),
    "vit_pe_lang_gigantic_patch14_448": _vit(
        _GIGANTIC, 14, 448, 0, _PE_PLAIN | _PE_NO_CLASS, ref_feat_shape=(32, 32), depth=47, init_values=0.1
    ),
    "vit_pe_spatial_tiny_patch16_512": _vit(_TINY, 16, 512, 0, _PE_PLAIN, ref_feat_shape=(32, 32)),
    "vit_pe_spatial_small_patch16_512": _vit(_SMALL, 16, 512, 0, _PE_PLAIN, ref_feat_shape=(32, 32)),
    "vit_pe_spatial_base_patch16_512": _vit(_BASE, 16, 512, 0, _PE_PLAIN, ref_feat_shape=(32, 32)),
    "vit_pe_spatial_large_patch14_448": _vit(_LARGE, 14, 448, 0, _PE_PLAIN, ref_feat_shape=(32, 32)),
    "vit_pe_spatial_gigantic_patch14_448": _vit(
        _GIGANTIC, 14, 448, 0, _PE_PLAIN | _PE_NO_CLASS, ref_feat_shape=(32, 32), init_values=0.1
    ),
    # RoPE ViTs: Heo et al., 2024
    "vit_small_patch16_rope_224": _vit(_SMALL, 16, 224, 1000, _ROPE),
    "vit_base_patch16_rope_224": _vit(_BASE, 16, 224, 1000, _ROPE, use_fc_norm=False),
    "vit_large_patch16_rope_224": _vit(_LARGE, 16, 224, 1000, _ROPE),
    "vit_small_patch16_rope_mixed_224": _vit(_SMALL, 16, 224, 1000, _MIXED),
    "vit_base_patch16_rope_mixed_224": _vit(_BASE, 16, 224, 1000, _MIXED),
    "vit_large_patch16_rope_mixed_224": _vit(_LARGE, 16, 224, 1000, _MIXED),
    "vit_small_patch16_rope_ape_224": _vit(_SMALL, 16, 224, 1000, _ROPE | _APE),
    "vit_base_patch16_rope_ape_224": _vit(_BASE, 16, 224, 1000, _ROPE | _APE),
    "vit_large_patch16_rope_ape_224": _vit(_LARGE, 16, 224, 1000, _ROPE | _APE),
    "vit_small_patch16_rope_mixed_ape_224": _vit(_SMALL, 16, 224, 1000, _MIXED | _APE),
    "vit_base_patch16_rope_mixed_ape_224": _vit(_BASE, 16, 224, 1000, _MIXED | _APE),
    "vit_large_patch16_rope_mixed_ape_224": _vit(_LARGE, 16, 224, 1000, _MIXED | _APE),
    # DINOv3: Simeoni et al., 2025; with biases of queries and values, which most of Meta's files have as zeros
    "vit_tiny_patch16_dinov3_qkvb": _vit(_TINY, 16, 256, 0, _QKVB),
    "vit_small_patch16_dinov3": _vit(_SMALL, 16, 256, 0, _DINOV3),
    "vit_small_patch16_dinov3_qkvb": _vit(_SMALL, 16, 256, 0, _QKVB),
    "vit_small_plus_patch16_dinov3": _vit(_SMALL, 16, 256, 0, _DINOV3 | _PLUS),
    "vit_small_plus_patch16_dinov3_qkvb": _vit(_SMALL, 16, 256, 0, _QKVB | _PLUS),
    "vit_base_patch16_dinov3": _vit(_BASE, 16, 256, 0, _DINOV3),
    "vit_base_patch16_dinov3_qkvb": _vit(_BASE, 16, 256, 0, _QKVB),
    "vit_large_patch16_dinov3": _vit(_LARGE, 16, 256, 0, _DINOV3),
    "vit_large_patch16_dinov3_qkvb": _vit(_LARGE, 16, 256, 0, _QKVB),
    "vit_huge_plus_patch16_dinov3": _vit(_HUGE, 16, 256, 0, _DINOV3 | _PLUS),
    "vit_huge_plus_patch16_dinov3_qkvb": _vit(_HUGE, 16, 256, 0, _QKVB | _PLUS),
    "vit_7b_patch16_dinov3": _vit(_7B, 16, 256, 0, _DINOV3, swiglu_mlp=True, swiglu_align_to=64),
    # LingBot-Vision: Fu et al., 2026
    "vit_small_patch16_lingbot": _vit(_SMALL, 16, 512, 0, _LINGBOT),
    "vit_base_patch16_lingbot": _vit(_BASE, 16, 512, 0, _LINGBOT),
    "vit_large_patch16_lingbot": _vit(_LARGE, 16, 512, 0, _LINGBOT),
    "vit_giant_patch16_lingbot": _vit(_GIANT2, 16, 512, 0, _LINGBOT | _PLUS | {"mlp_ratio": 4 * 2 / 3}, qkv_bias=False),
    # Sapiens2: Khirodkar et al., 2026
    "vit_base_patch16_sapiens2": _sapiens2(_BASE, 12),
    "vit_large_patch16_sapiens2": _sapiens2(_LARGE, 24),
    "vit_huge_patch16_sapiens2": _sapiens2({"embed_dim": 1280, "num_heads": 16}, 32),
    "vit_giant_patch16_sapiens2": _sapiens2(_GIANT2, 40),
    "vit_5b_patch16_sapiens2": _sapiens2({"embed_dim": 2432, "num_heads": 32}, 56),
}
