"""Weights of ViTs as Transformers, Microsoft and training runs leave them: names written out, read tensor by tensor."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import convert, export, hf_architecture, load
from tests.helpers import pretrained as helpers

SMALL = {"embed_dim": 24, "num_heads": 2, "depth": 2, "image_size": 28, "patch_size": 14}
CLIP = {"num_classes": 5}
POOLED = {"num_classes": 0}


def renamed(state, *rows):
    """Names changed by patterns, each row in order; queries, keys and values apart."""
    changed = {}
    for name, array in state.items():
        parts = {name: array}
        if ".attn.qkv." in name:
            parts = {name.replace("qkv", f"{part}_proj"): a for part, a in zip("qkv", np.split(array, 3), strict=True)}
        for name, array in parts.items():
            for pattern, replacement in rows:
                name = re.sub(pattern, replacement, name)
            changed[name] = array
    return changed


def tower(state, prefix="vision_model."):
    """The image tower of Transformers' CLIP and SigLIP."""
    made = renamed(
        state, (r"\.norm([12])\.", r".layer_norm\1."),
        (r"\.attn\.proj\.", ".attn.out_proj."), (r"\.attn\.", ".self_attn."),
        (r"^blocks\.", f"{prefix}encoder.layers."), ("^cls_token$", f"{prefix}embeddings.class_embedding"),
        ("^pos_embed$", f"{prefix}embeddings.position_embedding.weight"), (r"^norm\.", f"{prefix}post_layernorm."),
        (r"^patch_embed\.proj\.", f"{prefix}embeddings.patch_embedding."), (r"^norm_pre\.", f"{prefix}pre_layrnorm."),
        (r"^head\.", "visual_projection."), (r"^attn_pool\.proj\.", f"{prefix}head.attention.out_proj."),
        ("^attn_pool.latent$", f"{prefix}head.probe"), (r"^attn_pool\.norm\.", f"{prefix}head.layernorm."),
        (r"^attn_pool\.mlp\.", f"{prefix}head.mlp."),
    )  # fmt: skip
    for name in [name for name in made if name.endswith(("class_embedding", "position_embedding.weight"))]:
        made[name] = made[name].reshape(made[name].shape[-1:] if "class" in name else made[name].shape[1:])
    for leaf in ("weight", "bias"):
        if f"attn_pool.q.{leaf}" in made:
            parts = [made.pop(f"attn_pool.{part}.{leaf}") for part in ("q", "kv")]
            made[f"{prefix}head.attention.in_proj_{leaf}"] = np.concatenate(parts)
    made.pop("visual_projection.bias", None)
    return made


def both_towers(state):
    other = {"logit_scale": (), "text_projection.weight": (5, 8), "text_model.encoder.layers.0.mlp.fc1.weight": (8, 8)}
    made = {name: np.ones(shape, np.float32) for name, shape in other.items()}
    return tower(state) | made | {"vision_model.embeddings.position_ids": np.arange(5)[None]}


def autoencoder(state):
    """Transformers' ViTMAEForPreTraining, version 5."""
    rows = (r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after."), (r"\.proj\.", ".o_proj.")
    made = renamed(
        {n: a for n, a in state.items() if n.startswith("blocks.")}, *rows, (r"\.attn\.", ".attention."),
        ("^blocks", "vit.layers"),
    )  # fmt: skip
    top = {"cls_token": "cls_token", "pos_embed": "position_embeddings"}
    made |= {f"vit.embeddings.{theirs}": state[ours] for ours, theirs in top.items()}
    for leaf in ("weight", "bias"):
        made[f"vit.embeddings.patch_embeddings.projection.{leaf}"] = state[f"patch_embed.proj.{leaf}"]
        made[f"vit.layernorm.{leaf}"] = state[f"norm.{leaf}"]
    decoder = ("mask_token", "decoder_pos_embed", "decoder_layers.0.mlp.fc1.weight", "decoder_pred.bias")
    return made | {f"decoder.{name}": np.ones(3, np.float32) for name in decoder}


def chunks(state):
    """DINOv2 in training: blocks lie in chunks and keep their numbers."""
    return {"teacher": {f"backbone.{re.sub(r'^blocks', 'blocks.0', n)}": a for n, a in state.items()}}


READ = {
    "CLIP in Transformers": (both_towers, "vit_base_patch32_clip_quickgelu_224", CLIP),
    "CLIP in Transformers, features": (tower, "vit_base_patch16_clip_224", POOLED),
    "SigLIP in Transformers": (tower, "vit_base_patch16_siglip_224", POOLED),
    "SigLIP in Transformers 5": (lambda state: tower(state, ""), "vit_base_patch16_siglip_224", POOLED),
    "MAE in Transformers": (autoencoder, "vit_base_patch16_224", POOLED),
    "DINOv2 in training": (chunks, "vit_base_patch14_dinov2", POOLED),
}


@pytest.mark.parametrize("case", READ)
def test_files_are_read(case):
    layout, name, fields = READ[case]
    model = helpers.make((name, SMALL | fields))
    wanted = helpers.weights(model)
    if "head.bias" in wanted:
        wanted["head.bias"][:] = 0  # that projection has none
    helpers.assert_same(export(model, convert(model, layout(dict(wanted)))), wanted)


@pytest.mark.parametrize(
    "name",
    [
        "blocks.1.attn.relative_position_bias_table",
        "encoder.rel_pos_bias.relative_position_bias_table",
        "beit.encoder.layer.1.attention.attention.relative_position_bias.relative_position_bias_table",
        "beit.encoder.relative_position_bias.relative_position_bias_table",
        "beit.layers.1.relative_position_bias.relative_position_bias_table",
        "beit.shared_position_bias.relative_position_bias_table",
        "data2vec_vision.encoder.layer.0.attention.attention.relative_position_bias.relative_position_bias_table",
    ],
)
def test_a_beit_is_refused_by_what_it_needs(name):
    model = helpers.make(("deit3_base_patch16_224", SMALL))
    state = helpers.weights(model)
    with pytest.raises(UserError, match="BEiT or data2vec.* relative positions"):
        convert(model, {"model": state | {name: np.ones((7, 2), np.float32)}})


def test_tables_of_a_swin_are_not_taken_for_those_of_a_beit():
    model = helpers.make(helpers.VIT)
    for name in (
        "layers.0.blocks.0.attn.relative_position_bias_table",
        "swin.encoder.layers.0.blocks.0.attention.relative_position_bias.relative_position_bias_table",
    ):
        with pytest.raises(UserError, match="unexpected"):
            convert(model, helpers.weights(model) | {name: np.ones((7, 2), np.float32)})


VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
PUBLISHED = {
    "openai/clip-vit-base-patch32": ({"model_type": "clip_vision_model"}, "vit_base_patch32_clip_quickgelu_224"),
    "openai/clip-vit-large-patch14-336": (
        {"model_type": "clip", "vision_config": VISION | {"image_size": 336, "patch_size": 14}},
        "vit_large_patch14_clip_quickgelu_336"),
    "laion/CLIP-ViT-B-16-laion2B-s34B-b88K": (
        {"model_type": "clip", "vision_config": {"patch_size": 16, "hidden_act": "gelu"}}, "vit_base_patch16_clip_224"),
    "google/siglip-large-patch16-384": (
        {"model_type": "siglip", "vision_config": VISION | {"image_size": 384}}, "vit_large_patch16_siglip_384"),
    "facebook/vit-mae-base": ({"model_type": "vit_mae"}, "vit_base_patch16_224"),
}  # fmt: skip


def test_configs_of_transformers_are_resolved():
    for config, name in PUBLISHED.values():
        found, fields = hf_architecture.resolve(config)
        assert found == name or (fields["act_layer"] == "gelu_tanh" and found.startswith("vit_large_patch16_siglip"))
    with pytest.raises(UserError, match="expected the features"):
        hf_architecture.resolve({"model_type": "clip", "architectures": ["CLIPForImageClassification"]})


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["CLIPModel", "CLIPVisionModelWithProjection", "SiglipVisionModel", "ViTMAEModel"])
def test_features_equal_those_of_transformers(tmp_path, kind):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 61}
    sizes |= {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    if kind == "CLIPModel":
        theirs = hf.CLIPModel(
            hf.CLIPConfig(
                vision_config=sizes,
                projection_dim=7,
                text_config={
                    "hidden_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "intermediate_size": 8,
                    "vocab_size": 9,
                },
            )
        )
    else:
        options = {"projection_dim": 7} if "CLIP" in kind else {"mask_ratio": 0.0} if "MAE" in kind else {}
        theirs = getattr(hf, kind)(getattr(hf, re.sub(r"Model.*", "Config", kind))(**sizes, **options))
    with torch.no_grad():
        for x in theirs.eval().parameters():
            x.add_(0.1 * torch.randn_like(x))
    theirs.save_pretrained(tmp_path)
    loaded = load(None, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] in hf_architecture.models()
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3), dtype=np.float32)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        if kind == "CLIPModel":
            wanted = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
        elif "CLIP" in kind:
            wanted = theirs(pixels).image_embeds
        else:
            out = theirs(pixels)
            wanted = out.last_hidden_state[:, 0] if "MAE" in kind else out.pooler_output
    found = loaded.model.apply(loaded.variables, images)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4 * max(1, np.abs(wanted.numpy()).max()))


def test_a_file_without_config_is_read_under_a_name(tmp_path):
    model = helpers.make(("vit_base_patch16_clip_224", SMALL | CLIP))
    save_file(both_towers(helpers.weights(model)), tmp_path / "clip.safetensors")
    loaded = load("vit_base_patch16_clip_224", tmp_path / "clip.safetensors", **SMALL)
    assert loaded.model.num_classes == 5
