"""Vision transformers by timm's names: what each entry point and its default weights fix (timm 1.0.31).

Only fields that differ from those of `VisionTransformer`; 512 to 1280 classes are the text widths of CLIP models.
"""

from typing import Any

Fields = dict[str, Any]

# Widths: token width, blocks, heads (and the width of the perceptron), 12 blocks unless said.
_TINY: Fields = {"embed_dim": 192, "num_heads": 3}
_SMALL: Fields = {"embed_dim": 384, "num_heads": 6}
_MEDIUM: Fields = {"embed_dim": 512, "num_heads": 8}
_BETWIXT: Fields = {"embed_dim": 640, "num_heads": 10}
_BASE: Fields = {"embed_dim": 768, "depth": 12, "num_heads": 12}
_PLUS: Fields = {"embed_dim": 896, "num_heads": 14}
_LARGE: Fields = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_HUGE: Fields = {"embed_dim": 1280, "depth": 32, "num_heads": 16}
_GIANT: Fields = {"embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11}
_GIGANTIC: Fields = {"embed_dim": 1664, "depth": 48, "num_heads": 16, "mlp_ratio": 64 / 13}
_GIANT2: Fields = {"embed_dim": 1536, "depth": 40, "num_heads": 24}
_GIANTOPT: Fields = {"embed_dim": 1536, "depth": 40, "num_heads": 16}
_SO400M: Fields = {"embed_dim": 1152, "depth": 27, "num_heads": 16, "mlp_ratio": 3.7362}
_SO150M: Fields = {"embed_dim": 896, "depth": 18, "num_heads": 14, "mlp_ratio": 2.572}
_SO150M2: Fields = {"embed_dim": 832, "depth": 21, "num_heads": 13, "mlp_ratio": 34 / 13}
_WEE: Fields = {"embed_dim": 256, "depth": 14, "num_heads": 4, "mlp_ratio": 5.0}
_PWEE: Fields = {"embed_dim": 256, "depth": 16, "num_heads": 4, "mlp_ratio": 5.0}
_LITTLE: Fields = {"embed_dim": 320, "depth": 14, "num_heads": 5, "mlp_ratio": 5.6}
_MEDIUMD: Fields = {"embed_dim": 512, "depth": 20, "num_heads": 8}
_AIM_LARGE: Fields = {"embed_dim": 1024, "depth": 24, "num_heads": 8, "mlp_ratio": 2.75}
_AIM_HUGE: Fields = {"embed_dim": 1536, "depth": 24, "num_heads": 12, "mlp_ratio": 2.6667}
_AIM_1B: Fields = {"embed_dim": 2048, "depth": 24, "num_heads": 16, "mlp_ratio": 2.75}
_AIM_3B: Fields = {"embed_dim": 3072, "depth": 24, "num_heads": 24, "mlp_ratio": 2.6667}
_BEIT3_G: Fields = {"embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 4.3637}
_TEST: Fields = {"embed_dim": 64, "num_heads": 2}
_TEST_96: Fields = {"embed_dim": 96, "num_heads": 3}

# Kinds: what the members of a series share.
_DEIT3: Fields = {"no_embed_class": True, "init_values": 1e-6}
_CLIP: Fields = {"pre_norm": True, "norm_eps": 1e-5}
_QUICK_CLIP: Fields = {"pre_norm": True, "norm_eps": 1e-5, "act_layer": "quick_gelu"}
_SIGLIP: Fields = {"class_token": False, "global_pool": "map"}
_GAP: Fields = {"class_token": False, "global_pool": "avg", "fc_norm": False}
_REG_GAP: Fields = {"class_token": False, "no_embed_class": True, "global_pool": "avg", "init_values": 1e-5}
_AVG: Fields = {"class_token": False, "global_pool": "avg"}
_XP: Fields = {
    "pre_norm": True,
    "no_embed_class": True,
    "norm_layer": "rmsnorm",
    "block_fn": "parallel_scaling",
    "qkv_bias": False,
    "qk_norm": True,
}
SWIGLU: Fields = {"mlp_ratio": 5.33334, "mlp_layer": "swiglu_packed", "act_layer": "silu"}
_DINOV2_REG: Fields = {"init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}
_TIPS: Fields = {"init_values": 1.0, "reg_tokens": 1, "no_embed_class": True}
_AIM: Fields = {
    "class_token": False,
    "global_pool": "avg",
    "fc_norm": False,
    "qkv_bias": False,
    "proj_bias": False,
    "act_layer": "silu",
    "norm_layer": "rmsnorm",
    "norm_eps": 1e-5,
    "embed_norm_layer": "rmsnorm",
    "mlp_layer": "swiglu",
}
_BEIT3: Fields = {"scale_attn_norm": True, "scale_mlp_norm": True, "global_pool": "avg", "norm_eps": 1e-5}
_RADIO: Fields = {"no_embed_class": True, "final_norm": False}


def _vit(width: Fields, patch_size: int, image_size: int, num_classes: int = 1000, **fields: Any) -> Fields:
    sizes = {"patch_size": patch_size, "image_size": image_size, "num_classes": num_classes}
    return sizes | width | fields


# name: width, patch size, image size, classes (0: features only), the rest
VARIANTS: dict[str, Fields] = {
    # Dosovitskiy et al., 2021; Steiner et al., 2021 (weights); Zhai et al., 2022 (giant, gigantic)
    "vit_tiny_patch16_224": _vit(_TINY, 16, 224),
    "vit_tiny_patch16_384": _vit(_TINY, 16, 384),
    "vit_small_patch32_224": _vit(_SMALL, 32, 224),
    "vit_small_patch32_384": _vit(_SMALL, 32, 384),
    "vit_small_patch16_224": _vit(_SMALL, 16, 224),
    "vit_small_patch16_384": _vit(_SMALL, 16, 384),
    "vit_small_patch8_224": _vit(_SMALL, 8, 224, 0),
    "vit_base_patch32_224": _vit(_BASE, 32, 224),
    "vit_base_patch32_384": _vit(_BASE, 32, 384),
    "vit_base_patch16_224": _vit(_BASE, 16, 224),
    "vit_base_patch16_384": _vit(_BASE, 16, 384),
    "vit_base_patch8_224": _vit(_BASE, 8, 224),
    "vit_large_patch32_224": _vit(_LARGE, 32, 224, 0),
    "vit_large_patch32_384": _vit(_LARGE, 32, 384),
    "vit_large_patch16_224": _vit(_LARGE, 16, 224),
    "vit_large_patch16_384": _vit(_LARGE, 16, 384),
    "vit_large_patch14_224": _vit(_LARGE, 14, 224),
    "vit_huge_patch14_224": _vit(_HUGE, 14, 224, 0),
    "vit_giant_patch14_224": _vit(_GIANT, 14, 224),
    "vit_gigantic_patch14_224": _vit(_GIGANTIC, 14, 224),
    # Ridnik et al., 2021
    "vit_base_patch16_224_miil": _vit(_BASE, 16, 224, 11221, qkv_bias=False),
    # average pooling, no class token (timm; Assran et al., 2023)
    "vit_medium_patch16_gap_240": _vit(_MEDIUM, 16, 240, 11821, **_GAP, qkv_bias=False, init_values=1e-6),
    "vit_medium_patch16_gap_256": _vit(_MEDIUM, 16, 256, **_GAP, qkv_bias=False, init_values=1e-6),
    "vit_medium_patch16_gap_384": _vit(_MEDIUM, 16, 384, **_GAP, qkv_bias=False, init_values=1e-6),
    "vit_betwixt_patch16_gap_256": _vit(_BETWIXT, 16, 256, **_GAP, qkv_bias=False, init_values=1e-6),
    "vit_base_patch16_gap_224": _vit(_BASE, 16, 224, **_GAP, num_heads=16),
    "vit_huge_patch14_gap_224": _vit(_HUGE, 14, 224, 0, **_GAP),
    "vit_huge_patch16_gap_448": _vit(_HUGE, 16, 448, 0, **_GAP),
    "vit_giant_patch16_gap_224": _vit(_GIANT, 16, 224, 0, **_GAP),
    # CLIP: Radford et al., 2021; Cherti et al., 2022; Fang et al., 2023
    "vit_xsmall_patch16_clip_224": _vit(_WEE, 16, 224, 512, **_CLIP, depth=10, mlp_ratio=4.0),
    "vit_medium_patch32_clip_224": _vit(_MEDIUM, 32, 224, 512, **_CLIP),
    "vit_medium_patch16_clip_224": _vit(_MEDIUM, 16, 224, 512, **_CLIP),
    "vit_betwixt_patch32_clip_224": _vit(_BETWIXT, 32, 224, 512, **_CLIP),
    "vit_base_patch32_clip_224": _vit(_BASE, 32, 224, **_CLIP),
    "vit_base_patch32_clip_256": _vit(_BASE, 32, 256, 512, **_CLIP),
    "vit_base_patch32_clip_384": _vit(_BASE, 32, 384, **_CLIP),
    "vit_base_patch32_clip_448": _vit(_BASE, 32, 448, **_CLIP),
    "vit_base_patch16_clip_224": _vit(_BASE, 16, 224, **_CLIP),
    "vit_base_patch16_clip_384": _vit(_BASE, 16, 384, **_CLIP),
    "vit_base_patch16_plus_clip_240": _vit(_PLUS, 16, 240, 640, **_CLIP),
    "vit_large_patch14_clip_224": _vit(_LARGE, 14, 224, **_CLIP),
    "vit_large_patch14_clip_336": _vit(_LARGE, 14, 336, **_CLIP),
    "vit_huge_patch14_clip_224": _vit(_HUGE, 14, 224, **_CLIP),
    "vit_huge_patch14_clip_336": _vit(_HUGE, 14, 336, **_CLIP),
    "vit_huge_patch14_clip_378": _vit(_HUGE, 14, 378, 1024, **_CLIP),
    "vit_giant_patch14_clip_224": _vit(_GIANT, 14, 224, 1024, **_CLIP),
    "vit_gigantic_patch14_clip_224": _vit(_GIGANTIC, 14, 224, 1280, **_CLIP),
    "vit_gigantic_patch14_clip_378": _vit(_GIGANTIC, 14, 378, 1280, **_CLIP),
    # CLIP with the quick GELU of the first release
    "vit_base_patch32_clip_quickgelu_224": _vit(_BASE, 32, 224, 512, **_QUICK_CLIP),
    "vit_base_patch16_clip_quickgelu_224": _vit(_BASE, 16, 224, 512, **_QUICK_CLIP),
    "vit_large_patch14_clip_quickgelu_224": _vit(_LARGE, 14, 224, 768, **_QUICK_CLIP),
    "vit_large_patch14_clip_quickgelu_336": _vit(_LARGE, 14, 336, 768, **_QUICK_CLIP),
    "vit_huge_patch14_clip_quickgelu_224": _vit(_HUGE, 14, 224, 1024, **_QUICK_CLIP),
    "vit_huge_patch14_clip_quickgelu_378": _vit(_HUGE, 14, 378, 1024, **_QUICK_CLIP),
    "vit_gigantic_patch14_clip_quickgelu_224": _vit(_GIGANTIC, 14, 224, 1280, **_QUICK_CLIP),
    # wider; post-norm residuals; deeper and parallel (Touvron et al., 2022)
    "vit_base_patch32_plus_256": _vit(_PLUS, 32, 256, init_values=1e-5),
    "vit_base_patch16_plus_240": _vit(_PLUS, 16, 240, init_values=1e-5),
    "vit_base_patch16_rpn_224": _vit(_BASE, 16, 224, **_AVG, qkv_bias=False, init_values=1e-5, block_fn="res_post"),
    "vit_small_patch16_36x1_224": _vit(_SMALL, 16, 224, depth=36, init_values=1e-5),
    "vit_small_patch16_18x2_224": _vit(_SMALL, 16, 224, depth=18, init_values=1e-5, block_fn="parallel_things"),
    "vit_base_patch16_18x2_224": _vit(_BASE, 16, 224, depth=18, init_values=1e-5, block_fn="parallel_things"),
    # Fang et al., 2022
    "eva_large_patch14_196": _vit(_LARGE, 14, 196, global_pool="avg"),
    "eva_large_patch14_336": _vit(_LARGE, 14, 336, global_pool="avg"),
    # Beyer et al., 2022
    "flexivit_small": _vit(_SMALL, 16, 240, no_embed_class=True),
    "flexivit_base": _vit(_BASE, 16, 240, no_embed_class=True),
    "flexivit_large": _vit(_LARGE, 16, 240, no_embed_class=True),
    # parallel blocks: Dehghani et al., 2023
    "vit_base_patch16_xp_224": _vit(_BASE, 16, 224, **_XP),
    "vit_large_patch14_xp_224": _vit(_LARGE, 14, 224, **_XP),
    "vit_huge_patch14_xp_224": _vit(_HUGE, 14, 224, **_XP),
    # Oquab et al., 2023; registers: Darcet et al., 2023
    "vit_small_patch14_dinov2": _vit(_SMALL, 14, 518, 0, init_values=1e-5),
    "vit_base_patch14_dinov2": _vit(_BASE, 14, 518, 0, init_values=1e-5),
    "vit_large_patch14_dinov2": _vit(_LARGE, 14, 518, 0, init_values=1e-5),
    "vit_giant_patch14_dinov2": _vit(_GIANT2, 14, 518, 0, **SWIGLU, init_values=1e-5),
    "vit_small_patch14_reg4_dinov2": _vit(_SMALL, 14, 518, 0, **_DINOV2_REG),
    "vit_base_patch14_reg4_dinov2": _vit(_BASE, 14, 518, 0, **_DINOV2_REG),
    "vit_large_patch14_reg4_dinov2": _vit(_LARGE, 14, 518, 0, **_DINOV2_REG),
    "vit_giant_patch14_reg4_dinov2": _vit(
        _GIANT2, 14, 518, 0, **SWIGLU, init_values=1e-5, reg_tokens=4, no_embed_class=True
    ),
    # TIPS: Maninis et al., 2024
    "vit_base_patch14_reg1_tipsv2": _vit(_BASE, 14, 448, 0, **_TIPS),
    "vit_large_patch14_reg1_tipsv2": _vit(_LARGE, 14, 448, 0, **_TIPS),
    "vit_so400m_patch14_reg1_tipsv2": _vit(_SO400M, 14, 448, 0, **_TIPS, mlp_ratio=4304 / 1152),
    "vit_giant_patch14_reg1_tipsv2": _vit(
        _GIANT2, 14, 448, 0, **SWIGLU, init_values=1.0, reg_tokens=1, no_embed_class=True
    ),
    # Zhai et al., 2023; Tschannen et al., 2025; so400m: Alabdulmohsin et al., 2023
    "vit_base_patch32_siglip_256": _vit(_BASE, 32, 256, 0, **_SIGLIP, act_layer="gelu_tanh"),
    "vit_base_patch16_siglip_224": _vit(_BASE, 16, 224, 0, **_SIGLIP),
    "vit_base_patch16_siglip_256": _vit(_BASE, 16, 256, 0, **_SIGLIP),
    "vit_base_patch16_siglip_384": _vit(_BASE, 16, 384, 0, **_SIGLIP),
    "vit_base_patch16_siglip_512": _vit(_BASE, 16, 512, 0, **_SIGLIP),
    "vit_large_patch16_siglip_256": _vit(_LARGE, 16, 256, 0, **_SIGLIP),
    "vit_large_patch16_siglip_384": _vit(_LARGE, 16, 384, 0, **_SIGLIP),
    "vit_large_patch16_siglip_512": _vit(_LARGE, 16, 512, 0, **_SIGLIP, act_layer="gelu_tanh"),
    "vit_so400m_patch14_siglip_224": _vit(_SO400M, 14, 224, 0, **_SIGLIP),
    "vit_so400m_patch14_siglip_378": _vit(_SO400M, 14, 378, 0, **_SIGLIP),
    "vit_so400m_patch14_siglip_384": _vit(_SO400M, 14, 384, 0, **_SIGLIP, crop_to_patches=True),
    "vit_so400m_patch16_siglip_256": _vit(_SO400M, 16, 256, 0, **_SIGLIP, act_layer="gelu_tanh"),
    "vit_so400m_patch16_siglip_384": _vit(_SO400M, 16, 384, 0, **_SIGLIP, act_layer="gelu_tanh"),
    "vit_so400m_patch16_siglip_512": _vit(_SO400M, 16, 512, 0, **_SIGLIP, act_layer="gelu_tanh"),
    "vit_giantopt_patch16_siglip_256": _vit(_GIANTOPT, 16, 256, 0, **_SIGLIP, act_layer="gelu_tanh"),
    "vit_giantopt_patch16_siglip_384": _vit(_GIANTOPT, 16, 384, 0, **_SIGLIP, act_layer="gelu_tanh"),
    # the same without their attention pooling (PaliGemma: Beyer et al., 2024)
    "vit_base_patch32_siglip_gap_256": _vit(_BASE, 32, 256, 0, **_GAP, act_layer="gelu_tanh"),
    "vit_base_patch16_siglip_gap_224": _vit(_BASE, 16, 224, 0, **_GAP),
    "vit_base_patch16_siglip_gap_256": _vit(_BASE, 16, 256, 0, **_GAP),
    "vit_base_patch16_siglip_gap_384": _vit(_BASE, 16, 384, 0, **_GAP),
    "vit_base_patch16_siglip_gap_512": _vit(_BASE, 16, 512, 0, **_GAP),
    "vit_large_patch16_siglip_gap_256": _vit(_LARGE, 16, 256, 0, **_GAP),
    "vit_large_patch16_siglip_gap_384": _vit(_LARGE, 16, 384, 0, **_GAP),
    "vit_large_patch16_siglip_gap_512": _vit(_LARGE, 16, 512, 0, **_GAP, act_layer="gelu_tanh"),
    "vit_so400m_patch14_siglip_gap_224": _vit(_SO400M, 14, 224, 0, **_GAP),
    "vit_so400m_patch14_siglip_gap_378": _vit(_SO400M, 14, 378, 0, **_GAP),
    "vit_so400m_patch14_siglip_gap_384": _vit(_SO400M, 14, 384, 0, **_GAP, crop_to_patches=True),
    "vit_so400m_patch14_siglip_gap_448": _vit(_SO400M, 14, 448, 0, **_GAP),
    "vit_so400m_patch14_siglip_gap_896": _vit(_SO400M, 14, 896, 0, **_GAP),
    "vit_so400m_patch16_siglip_gap_256": _vit(_SO400M, 16, 256, 0, **_GAP, act_layer="gelu_tanh"),
    "vit_so400m_patch16_siglip_gap_384": _vit(_SO400M, 16, 384, 0, **_GAP, act_layer="gelu_tanh"),
    "vit_so400m_patch16_siglip_gap_512": _vit(_SO400M, 16, 512, 0, **_GAP, act_layer="gelu_tanh"),
    "vit_giantopt_patch16_siglip_gap_256": _vit(_GIANTOPT, 16, 256, 0, **_GAP, act_layer="gelu_tanh"),
    "vit_giantopt_patch16_siglip_gap_384": _vit(_GIANTOPT, 16, 384, 0, **_GAP, act_layer="gelu_tanh"),
    # register tokens and average pooling (timm; differential attention: Ye et al., 2024)
    "vit_wee_patch16_reg1_gap_256": _vit(_WEE, 16, 256, **_REG_GAP, reg_tokens=1),
    "vit_dwee_patch16_reg1_gap_256": _vit(_WEE, 16, 256, **_REG_GAP, reg_tokens=1, attn_layer="diff"),
    "vit_pwee_patch16_reg1_gap_256": _vit(_PWEE, 16, 256, **_REG_GAP, reg_tokens=1, block_fn="parallel_scaling"),
    "vit_dpwee_patch16_reg1_gap_256": _vit(_PWEE, 16, 256, **_REG_GAP, reg_tokens=1, block_fn="diff_parallel_scaling"),
    "vit_little_patch16_reg1_gap_256": _vit(_LITTLE, 16, 256, **_REG_GAP, reg_tokens=1),
    "vit_dlittle_patch16_reg1_gap_256": _vit(_LITTLE, 16, 256, **_REG_GAP, reg_tokens=1, attn_layer="diff"),
    "vit_little_patch16_reg4_gap_256": _vit(_LITTLE, 16, 256, **_REG_GAP, reg_tokens=4),
    "vit_medium_patch16_reg1_gap_256": _vit(_MEDIUM, 16, 256, **_REG_GAP, reg_tokens=1),
    "vit_medium_patch16_reg4_gap_256": _vit(_MEDIUM, 16, 256, **_REG_GAP, reg_tokens=4),
    "vit_mediumd_patch16_reg4_gap_256": _vit(_MEDIUMD, 16, 256, **_REG_GAP, reg_tokens=4),
    "vit_mediumd_patch16_reg4_gap_384": _vit(_MEDIUMD, 16, 384, **_REG_GAP, reg_tokens=4),
    "vit_betwixt_patch16_reg1_gap_256": _vit(_BETWIXT, 16, 256, **_REG_GAP, reg_tokens=1),
    "vit_betwixt_patch16_reg4_gap_256": _vit(_BETWIXT, 16, 256, **_REG_GAP, reg_tokens=4),
    "vit_betwixt_patch16_reg4_gap_384": _vit(_BETWIXT, 16, 384, **_REG_GAP, reg_tokens=4),
    "vit_base_patch16_reg4_gap_256": _vit(_BASE, 16, 256, **_AVG, no_embed_class=True, reg_tokens=4),
    # shape-optimised: Alabdulmohsin et al., 2023 (timm)
    "vit_so150m_patch16_reg4_map_256": _vit(_SO150M, 16, 256, **_SIGLIP, reg_tokens=4),
    "vit_so150m_patch16_reg4_gap_256": _vit(_SO150M, 16, 256, **_GAP, reg_tokens=4),
    "vit_so150m_patch16_reg4_gap_384": _vit(_SO150M, 16, 384, **_GAP, reg_tokens=4),
    "vit_so150m2_patch16_reg1_gap_256": _vit(_SO150M2, 16, 256, **_AVG, init_values=1e-5, qkv_bias=False, reg_tokens=1),
    "vit_so150m2_patch16_reg1_gap_384": _vit(_SO150M2, 16, 384, **_AVG, init_values=1e-5, qkv_bias=False, reg_tokens=1),
    "vit_so150m2_patch16_reg1_gap_448": _vit(_SO150M2, 16, 448, **_AVG, init_values=1e-5, qkv_bias=False, reg_tokens=1),
    # Chen et al., 2024
    "vit_intern300m_patch14_448": _vit(_LARGE, 14, 448, 0, init_values=0.1, final_norm=False, dynamic_img_size=True),
    # Fini et al., 2024
    "aimv2_large_patch14_224": _vit(_AIM_LARGE, 14, 224, 0, **_AIM),
    "aimv2_huge_patch14_224": _vit(_AIM_HUGE, 14, 224, 0, **_AIM),
    "aimv2_1b_patch14_224": _vit(_AIM_1B, 14, 224, 0, **_AIM),
    "aimv2_3b_patch14_224": _vit(_AIM_3B, 14, 224, 0, **_AIM),
    "aimv2_large_patch14_336": _vit(_AIM_LARGE, 14, 336, 0, **_AIM),
    "aimv2_huge_patch14_336": _vit(_AIM_HUGE, 14, 336, 0, **_AIM),
    "aimv2_1b_patch14_336": _vit(_AIM_1B, 14, 336, 0, **_AIM),
    "aimv2_3b_patch14_336": _vit(_AIM_3B, 14, 336, 0, **_AIM),
    "aimv2_large_patch14_448": _vit(_AIM_LARGE, 14, 448, 0, **_AIM),
    "aimv2_huge_patch14_448": _vit(_AIM_HUGE, 14, 448, 0, **_AIM),
    "aimv2_1b_patch14_448": _vit(_AIM_1B, 14, 448, 0, **_AIM),
    "aimv2_3b_patch14_448": _vit(_AIM_3B, 14, 448, 0, **_AIM),
    # tiny ones of timm, for tests
    "test_vit": _vit(_TEST, 16, 160, depth=6, mlp_ratio=3, dynamic_img_size=True),
    "test_vit2": _vit(
        _TEST, 16, 160, **_AVG, depth=8, mlp_ratio=3, reg_tokens=1, init_values=1e-5, dynamic_img_size=True
    ),
    "test_vit3": _vit(
        _TEST_96, 16, 160, **_SIGLIP, depth=9, mlp_ratio=2, reg_tokens=1, pool_include_prefix=True, init_values=1e-5
    ),
    "test_vit4": _vit(
        _TEST_96,
        16,
        160,
        **_AVG,
        depth=9,
        mlp_ratio=3,
        reg_tokens=1,
        init_values=1e-5,
        dynamic_img_size=True,
        norm_layer="rmsnorm",
    ),
    # Wang et al., 2022
    "beit3_base_patch16_224": _vit(_BASE, 16, 224, **_BEIT3),
    "beit3_large_patch16_224": _vit(_LARGE, 16, 224, **_BEIT3),
    "beit3_giant_patch14_224": _vit(_BEIT3_G, 14, 224, **_BEIT3),
    "beit3_giant_patch14_336": _vit(_BEIT3_G, 14, 336, **_BEIT3),
    # RADIO: Heinrich et al., 2025
    "vit_base_patch16_radio_v3": _vit(_BASE, 16, 512, 0, **_RADIO, init_values=1e-5, reg_tokens=7),
    "vit_large_patch16_radio_v3": _vit(_LARGE, 16, 512, 0, **_RADIO, init_values=1e-5, reg_tokens=7),
    "vit_huge_patch16_radio_v3": _vit(_HUGE, 16, 512, 0, **_RADIO, reg_tokens=7),
    "vit_giant_patch16_radio_v3": _vit(_GIANT2, 16, 512, 0, **_RADIO, reg_tokens=7),
    "vit_so400m_patch16_radio_v4": _vit(_SO400M, 16, 512, 0, **_RADIO, mlp_ratio=4304 / 1152, reg_tokens=9),
    "vit_huge_patch16_radio_v4": _vit(_HUGE, 16, 512, 0, **_RADIO, reg_tokens=9),
    # DeiT: Touvron et al., 2021
    "deit_tiny_patch16_224": _vit(_TINY, 16, 224),
    "deit_small_patch16_224": _vit(_SMALL, 16, 224),
    "deit_base_patch16_224": _vit(_BASE, 16, 224),
    "deit_base_patch16_384": _vit(_BASE, 16, 384),
    "deit_tiny_distilled_patch16_224": _vit(_TINY, 16, 224, distilled=True),
    "deit_small_distilled_patch16_224": _vit(_SMALL, 16, 224, distilled=True),
    "deit_base_distilled_patch16_224": _vit(_BASE, 16, 224, distilled=True),
    "deit_base_distilled_patch16_384": _vit(_BASE, 16, 384, distilled=True),
    # DeiT-III: Touvron et al., 2022
    "deit3_small_patch16_224": _vit(_SMALL, 16, 224, **_DEIT3),
    "deit3_small_patch16_384": _vit(_SMALL, 16, 384, **_DEIT3),
    "deit3_medium_patch16_224": _vit(_MEDIUM, 16, 224, **_DEIT3),
    "deit3_base_patch16_224": _vit(_BASE, 16, 224, **_DEIT3),
    "deit3_base_patch16_384": _vit(_BASE, 16, 384, **_DEIT3),
    "deit3_large_patch16_224": _vit(_LARGE, 16, 224, **_DEIT3),
    "deit3_large_patch16_384": _vit(_LARGE, 16, 384, **_DEIT3),
    "deit3_huge_patch14_224": _vit(_HUGE, 14, 224, **_DEIT3),
}
