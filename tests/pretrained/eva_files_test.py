"""Weights of EVA, DINOv3 and the like as they were released: names written out, compared with timm's own reading."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.pretrained import convert, export, hf_architecture, identify, load
from tests.helpers import pretrained as helpers

RNG = np.random.default_rng(0)


def renamed(state, *rows):
    """Names changed by patterns, each row in order."""
    changed = {}
    for name, array in state.items():
        for pattern, replacement in rows:
            name = re.sub(pattern, replacement, name)
        changed[name] = array
    return changed


GATED = (r"mlp\.fc1_g\.", "mlp.w1."), (r"mlp\.fc1_x\.", "mlp.w2."), (r"mlp\.fc2\.", "mlp.w3.")


def dinov3(state):
    """Meta's: joint biases of which the keys' third is NaN under a mask, periods, what pretraining leaves."""
    gated = any("fc1_g" in name for name in state)
    found = renamed(
        state, (r"gamma_([12])$", r"ls\1.gamma"), ("reg_token", "storage_tokens"), *(GATED if gated else ())
    )
    for i in range(2):
        start = f"blocks.{i}.attn"
        q, v = (found.pop(f"{start}.{part}_bias", np.zeros(16, np.float32)) for part in "qv")
        found[f"{start}.qkv.bias"] = np.concatenate([q, np.full_like(q, np.nan), v])
        found[f"{start}.qkv.bias_mask"] = np.repeat(np.float32([1, 0, 1]), 16)
    extra = {"mask_token": (1, 16), "rope_embed.periods": (2,), "local_cls_norm.weight": (16,)}
    return found | {name: np.ones(shape, np.float32) for name, shape in extra.items()}


def eva02(state):
    """BAAI's: sub-norms, biases of queries and values, angles as buffers."""
    found = renamed(
        state,
        *GATED,
        (r"mlp\.norm\.", "mlp.ffn_ln."),
        (r"attn\.norm\.", "attn.inner_attn_ln."),
        (r"attn\.([qv])_proj\.bias$", r"attn.\1_bias"),
    )
    return found | {"rope.freqs_cos": np.ones((6, 8), np.float32), "blocks.0.attn.rope.freqs_sin": np.ones((6, 8))}


def eva02_packed(state):
    return renamed(state, (r"mlp\.fc1\.", "mlp.w12."), (r"mlp\.fc2\.", "mlp.w3."))


def eva_clip(state):
    """The image tower next to that of the text."""
    return renamed(eva02(state), ("^", "visual.")) | {"text.proj": np.ones(3, np.float32)}


def masked(state):
    extra = {"mask_token": (1, 1, 16), "lm_head.weight": (9, 16), "lm_head.bias": (9,)}
    return renamed(state, (r"^fc_norm\.", "norm.")) | {n: np.ones(s, np.float32) for n, s in extra.items()}


def perception(state, prefix=""):
    found = renamed(
        state,
        (r"attn_pool\.latent$", "attn_pool.probe"),
        (r"attn_pool\.norm\.", "attn_pool.layernorm."),
        (r"attn_pool\.proj\.", "attn_pool.attn.out_proj."),
        (r"^patch_embed\.proj\.", "conv1."),
        ("^cls_token$", "class_embedding"),
        ("^pos_embed$", "positional_embedding"),
        (r"^blocks\.", "transformer.resblocks."),
        (r"^norm_pre\.", "ln_pre."),
        (r"^norm\.", "ln_post."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"gamma_([12])$", r"ls_\1.gamma"),
        (r"attn\.qkv\.", "attn.in_proj_"),
        (r"attn\.proj\.", "attn.out_proj."),
        (r"mlp\.fc1\.", "mlp.c_fc."),
        (r"mlp\.fc2\.", "mlp.c_proj."),
    )
    for leaf in ("weight", "bias"):
        if f"attn_pool.q.{leaf}" in found:
            parts = [found.pop(f"attn_pool.{part}.{leaf}") for part in ("q", "kv")]
            found[f"attn_pool.attn.in_proj_{leaf}"] = np.concatenate(parts)
    found["positional_embedding"] = found["positional_embedding"][0]
    if "class_embedding" in found:
        found["class_embedding"] = found["class_embedding"][0, 0]
    if "head.weight" in found:
        found["proj"] = np.ascontiguousarray(found.pop("head.weight").T)
        found.pop("head.bias")
    return renamed(found, ("^", prefix)) if prefix else found


def pe_clip(state):
    return perception(state, "visual.") | {"logit_scale": np.ones((), np.float32)}


def sapiens2(state):
    found = renamed(
        state,
        *GATED,
        (r"mlp\.fc1\.", "mlp.w12."),
        (r"mlp\.", "ffn."),
        ("^reg_token$", "storage_tokens"),
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"attn\.([qkv])_proj\.", r"attn.w\1."),
        (r"\.gamma_1$", ".attn.gamma.weight"),
        (r"\.norm([12])\.", r".ln\1."),
        (r"^norm\.", "ln1."),
    )
    return found | {"mask_token": np.ones((1, 1, 16), np.float32)}


def naver(state):
    freqs = state["rope.freqs"]
    found = renamed(state, (r"^rope\.", ""))
    return found | {"freqs": freqs.reshape(2, 2, -1), "freqs_t_x": np.ones(6, np.float32)}


SMALL = {"depth": 2, "embed_dim": 16, "num_heads": 2, "image_size": (8, 12), "patch_size": 4, "num_classes": 0}
RELEASED = {
    "DINOv3": (dinov3, "vit_small_patch16_dinov3_qkvb", {}),
    "DINOv3, zero biases": (dinov3, "vit_small_patch16_dinov3", {}),
    "DINOv3, SwiGLU": (dinov3, "vit_huge_plus_patch16_dinov3_qkvb", {}),
    "EVA-02": (eva02, "eva02_base_patch14_448", {"num_classes": 5}),
    "EVA-02, packed": (eva02_packed, "eva02_tiny_patch14_336", {"num_classes": 5}),
    "EVA-02, masked": (masked, "eva02_tiny_patch14_224", {}),
    "EVA-CLIP": (eva_clip, "eva02_base_patch16_clip_224", {"num_classes": 5}),
    "PE core": (pe_clip, "vit_pe_core_base_patch16_224", {"num_classes": 5, "attn_pool_num_heads": 2}),
    "PE core, no class token": (pe_clip, "vit_pe_core_gigantic_patch14_448", {"attn_pool_num_heads": 2}),
    "PE language": (perception, "vit_pe_lang_large_patch14_448", {}),
    "PE spatial": (perception, "vit_pe_spatial_tiny_patch16_512", {}),
    "Sapiens2": (sapiens2, "vit_base_patch16_sapiens2", {"num_kv_heads": (2, 1)}),
}


def case_of(word):
    layout, name, fields = RELEASED[word]
    return layout, (name, {**SMALL, **fields})


@pytest.mark.parametrize("word", RELEASED)
def test_released_files_are_read(word):
    layout, case = case_of(word)
    model = helpers.make(case)
    wanted = helpers.weights(model)
    if layout is pe_clip and "head.bias" in wanted:
        wanted["head.bias"][:] = 0  # that projection has none
    helpers.assert_same(export(model, convert(model, layout(dict(wanted)))), wanted)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("word", RELEASED)
def test_released_files_are_read_as_timm_reads_them(word):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from timm.models.eva import checkpoint_filter_fn

    layout, (name, fields) = case_of(word)
    model = helpers.make((name, fields))
    state = layout(helpers.weights(model))
    theirs = timm.create_model(name, **{"img_size" if k == "image_size" else k: v for k, v in fields.items()})
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in state.items()}
    theirs.load_state_dict(checkpoint_filter_fn(tensors, theirs), strict=True)
    found = export(model, convert(model, state))
    for key, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(found[key], tensor.numpy(), err_msg=key)


def test_learnt_frequencies_of_naver():
    """By hand, as timm does not read them: frequency f of head h is entry h * 32 + f of a block's row."""
    small = {**SMALL, "embed_dim": 128, "num_classes": 3}
    model = helpers.make(("vit_small_patch16_rope_mixed_ape_224", small))
    wanted = helpers.weights(model)
    assert wanted["rope.freqs"].shape == (2, 2, 2, 32)
    helpers.assert_same(export(model, convert(model, naver(dict(wanted)))), wanted)


def test_biases_are_left_out_only_where_they_are_zero(tmp_path):
    model = helpers.make(("vit_small_patch16_dinov3_qkvb", SMALL))
    state = helpers.weights(model)
    save_file(dinov3(dict(state)), tmp_path / "dinov3.safetensors")
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.q_bias"):
        load("vit_small_patch16_dinov3", tmp_path / "dinov3.safetensors", **SMALL)
    save_file(
        dinov3({n: np.zeros_like(a) if "_bias" in n else a for n, a in state.items()}), tmp_path / "zero.safetensors"
    )
    loaded = load("vit_small_patch16_dinov3", tmp_path / "zero.safetensors", **SMALL)
    assert any("are zero" in note for note in loaded.notes)


@pytest.mark.parametrize(
    "name",
    [
        "eva02_small_patch14_336",
        "eva02_base_patch16_clip_224",
        "eva_giant_patch14_clip_224",
        "vit_small_patch16_rope_mixed_224",
        "vit_base_patch16_rope_reg1_gap_256",
        "vit_small_plus_patch16_dinov3_qkvb",
        "vit_base_patch16_sapiens2",
        "vit_pe_lang_large_patch14_448",
    ],
)
def test_files_are_recognised(name):
    rules = helpers.rules.rules_of(registry.create_model(name, num_classes=3))
    nothing = np.zeros(1, np.float32)  # of most tensors the name is enough
    tensors = {rule.name: np.broadcast_to(nothing, rule.shape) for rule in rules}
    assert name in identify.identify(tensors)
    assert len(identify.identify(tensors)) <= 2  # with the same network for other images or weights


# What the config.json of published repositories says -> timm's name.
HF = {"model_type": "dinov3_vit", "num_register_tokens": 4, "image_size": 224, "layerscale_value": 1.0}
PUBLISHED = {
    "facebook/dinov3-vits16-pretrain-lvd1689m": ({}, "vit_small_patch16_dinov3_qkvb"),
    "facebook/dinov3-vits16plus-pretrain-lvd1689m": (
        {"use_gated_mlp": True, "hidden_act": "silu"}, "vit_small_plus_patch16_dinov3_qkvb"),
    "facebook/dinov3-vitl16-pretrain-sat493m": (
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        "vit_large_patch16_dinov3_qkvb"),
    "facebook/dinov3-vit7b16-pretrain-lvd1689m": (
        {"hidden_size": 4096, "intermediate_size": 8192, "num_hidden_layers": 40, "num_attention_heads": 32,
         "use_gated_mlp": True, "hidden_act": "silu", "query_bias": False, "value_bias": False},
        "vit_7b_patch16_dinov3"),
}  # fmt: skip


def test_configs_of_transformers_are_resolved():
    for config, name in PUBLISHED.values():
        assert hf_architecture.architecture(HF | config) == name
    for config, said in (
        ({"key_bias": True}, "key_bias=True"),
        ({"value_bias": False}, "value_bias=False; expected True"),
        ({"use_gated_mlp": True}, "hidden_act=gelu; expected 'silu'"),
        ({"hidden_size": "wide"}, "hidden_size=wide"),
    ):
        with pytest.raises(UserError, match=said):
            hf_architecture.architecture(HF | config)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gated", [False, True])
def test_dinov3_of_transformers(tmp_path, gated):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    act = {"use_gated_mlp": True, "hidden_act": "silu", "rope_theta": 50.0} if gated else {"num_register_tokens": 3}
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 61}
    torch.manual_seed(0)
    theirs = hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**sizes, image_size=32, patch_size=8, **act)).eval()
    with torch.no_grad():
        for x in theirs.parameters():
            x.add_(0.1 * torch.randn_like(x))
    theirs.save_pretrained(tmp_path)
    loaded = load(None, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "dinov3_vit"
    images = RNG.standard_normal((2, 24, 40, 3), dtype=np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).pooler_output.numpy()
    found = loaded.model.apply(loaded.variables, images)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
