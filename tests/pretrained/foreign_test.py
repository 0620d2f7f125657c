"""Other layouts of the same weights: names written out as their files have them, then compared tensor by tensor."""

import argparse
import re
from functools import partial

import jax
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.pretrained import convert, export, load
from tests.helpers import pretrained as helpers
from tests.helpers.google_vit import NEW_QKV, OLD_QKV, google


def assert_reads(case, make_layout, **fields):
    """The layout made from drawn weights in timm's names is read back to those weights."""
    model = helpers.make(case, **fields)
    wanted = helpers.weights(model)
    layout = make_layout({name: array for name, array in wanted.items() if "num_batches" not in name})
    helpers.assert_same(export(model, convert(model, layout)), wanted)


def split_qkv(state, name, names):
    """Takes one fused tensor out and returns its three parts under other names."""
    return dict(zip(names, np.split(state.pop(name), 3), strict=True))


def hf_block(state, timm, hf, attention, output, qkv, mlp):
    """One transformer block in Transformers' names; `attention`, `output`, `qkv` and `mlp` changed with version 5."""
    layout = {}
    for leaf in ("weight", "bias"):
        names = [f"{hf}.{attention}.{part}.{leaf}" for part in qkv]
        layout |= split_qkv(state, f"{timm}.attn.qkv.{leaf}", names)
        layout[f"{hf}.{output}.{leaf}"] = state.pop(f"{timm}.attn.proj.{leaf}")
        layout[f"{hf}.layernorm_before.{leaf}"] = state.pop(f"{timm}.norm1.{leaf}")
        layout[f"{hf}.layernorm_after.{leaf}"] = state.pop(f"{timm}.norm2.{leaf}")
        for i in (1, 2):
            layout[f"{hf}.{mlp[i - 1]}.{leaf}"] = state.pop(f"{timm}.mlp.fc{i}.{leaf}")
    return layout


OLD_MLP, NEW_MLP = ("intermediate.dense", "output.dense"), ("mlp.fc1", "mlp.fc2")


def hf_vit(state, word, new):
    layout, start = {}, f"{word}.layers" if new else f"{word}.encoder.layer"
    words = ("attention", "attention.o_proj", NEW_QKV, NEW_MLP)
    words = words if new else ("attention.attention", "attention.output.dense", OLD_QKV, OLD_MLP)
    for i in range(sum(name.endswith("norm1.weight") for name in state)):
        layout |= hf_block(state, f"blocks.{i}", f"{start}.{i}", *words)
    top = {
        "cls_token": "embeddings.cls_token",
        "dist_token": "embeddings.distillation_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    layout |= {f"{word}.{hf}": state.pop(timm) for timm, hf in top.items() if timm in state}
    heads = {
        "head": "cls_classifier" if "head_dist.bias" in state else "classifier",
        "head_dist": "distillation_classifier",
    }
    layout |= {f"{heads[n.split('.')[0]]}.{n.split('.')[1]}": array for n, array in state.items()}
    return layout


@pytest.mark.parametrize("new", [False, True])
def test_transformers_vit(new):
    def layout(state):
        made = hf_vit(state, "vit", new)
        return made | {"vit.pooler.dense.weight": np.ones((3, 3), np.float32), "vit.embeddings.mask_token": np.ones(3)}

    assert_reads(helpers.VIT, layout)


@pytest.mark.parametrize("new", [False, True])
def test_transformers_deit_with_teacher(new):
    assert_reads(helpers.DEIT, lambda state: hf_vit(state, "deit", new))


@pytest.mark.parametrize("new", [False, True])
def test_transformers_swin(new):
    def layout(state):
        made, start = {}, "swin.encoder.layers"
        table = "attention.relative_position_bias" if new else "attention.self"
        words = ("attention", "attention.o_proj", NEW_QKV, NEW_MLP)
        words = words if new else ("attention.self", "attention.output.dense", OLD_QKV, OLD_MLP)
        for s, b in ((0, 0), (1, 0), (1, 1)):
            timm, hf = f"layers.{s}.blocks.{b}", f"{start}.{s}.blocks.{b}"
            made[f"{hf}.{table}.relative_position_bias_table"] = state.pop(f"{timm}.attn.relative_position_bias_table")
            made[f"{hf}.{table}.relative_position_index"] = np.zeros((16, 16), np.int64)
            made |= hf_block(state, timm, hf, *words)
        for leaf in ("reduction.weight", "norm.weight", "norm.bias"):
            made[f"{start}.0.downsample.{leaf}"] = state.pop(f"layers.1.downsample.{leaf}")
        for leaf in ("weight", "bias"):
            made[f"swin.embeddings.patch_embeddings.projection.{leaf}"] = state.pop(f"patch_embed.proj.{leaf}")
            made[f"swin.embeddings.norm.{leaf}"] = state.pop(f"patch_embed.norm.{leaf}")
            made[f"swin.layernorm.{leaf}"] = state.pop(f"norm.{leaf}")
            made[f"classifier.{leaf}"] = state.pop(f"head.fc.{leaf}")
        assert not state
        return made

    assert_reads(helpers.SWIN, layout)


def test_transformers_resnet():
    def layout(state):
        made = {}
        for name, array in state.items():
            words = name.split(".")
            if words[0] in ("conv1", "bn1"):
                part = {"conv1": "convolution", "bn1": "normalization"}[words[0]]
                made[f"resnet.embedder.embedder.{part}.{words[1]}"] = array
            elif words[0] == "fc":
                made[f"classifier.1.{words[1]}"] = array
            else:
                stage, layer = int(words[0][-1]) - 1, words[1]
                place = {f"{k}{i}": f"layer.{i - 1}" for k in ("conv", "bn") for i in (1, 2, 3)}.get(
                    words[2], "shortcut"
                )
                norm = words[2].startswith("bn") or words[2:4] == ["downsample", "1"]
                part = "normalization" if norm else "convolution"
                made[f"resnet.encoder.stages.{stage}.layers.{layer}.{place}.{part}.{words[-1]}"] = array
        return made

    fields = {"layers": (1, 2), "channels": (8, 16), "num_classes": 5, "image_size": 32}
    assert_reads(("resnet18", fields), layout)
    assert_reads(("resnet50", fields), layout)


def test_swin_of_the_authors():
    def layout(state):
        made = {name.replace("head.fc.", "head."): array for name, array in state.items()}
        for leaf in ("reduction.weight", "norm.weight", "norm.bias"):
            made[f"layers.0.downsample.{leaf}"] = made.pop(f"layers.1.downsample.{leaf}")
        made["layers.1.blocks.1.attn_mask"] = np.zeros((4, 16, 16), np.float32)
        made["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((16, 16), np.int64)
        return {"model": made}

    assert_reads(helpers.SWIN, layout)


def convnext(state, stem, rest):
    """Renames by a table for each kind of name; the layers of atto are linear everywhere but in timm."""
    made = {}
    for name, array in state.items():
        for old, new in stem if name.startswith("stem") else rest:
            name = re.sub(old, new, name)
        array = array.reshape(1, 1, 1, -1) if "grn" in name else array
        made[name] = array[..., 0, 0] if re.search(r"(pwconv|pointwise_conv|fc)\d\.weight", name) else array
    return made


BLOCKS = ((r"\.conv_dw\.", ".dwconv."), (r"\.mlp\.fc", ".pwconv"), (r"\.mlp\.grn", ".grn"))
FACEBOOK = (
    [(r"^stem\.", "downsample_layers.0.")],
    [(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."), (r"\.blocks\.", "."), *BLOCKS,
     (r"\.grn\.weight", ".grn.gamma"), (r"\.grn\.bias", ".grn.beta"), (r"^head\.norm", "norm"), (r"\.fc\.", ".")],
)  # fmt: skip
HF_BLOCKS = [
    (r"\.downsample\.", ".downsampling_layer."), (r"blocks\.(\d+)\.norm", r"blocks.\1.layernorm"),
    (r"\.blocks\.", ".layers."), *BLOCKS, (r"gamma$", "layer_scale_parameter"),
]  # fmt: skip
HF_CONVNEXT = (
    [(r"^stem\.0", "convnext.embeddings.patch_embeddings"), (r"^stem\.1", "convnext.embeddings.layernorm")],
    [
        *HF_BLOCKS,
        ("^stages", "convnext.encoder.stages"),
        ("^head.norm", "convnext.layernorm"),
        ("^head.fc", "classifier"),
    ],
)
HF_DINO = (
    [(r"^stem", "stages.0.downsample_layers")],
    [(r"\.downsample\.", ".downsample_layers."), (r"blocks\.(\d+)\.norm", r"blocks.\1.layer_norm"),
     (r"\.blocks\.", ".layers."), (r"\.conv_dw\.", ".depthwise_conv."), (r"\.mlp\.fc", ".pointwise_conv"),
     (r"^head\.norm", "layer_norm")],
)  # fmt: skip
CONVNEXT = {"depths": (1, 2, 1, 1), "dims": (8, 12, 16, 24), "image_size": 32}


def openclip_convnext(state):
    """OpenCLIP around a network of timm's, whose projection has no bias; the hidden layer is OpenCLIP's own."""
    last = "head.mlp.fc2" if "head.pre_logits.fc.weight" in state else "head.proj"
    layers = {"head.pre_logits.fc": "head.mlp.fc1", "head.fc": last}
    made = {"logit_scale": np.ones((), np.float32), "transformer.resblocks.0.ln_1.weight": np.ones(3, np.float32)}
    assert not state.pop("head.fc.bias").any()
    for name, array in state.items():
        module, leaf = name.rsplit(".", 1)
        made[f"visual.{layers[module]}.{leaf}" if module in layers else f"visual.trunk.{name}"] = array
    return made


@pytest.mark.parametrize(
    ("name", "make", "fields"),
    [
        ("convnext_atto", partial(convnext, stem=FACEBOOK[0], rest=FACEBOOK[1]), {"num_classes": 5}),
        ("convnextv2_atto", partial(convnext, stem=FACEBOOK[0], rest=FACEBOOK[1]), {"num_classes": 5}),
        ("convnext_atto", partial(convnext, stem=HF_CONVNEXT[0], rest=HF_CONVNEXT[1]), {"num_classes": 5}),
        ("convnextv2_atto", partial(convnext, stem=HF_CONVNEXT[0], rest=HF_CONVNEXT[1]), {"num_classes": 0}),
        ("convnext_atto", partial(convnext, stem=HF_DINO[0], rest=HF_DINO[1]), {"num_classes": 0}),
        ("convnext_base", openclip_convnext, {"num_classes": 5}),
        ("convnext_large_mlp", openclip_convnext, {"num_classes": 5, "head_hidden_size": 20}),
    ],
)
def test_convnexts(name, make, fields):
    model = helpers.make((name, CONVNEXT), **fields)
    wanted = helpers.weights(model)
    if "head.fc.bias" in wanted and make is openclip_convnext:
        wanted["head.fc.bias"][:] = 0
    made = make(dict(wanted))
    assert not {*made} & {n for n in wanted if n != "gamma"}
    helpers.assert_same(export(model, convert(model, made)), wanted)


def test_torchvision_vgg():
    def layout(state):
        made = {name: array for name, array in state.items() if name.startswith("features")}
        for leaf in ("weight", "bias"):
            first, second = state[f"pre_logits.fc1.{leaf}"], state[f"pre_logits.fc2.{leaf}"]
            made[f"classifier.0.{leaf}"] = first.reshape(len(first), -1) if leaf == "weight" else first
            made[f"classifier.3.{leaf}"] = second.reshape(len(second), -1) if leaf == "weight" else second
            made[f"classifier.6.{leaf}"] = state[f"head.fc.{leaf}"]
        return made

    assert_reads(helpers.VGG, layout)


def test_deit3():
    def layout(state):
        made = {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): a for name, a in state.items()}
        assert any(name.endswith("gamma_2") for name in made)
        return made

    assert_reads(("deit3_small_patch16_224", {"depth": 2, "image_size": 32, "num_classes": 5}), layout)


@pytest.mark.parametrize("stacked", [False, True])
def test_big_vision_vit(stacked):
    def layout(state):
        made = google(state, 3, new=True, stacked=stacked)
        return {f"params/{name}": array for name, array in made.items()}

    assert_reads(helpers.VIT, layout)


def test_big_vision_siglip_with_its_pooling_head():
    def layout(state):
        made, pool, attn = {}, "attn_pool", "MAPHead_0/MultiHeadDotProductAttention_0"
        made["MAPHead_0/probe"] = state.pop(f"{pool}.latent")
        key, value = np.split(state.pop(f"{pool}.kv.weight"), 2)
        heads = {"query": state.pop(f"{pool}.q.weight"), "key": key, "value": value}
        d = len(key)
        made |= {f"{attn}/{part}/kernel": w.T.reshape(d, 3, d // 3) for part, w in heads.items()}
        key, value = np.split(state.pop(f"{pool}.kv.bias"), 2)
        heads = {"query": state.pop(f"{pool}.q.bias"), "key": key, "value": value}
        made |= {f"{attn}/{part}/bias": b.reshape(3, d // 3) for part, b in heads.items()}
        made[f"{attn}/out/kernel"] = state.pop(f"{pool}.proj.weight").T.reshape(3, d // 3, d)
        made[f"{attn}/out/bias"] = state.pop(f"{pool}.proj.bias")
        made["MAPHead_0/LayerNorm_0/scale"] = state.pop(f"{pool}.norm.weight")
        made["MAPHead_0/LayerNorm_0/bias"] = state.pop(f"{pool}.norm.bias")
        for j in (0, 1):
            made[f"MAPHead_0/MlpBlock_0/Dense_{j}/kernel"] = state.pop(f"{pool}.mlp.fc{j + 1}.weight").T
            made[f"MAPHead_0/MlpBlock_0/Dense_{j}/bias"] = state.pop(f"{pool}.mlp.fc{j + 1}.bias")
        made |= google(state, 3, new=True)
        assert not state
        return {f"params/img/{name}": array for name, array in made.items()}

    fields = {"embed_dim": 24, "num_heads": 3, "depth": 1, "image_size": 32, "num_classes": 0}
    assert_reads(("vit_base_patch16_siglip_224", fields), layout)


def test_a_strange_layout_is_listed_not_guessed():
    model = helpers.make(helpers.SWIN)
    with pytest.raises(UserError, match="49 missing, 1 misshapen"):
        convert(model, {"swin.embeddings.patch_embeddings.projection.weight": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match="not an array|expected an array"):
        convert(model, {"a": "word"})
    with pytest.raises(UserError, match="both mean"):
        convert(model, {"head.weight": np.zeros(3, np.float32), "head.fc.weight": np.zeros(3, np.float32)})


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["ViT", "DeiT", "Swin", "ResNet"])
def test_logits_equal_those_of_transformers(kind):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    vit = {"embed_dim": 24, "num_heads": 3, "depth": 2, "image_size": 32}
    hf_vit = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    hf_vit |= {"image_size": 32, "patch_size": 16, "layer_norm_eps": 1e-6}
    swin = {"image_size": 32, "embed_dim": 16, "depths": (1, 2), "num_heads": (2, 4), "window_size": 4}
    resnet = {"layers": (2, 1), "channels": (64, 128), "image_size": 32}
    hf_resnet = {"embedding_size": 64, "hidden_sizes": [64, 128], "depths": [2, 1], "layer_type": "basic"}
    config, head, case = {
        "ViT": (hf_vit, "", ("vit_tiny_patch16_224", vit)),
        "DeiT": (hf_vit, "WithTeacher", ("deit_tiny_distilled_patch16_224", vit)),
        "Swin": (swin, "", ("swin_tiny_patch4_window7_224", swin)),
        "ResNet": (hf_resnet, "", ("resnet18", resnet)),
    }[kind]
    torch.manual_seed(0)
    config = getattr(hf, f"{kind}Config")(**{**config, "num_labels": 5})
    theirs = getattr(hf, f"{kind}ForImageClassification{head}")(config).eval()
    with torch.no_grad():
        for name, x in (*theirs.named_parameters(), *theirs.named_buffers()):
            if x.is_floating_point():
                positive = x.ndim == 1 and name.endswith(("weight", "var"))
                x.copy_(0.5 + torch.rand_like(x) if positive else torch.randn_like(x) * 0.2)
    model = helpers.make(case, num_classes=5)
    variables = convert(model, {name: x.numpy() for name, x in theirs.state_dict().items()})
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3), dtype=np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(model.apply(variables, images), wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


def dinov2(state):
    """DINOv2's own names, where SwiGLU's matrices are w12 and w3 and the class token has its position apart."""
    made = {n.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): a for n, a in state.items()}
    made |= {"mask_token": np.ones((1, 24), np.float32), "register_tokens": made.pop("reg_token")}
    first = np.random.default_rng(0).standard_normal((1, 1, 24)).astype(np.float32)
    made["cls_token"] = made["cls_token"] - first
    made["pos_embed"] = np.concatenate([first, made["pos_embed"]], axis=1)
    return made


def openclip(state):
    """OpenCLIP around a network of timm's, with a text tower and a projection."""
    made = {f"visual.trunk.{n}": a for n, a in state.items() if not n.startswith("head.")}
    made |= {"visual.head.proj.weight": state["head.weight"], "logit_scale": np.ones((), np.float32)}
    return made | {f"text.transformer.layer.{i}.weight": np.ones(3, np.float32) for i in range(90)}


def clip(state):
    """OpenAI's names of the image tower, beside a text tower."""
    swaps = (("patch_embed.proj.", "conv1."), ("norm_pre.", "ln_pre."), ("blocks.", "transformer.resblocks."),
             ("norm1.", "ln_1."), ("norm2.", "ln_2."), ("attn.qkv.", "attn.in_proj_"), ("attn.proj.", "attn.out_proj."),
             ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."))  # fmt: skip
    made = {}
    for name, array in state.items():
        for ours, theirs in swaps:
            name = name.replace(ours, theirs)
        made["visual." + name.replace("norm.", "ln_post.") if name.startswith("norm.") else "visual." + name] = array
    made["visual.class_embedding"] = made.pop("visual.cls_token")[0, 0]
    made["visual.positional_embedding"] = made.pop("visual.pos_embed")[0]
    made["visual.proj"] = made.pop("visual.head.weight").T
    made.pop("visual.head.bias")
    return made | {"transformer.resblocks.0.ln_1.weight": np.ones(3), "token_embedding.weight": np.ones((4, 3))}


AIMV2 = (
    ("patch_embed.", "preprocessor.patchifier."), ("pos_embed", "preprocessor.pos_embed"), ("mlp.fc1_g", "mlp.fc1"),
    ("mlp.fc1_x", "mlp.fc3"), ("norm1", "norm_1"), ("norm2", "norm_2"), ("blocks.", "trunk.blocks."),
)  # fmt: skip


def aimv2(state):
    """Apple's names, with the last norm within the trunk."""
    made = {}
    for name, array in state.items():
        for ours, theirs in AIMV2:
            name = name.replace(ours, theirs)
        made[name] = array
    made |= {f"trunk.post_trunk_{name}": made.pop(name) for name in [n for n in made if n.startswith("norm.")]}
    return made


def tips(state):
    """TIPSv2: DINOv2's names in a model of images and texts."""
    made = {f"vision_encoder.{name}": array for name, array in dinov2(state).items()}
    return made | {f"text_encoder.transformer.layers.{i}.weight": np.ones(3, np.float32) for i in range(40)}


BEIT3 = (("attn.norm", "attn.inner_attn_ln"), ("attn.proj", "attn.out_proj"), (".attn.", ".self_attn."),
         ("mlp.norm", "mlp.ffn_layernorm"), (".norm1", ".self_attn_layer_norm"),
         (".norm2", ".final_layer_norm"))  # fmt: skip


def beit3(state):
    """BEiT-3: each module has a branch for images (A) and one for texts (B); fairseq's table of positions."""
    state, made = dict(state), {}
    table = state.pop("pos_embed")[0]
    made["beit3.encoder.embed_positions.A.weight"] = np.concatenate([np.ones((2, table.shape[1]), np.float32), table])
    made["beit3.vision_embed.cls_token"] = state.pop("cls_token")
    made["beit3.vision_embed.mask_token"] = np.ones((1, 1, 24), np.float32)
    made["beit3.text_embed.weight"] = np.ones((9, 24), np.float32)
    for name in [n for n in state if ".qkv." in n]:
        split = [name.replace("qkv", f"{part}_proj") for part in "qkv"]
        state |= split_qkv(state, name, split)
    for name, array in state.items():
        if name.startswith("patch_embed."):
            made[name.replace("patch_embed.", "beit3.vision_embed.")] = array
        elif name.startswith("blocks."):
            *path, leaf = name.replace("blocks.", "beit3.encoder.layers.").split(".")
            module = ".".join(path)
            for ours, theirs in BEIT3:
                module = module.replace(ours, theirs)
            if ".mlp." in module:
                module = module.replace(".mlp.", ".ffn.A.")
                made[f"{module}.{leaf}"] = array
                made[f"{module.replace('.A.', '.B.')}.{leaf}"] = array + 1
            else:
                made[f"{module}.A.{leaf}"], made[f"{module}.B.{leaf}"] = array, array + 1
        else:
            made[name] = array
    return {"model": made}


def radio(state, grid=16):
    """RADIO: flat patches without bias, a token for each teacher and registers, a table for the largest image."""
    rng = np.random.default_rng(3)
    made = {n.replace("gamma", "grandma"): a for n, a in state.items() if n.startswith("blocks.")}
    kernel = state["patch_embed.proj.weight"]
    made["patch_generator.embedder.weight"] = kernel.reshape(len(kernel), -1)
    made["patch_generator.cls_token.token"] = np.concatenate([state["cls_token"], state["reg_token"]], axis=1)[0]
    made["patch_generator.pos_embed"] = rng.standard_normal((1, grid * grid, 24)).astype(np.float32)
    made = {f"radio_model.model.{name}": array for name, array in made.items()}
    made["radio_model.input_conditioner.norm_mean"] = np.ones((3, 1, 1), np.float32)
    return made | {"radio_model.summary_idxs": np.arange(3), "radio_model.model.norm.weight": np.ones(24, np.float32)}


SMALL = {"embed_dim": 24, "num_heads": 2, "depth": 2, "image_size": 28, "patch_size": 14}
TIMM_READS = {
    "DINOv2": (dinov2, "vit_giant_patch14_reg4_dinov2", SMALL | {"num_classes": 0, "mlp_ratio": 2.0}),
    "OpenCLIP": (openclip, "vit_base_patch16_clip_224", SMALL | {"num_classes": 5}),
    "CLIP": (clip, "vit_base_patch16_clip_224", SMALL | {"num_classes": 5}),
    "I-JEPA": (
        lambda state: {"encoder": {f"module.{n}": a for n, a in state.items()}, "epoch": 3},
        "vit_huge_patch14_gap_224",
        SMALL | {"num_classes": 0},
    ),
    "AIMv2": (aimv2, "aimv2_large_patch14_224", SMALL | {"num_classes": 0}),
    "TIPS": (tips, "vit_base_patch14_reg1_tipsv2", SMALL | {"num_classes": 0}),
    "TIPS SwiGLU": (tips, "vit_giant_patch14_reg1_tipsv2", SMALL | {"num_classes": 0}),
    "BEiT-3": (beit3, "beit3_base_patch16_224", SMALL | {"num_classes": 5}),
}
RADIOS = [
    (f"vit_{size}", image)
    for size in ("base_patch16_radio_v3", "huge_patch16_radio_v3", "large_patch16_radio_v3", "huge_patch16_radio_v4")
    for image in ((64, 64), (32, 64), (256, 256))
]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, image_size", RADIOS)
def test_radio_is_read_as_timm_reads_it(name, image_size, tmp_path):
    """Its positions, too, which timm resizes in two ways and cuts from a square."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    numpy_files = pytest.importorskip("safetensors.numpy")
    fields = {"embed_dim": 24, "num_heads": 2, "depth": 1, "num_classes": 0}
    state = radio(helpers.weights(helpers.make((name, fields | {"image_size": image_size, "patch_size": 16}))))
    numpy_files.save_file(state, tmp_path / "radio.safetensors")
    theirs = timm.create_model(name, img_size=image_size, **fields)
    from timm.models import vision_transformer as source

    kwargs = {"interpolation": "bilinear", "antialias": False}
    kwargs["align_corners"] = any(n in name for n in source._RADIO_ALIGN_CORNERS)
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in state.items()}
    theirs.load_state_dict(source.checkpoint_filter_fn(tensors, theirs, **kwargs), strict=True)
    ours = load(name, str(tmp_path / "radio.safetensors"), image_size=image_size, **fields)
    found = export(ours.model, ours.variables)
    for key, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(found[key], tensor.numpy(), atol=2e-6, err_msg=key)


def test_radio_without_timm(tmp_path):
    """At the size of its own table nothing is resized, and every tensor is where it belongs."""
    fields = {"embed_dim": 24, "num_heads": 2, "depth": 1, "num_classes": 0, "image_size": 64}
    model = helpers.make(("vit_base_patch16_radio_v3", fields))
    wanted = helpers.weights(model)
    state = radio(wanted, grid=4)
    found = export(model, convert(model, state))
    wanted |= {"patch_embed.proj.bias": np.zeros(24), "pos_embed": state["radio_model.model.patch_generator.pos_embed"]}
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.parametrize("case", TIMM_READS)
def test_layouts_that_timm_reads(case):
    layout, name, fields = TIMM_READS[case]
    model = helpers.make((name, fields))
    wanted = helpers.weights(model)
    if "head.bias" in wanted:
        wanted["head.bias"][:] = 0  # these projections have none
    found = export(model, convert(model, layout(dict(wanted))))
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        np.testing.assert_allclose(found[key], array, atol=1e-6, err_msg=key)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", TIMM_READS)
def test_layouts_are_read_as_timm_reads_them(case):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from timm.models.vision_transformer import checkpoint_filter_fn

    layout, name, fields = TIMM_READS[case]
    model = helpers.make((name, fields))
    state = layout(helpers.weights(model))
    tensors = jax.tree.map(lambda a: torch.from_numpy(np.array(a)) if isinstance(a, np.ndarray) else a, state)
    theirs = timm.create_model(name, **{"img_size" if k == "image_size" else k: v for k, v in fields.items()})
    theirs.load_state_dict(checkpoint_filter_fn(tensors, theirs), strict=False)
    found = export(model, convert(model, state))
    for key, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(found[key], tensor.numpy(), err_msg=key)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_timms_own_saver(tmp_path):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from timm.utils import CheckpointSaver, ModelEmaV3

    name, fields = helpers.RESNET
    theirs = timm.create_model(name, num_classes=5)
    average = ModelEmaV3(theirs, decay=0.5)
    with torch.no_grad():
        for x in theirs.parameters():
            x.add_(1.0)
    args = argparse.Namespace(model=name, lr=0.1, output="runs", amp_dtype="float16")
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9)
    saver = CheckpointSaver(theirs, optimizer, args, model_ema=average, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(3, metric=0.5)
    for weights, module, other in (
        ("raw", theirs, "ema"),
        ("ema", average.module, "raw"),
        (None, average.module, "raw"),
    ):
        loaded = load(name, tmp_path, weights=weights, image_size=32)
        found = export(loaded.model, loaded.variables)
        for key, tensor in module.state_dict().items():
            np.testing.assert_array_equal(found[key], tensor.numpy(), err_msg=key)
        assert f"weights={other!r} takes" in loaded.notes[0]
