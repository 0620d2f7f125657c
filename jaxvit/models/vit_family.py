"""The record of the Vision Transformers: what optimisers, weight files and explanations have to know of their names."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.models.family import DECAYS, MEGATRON, Family, Fields, Tap, Tensors, patches_fit
from jaxvit.models.hf_model import Config, HfModel, mlp_ratio, transformer, whole
from jaxvit.models.layers import REMAT_CHOICES, to_pair
from jaxvit.models.vit import CHOICES, POOLS, VisionTransformer, check_fields
from jaxvit.models.vit_layouts import LAYOUTS
from jaxvit.models.vit_variants import SWIGLU, VARIANTS
from jaxvit.ops import attention

# The norm through which all tokens enter the attention of a block; where it comes after the branches there is none.
ENTRANCE = {
    "block": "norm1",
    "parallel_scaling": "in_norm",
    "diff_parallel_scaling": "in_norm",
    "parallel_things": "attns_0/norm",
}


def small(fields: Fields) -> dict[str, Any]:
    """One to three blocks of width 16 to 48, by the shape of the large model."""
    depth = 1 if fields["depth"] < 4 else 2 if fields["depth"] < 16 else 3
    heads = min(4, max(2, fields["num_heads"] // 2))
    width = min(48, max(16, fields["embed_dim"] // 16))
    sizes = {"depth": depth, "num_heads": heads, "embed_dim": heads * 2 * round(width / heads / 2)}
    return {"image_size": 16, "patch_size": 4, **sizes}


def fits(tensors: Tensors, fields: Fields) -> bool:
    """Whether a file shows a variant's patches and its number of heads."""
    alike = patches_fit(tensors.get("patch_embed.proj.weight"), fields)
    return alike and fields["distilled"] == ("dist_token" in tensors)


def default_layer(model: VisionTransformer) -> str:
    """The last norm before the mean over tokens; with a class token, which the patches reach by attention alone, the
    norm before the last attention: after it they have no gradient.
    """
    last = model.depth - 1
    if model.global_pool in POOLS:
        return "norm" if model.final_norm and model.fc_norm is False else f"blocks_{last}"
    if model.global_pool == "map":
        return "norm" if model.final_norm else f"blocks_{last}"
    if model.block_fn in ENTRANCE:
        return f"blocks_{last}/{ENTRANCE[model.block_fn]}"
    return f"blocks_{last - 1}" if last > 0 else "patch_embed"  # norms after the branches: what enters the block


def taps(model: VisionTransformer) -> tuple[Tap, ...]:
    """The output of every block."""
    stride = max(to_pair(model.patch_size))
    return tuple(Tap(f"blocks.{i}", model.embed_dim, stride, f"blocks_{i}") for i in range(model.depth))


def tokens_read(model: VisionTransformer) -> slice:
    """The class and distillation token, or the patches."""
    if model.global_pool in ("token", "prr") and model.class_token:
        return slice(0, 1 + int(model.distilled))
    return slice(model.num_prefix_tokens, None)


def attention_runs(model: VisionTransformer, train: bool) -> str:
    """The formula where weights are dropped or subtracted, else what the operation chooses for the model's heads."""
    if model.differential or (train and model.attn_drop_rate):
        return "xla"
    shape = (1, 8, model.num_heads, model.embed_dim // model.num_heads)
    q = jax.ShapeDtypeStruct(shape, model.dtype or jnp.float32)
    return attention.chosen(q, q, q, model.attn_implementation)


def _vit(config: Config) -> dict[str, Any]:
    size, hidden = whole(config, "hidden_size", 768), whole(config, "intermediate_size", 3072)
    return {**transformer(config), "patch_size": config.get("patch_size", 16), "mlp_ratio": mlp_ratio(size, hidden)}


def _dinov2(config: Config) -> dict[str, Any]:
    found = {**transformer(config), "norm_eps": config.get("layer_norm_eps", 1e-6)}
    if config.get("use_swiglu_ffn"):  # as the giant has it, whatever hidden_act says
        found |= SWIGLU
    else:
        found["mlp_ratio"] = float(whole(config, "mlp_ratio", 4))
    return {**found, "patch_size": config.get("patch_size", 14)}


def _clip(config: Config) -> dict[str, Any]:
    usual = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "patch_size": 32}
    return _vit({**usual, **config})


def _siglip(config: Config) -> dict[str, Any]:
    return _vit({"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, **config})


NO_MEAN = {
    "ForImageClassification": "classifies the class token joined to the mean of the patches, which no model here does; "
    "expected the features alone (Dinov2Model)."
}
NO_TOKEN = {
    "DeiTForImageClassification": "has a distillation token that no classifier reads, unlike any model here; "
    "expected DeiTForImageClassificationWithTeacher."
}
NO_TOWER = {
    "ForImageClassification": "classifies the mean of the patches, which this model does not; expected the features "
    "alone (CLIPVisionModelWithProjection, SiglipVisionModel)."
}
CLIP = HfModel("vit_base_patch32_clip_quickgelu_224", _clip, among="clip", refused=NO_TOWER)
SIGLIP = HfModel("vit_base_patch16_siglip_224", _siglip, among="siglip_(?!gap)", refused=NO_TOWER)
TRANSFORMERS = {
    "vit": HfModel("vit_base_patch16_224", _vit),
    "vit_mae": HfModel("vit_base_patch16_224", _vit),
    "clip": CLIP,
    "clip_vision_model": CLIP,
    "siglip": SIGLIP,
    "siglip_vision_model": SIGLIP,
    "deit": HfModel("deit_base_distilled_patch16_224", _vit, refused=NO_TOKEN),
    "dinov2": HfModel("vit_base_patch14_dinov2", _dinov2, refused=NO_MEAN),
    "dinov2_with_registers": HfModel("vit_base_patch14_reg4_dinov2", _dinov2, refused=NO_MEAN),
}

FAMILY = Family(
    name="vit",
    model=VisionTransformer,
    variants=VARIANTS,
    timm_modules=("vision_transformer", "deit"),
    choices={**CHOICES, "remat": REMAT_CHOICES},
    check=check_fields,
    depth_field="depth",
    small=small,
    stem=r"cls_token|dist_token|reg_token|pos_embed|patch_embed|norm_pre",
    blocks=((r"blocks_(\d+)/", ()),),
    last_norm=r"norm",
    decays=rf"{DECAYS}|attn_pool/latent$",
    sharding=MEGATRON,
    mark=r"^blocks\.0\.(norm1|in_norm|attns\.0\.norm)\.weight$",
    first_conv=("patch_embed.proj",),
    classifiers={"head": "head_hidden", "head_dist": "head_dist_hidden"},
    buffers=(r"^mask_token$", r"^decoder_(embed|pos_embed|blocks|norm|pred)\b"),  # of pretraining: MAE, DINOv2
    layouts=LAYOUTS,
    fits=fits,
    position_table="pos_embed",
    lost_hidden="pre_logits",  # of the first ViTs
    optional=((r"siglip", "attn_pool"),),
    # The first releases of two RADIO models, timm says, were resized with their corners kept.
    resampling=((r"(base|huge)_patch16_radio_v3", "corners"), (r"^flexivit|_radio_", "bilinear")),
    branch_ends=r"\bgamma$",
    transformers=TRANSFORMERS,
    transformers_fields={
        "hidden_act": "act_layer", "num_attention_heads": "num_heads", "layer_norm_eps": "norm_eps",
    },
    timm_args=(
        "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "global_pool", "qkv_bias", "qk_norm",
        "scale_attn_norm", "scale_mlp_norm", "proj_bias", "init_values", "class_token", "pos_embed", "no_embed_class",
        "reg_tokens", "pre_norm", "final_norm", "fc_norm", "pool_include_prefix", "act_layer",
    ),
    takes_image_size=True,
    fixed_input_size=True,
    default_layer=default_layer,
    taps=taps,
    not_maps=frozenset({"q_norm", "k_norm", "sub_norm"}),  # heads
    attention="tokens",
    attention_runs=attention_runs,
    tokens_read=tokens_read,
)  # fmt: skip
