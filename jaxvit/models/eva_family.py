"""The record of EVA and its relatives: what optimisers, weight files and explanations have to know of their names."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.errors import UserError
from jaxvit.models.eva import CHOICES, Eva, check_fields
from jaxvit.models.eva_layouts import LAYOUTS
from jaxvit.models.eva_variants import VARIANTS
from jaxvit.models.family import DECAYS, MEGATRON, Family, Fields, Tap, Tensors, patches_fit
from jaxvit.models.hf_model import Config, HfModel, mlp_ratio, whole
from jaxvit.models.layers import REMAT_CHOICES, to_pair
from jaxvit.ops import attention


def small(fields: Fields) -> dict[str, Any]:
    """One to three blocks of width 16 to 48, by the shape of the large model."""
    depth = 1 if fields["depth"] < 4 else 2 if fields["depth"] < 16 else 3
    heads = 4 if fields["num_heads"] > 4 else 2
    width = min(48, max(16, fields["embed_dim"] // 16))
    sizes: dict[str, Any] = {
        "depth": depth,
        "num_heads": heads,
        "embed_dim": heads * 4 * max(1, round(width / heads / 4)),
    }
    if fields["num_kv_heads"] is not None:
        sizes["num_kv_heads"] = (heads, heads // 2, heads)[:depth]
    if fields["attn_pool_num_heads"] is not None:
        sizes["attn_pool_num_heads"] = 2
    return {"image_size": 16, "patch_size": 4, **sizes}


def fits(tensors: Tensors, fields: Fields) -> bool:
    """Whether a file shows a variant's patches, tokens, positions and biases."""
    fc_norm = fields["use_fc_norm"] if fields["use_fc_norm"] is not None else fields["global_pool"] == "avg"
    apart = fields["swiglu_mlp"] and (fields["scale_mlp"] or fields["swiglu_align_to"] > 0)
    shown = {
        "fc_norm.weight": fc_norm,
        "blocks.0.mlp.fc1_g.weight": apart,
        "cls_token": fields["class_token"],
        "reg_token": fields["num_reg_tokens"] > 0,
        "pos_embed": fields["use_abs_pos_emb"],
        "rope.freqs": fields["rope_type"] == "mixed",
        "attn_pool.latent": fields["global_pool"] == "map",
        "norm_pre.weight": fields["use_pre_transformer_norm"],
        "blocks.0.attn.q_bias": fields["qkv_fused"] and fields["qkv_bias"] and fields["attn_type"] == "eva",
        "blocks.0.attn.qkv.weight": fields["qkv_fused"],
        "blocks.0.attn.q_norm.weight": fields["qk_norm"],
        "blocks.0.attn.norm.weight": fields["scale_attn_inner"],
        "blocks.0.mlp.norm.weight": fields["scale_mlp"],
        "blocks.0.gamma_1": fields["init_values"] is not None,
    }
    alike = patches_fit(tensors.get("patch_embed.proj.weight"), fields)
    return alike and all((name in tensors) == there for name, there in shown.items())


def default_layer(model: Eva) -> str:
    """As of a ViT: the last norm before the mean or the attention over tokens; with a class token, which the patches
    reach by attention alone, the norm before the last attention: after it they have no gradient.
    """
    last = model.depth - 1
    if model.global_pool == "token":
        entrance = f"blocks_{last - 1}" if last > 0 else "patch_embed"
        return entrance if model.use_post_norm else f"blocks_{last}/norm1"
    return "norm" if model.has_norm else f"blocks_{last}"


def taps(model: Eva) -> tuple[Tap, ...]:
    """The output of every block."""
    stride = max(to_pair(model.patch_size))
    return tuple(Tap(f"blocks.{i}", model.embed_dim, stride, f"blocks_{i}") for i in range(model.depth))


def tokens_read(model: Eva) -> slice:
    """The class token, or the patches."""
    return slice(0, 1) if model.global_pool == "token" else slice(model.num_prefix_tokens, None)


def attention_runs(model: Eva, train: bool) -> str:
    """The formula where weights are dropped, else what the operation chooses for the model's heads."""
    if train and model.attn_drop_rate:
        return "xla"
    shape = (1, 8, model.num_heads, model.embed_dim // model.num_heads)
    q = jax.ShapeDtypeStruct(shape, model.dtype or jnp.float32)
    return attention.chosen(q, q, q, model.attn_implementation)


def _dinov3(config: Config) -> dict[str, Any]:
    """DINOv3 in Transformers, which pools by the class token."""
    gated, biases = bool(config.get("use_gated_mlp", False)), config.get("query_bias", True)
    usual = {"hidden_act": "gelu", "key_bias": False, "value_bias": True, "proj_bias": True, "mlp_bias": True}
    wanted = usual | {"hidden_act": "silu" if gated else "gelu", "value_bias": biases}
    for word, value in wanted.items():
        if (said := config.get(word, usual[word])) != value:
            raise UserError(f"config.json: {word}={str(said)[:60]}; expected {value!r}.")
    size, hidden = whole(config, "hidden_size", 384), whole(config, "intermediate_size", 1536)
    return {
        "patch_size": config.get("patch_size", 16),
        "embed_dim": size,
        "depth": whole(config, "num_hidden_layers", 12),
        "num_heads": whole(config, "num_attention_heads", 6),
        "mlp_ratio": mlp_ratio(size, hidden),
        "swiglu_mlp": gated,
        "swiglu_align_to": 0 if not gated else 8 if hidden % 8 == 0 else 1,
        "qkv_bias": biases,
        "norm_eps": config.get("layer_norm_eps", 1e-5),
        "rope_temperature": config.get("rope_theta", 100.0),
        "rope_shift_coords": config.get("pos_embed_shift"),
        "rope_jitter_coords": config.get("pos_embed_jitter"),
        "rope_rescale_coords": config.get("pos_embed_rescale", 2.0),
        "num_reg_tokens": config.get("num_register_tokens", 0),
        "init_values": config.get("layerscale_value", 1.0),
        "global_pool": "token",
    }


FAMILY = Family(
    name="eva",
    model=Eva,
    variants=VARIANTS,
    timm_modules=("eva",),
    choices={**CHOICES, "remat": REMAT_CHOICES},
    check=check_fields,
    depth_field="depth",
    small=small,
    stem=r"cls_token|reg_token|pos_embed|patch_embed|norm_pre",
    blocks=((r"blocks_(\d+)/", ()),),
    last_norm=r"norm",
    decays=rf"{DECAYS}|attn_pool/latent$",
    sharding=(
        (r"\b([qkv]_proj|gate|fc1_[gx])/kernel$", ("fsdp", "tensor")),
        (r"\b([qv]_proj|fc1_[gx])/bias$|\b[qv]_bias$", ("tensor",)),
        *MEGATRON,
    ),
    mark=r"^blocks\.0\.(gamma_1|attn\.(q_bias|q_proj\.weight))$",
    first_conv=("patch_embed.proj",),
    classifiers={"head": "head_hidden"},
    buffers=(r"^mask_token$", r"^(?!rope\.freqs$).*\brope"),  # of pretraining; angles, which are computed
    layouts=LAYOUTS,
    fits=fits,
    position_table="pos_embed",
    optional=((r"pe_core", "attn_pool"),),
    zeros=r"\.attn\.[qv]_bias$",  # of most of Meta's DINOv3
    transformers={"dinov3_vit": HfModel("vit_small_patch16_dinov3_qkvb", _dinov3, among="dinov3")},
    transformers_fields={
        "num_attention_heads": "num_heads", "layer_norm_eps": "norm_eps", "rope_theta": "rope_temperature",
    },
    transformers_only={"key_bias": False, "proj_bias": True, "mlp_bias": True},
    branch_ends=r"\bgamma_[12]$",
    timm_args=(
        "patch_size", "embed_dim", "depth", "num_heads", "num_kv_heads", "mlp_ratio", "global_pool", "qkv_bias",
        "qkv_fused", "qk_norm", "swiglu_mlp", "swiglu_align_to", "scale_mlp", "scale_attn_inner", "attn_type",
        "init_values", "attn_only_layer_scale", "class_token", "num_reg_tokens", "no_embed_class", "use_abs_pos_emb",
        "use_rot_pos_emb", "rope_type", "rope_grid_offset", "rope_grid_indexing", "rope_temperature",
        "rope_rotate_half", "rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords", "ref_feat_shape",
        "use_post_norm", "use_pre_transformer_norm", "use_post_transformer_norm", "use_fc_norm",
        "attn_pool_num_heads", "attn_pool_mlp_ratio", "head_init_scale",
    ),
    takes_image_size=True,
    fixed_input_size=True,
    default_layer=default_layer,
    taps=taps,
    not_maps=frozenset({"q_norm", "k_norm", "rope"}),  # heads; angles
    attention="tokens",
    attention_runs=attention_runs,
    tokens_read=tokens_read,
)  # fmt: skip
