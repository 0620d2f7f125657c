"""Transformers' configs in timm's words: its own published ones, and preprocessing by hand."""

import json

import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.pretrained import hf_architecture, load
from jaxvit.pretrained.timm_config import label_names

DINO = {"model_type": "dinov2", "image_size": 518, "layer_norm_eps": 1e-6, "mlp_ratio": 4, "patch_size": 14}
GIANT = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True}
# What the config.json of published repositories says -> timm's name of the same network.
PUBLISHED = {
    "google/vit-base-patch16-224": ({"model_type": "vit", "hidden_size": 768}, "vit_base_patch16_224"),
    "google/vit-large-patch32-384": (
        {"model_type": "vit", "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
         "num_hidden_layers": 24, "image_size": 384, "patch_size": 32}, "vit_large_patch32_384"),
    "WinKawaks/vit-tiny-patch16-224": (
        {"model_type": "vit", "hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3},
        "vit_tiny_patch16_224"),
    "facebook/deit-small-distilled-patch16-224": (
        {"model_type": "deit", "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6},
        "deit_small_distilled_patch16_224"),
    "microsoft/swin-tiny-patch4-window7-224": ({"model_type": "swin", "embed_dim": 96}, "swin_tiny_patch4_window7_224"),
    "microsoft/swin-base-patch4-window12-384": (
        {"model_type": "swin", "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32],
         "window_size": 12, "image_size": 384}, "swin_base_patch4_window12_384"),
    "microsoft/swinv2-base-patch4-window12to16-192to256-22kto1k-ft": (
        {"model_type": "swinv2", "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32],
         "window_size": 16, "image_size": 256, "pretrained_window_sizes": [12, 12, 12, 6]},
        "swinv2_base_window12to16_192to256"),
    "microsoft/resnet-18": (
        {"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
        "resnet18"),
    "microsoft/resnet-50": ({"model_type": "resnet"}, "resnet50"),
    "microsoft/resnet-152": ({"model_type": "resnet", "depths": [3, 8, 36, 3]}, "resnet152"),
    "facebook/convnext-tiny-224": ({"model_type": "convnext"}, "convnext_tiny"),
    "facebook/convnext-base-384": (
        {"model_type": "convnext", "depths": [3, 3, 27, 3], "hidden_sizes": [128, 256, 512, 1024], "image_size": 384},
        "convnext_base"),
    "facebook/convnextv2-atto-1k-224": (
        {"model_type": "convnextv2", "depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}, "convnextv2_atto"),
    "facebook/dinov3-convnext-large-pretrain-lvd1689m": (
        {"model_type": "dinov3_convnext", "depths": [3, 3, 27, 3], "hidden_sizes": [192, 384, 768, 1536]},
        "convnext_large"),
    "facebook/dinov2-small": (DINO | {"hidden_size": 384, "num_attention_heads": 6}, "vit_small_patch14_dinov2"),
    "facebook/dinov2-giant": (DINO | GIANT, "vit_giant_patch14_dinov2"),
    "facebook/dinov2-with-registers-base": (
        DINO | {"model_type": "dinov2_with_registers"}, "vit_base_patch14_reg4_dinov2"),
}  # fmt: skip


@pytest.mark.parametrize("repo", PUBLISHED)
def test_published_configs_are_resolved_to_timms_names(repo):
    config, name = PUBLISHED[repo]
    assert hf_architecture.architecture(config) == name


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "pvt_v2"}, "architecture 'pvt_v2' of Transformers .no class named. is not supported"),
        ({"model_type": "vit", "architectures": [7], "num_hidden_layers": True}, "num_hidden_layers=True; expected a"),
        ({"model_type": "vit", "hidden_size": 10**9}, "hidden_size=1000000000; expected a whole number"),
        ({"model_type": "vit", "hidden_act": ["gelu"]}, "hidden_act=.* is not supported"),
        ({"model_type": "vit", "patch_size": {}}, "patch_size"),
        ({"model_type": "vit", "image_size": [1] * 99}, "image_size"),
        ({"model_type": "resnet", "hidden_sizes": 3}, "hidden_sizes=3; expected a list of whole numbers"),
        ({"model_type": "resnet", "layer_type": "odd"}, "block"),
        ({"model_type": "swin", "depths": "x"}, "depths"),
        (DINO | {"architectures": ["Dinov2ForImageClassification"]}, "expected the features alone"),
        ({"model_type": "deit", "architectures": ["DeiTForImageClassification"]}, "that no classifier reads"),
    ],
)
def test_what_a_stranger_can_write_is_refused(config, said):
    with pytest.raises(UserError, match=said):
        hf_architecture.resolve(config)


VIT = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, {}),
        (VIT | {"size": 224}, {"crop_pct": 1.0, "crop_mode": "squash"}),
        (VIT | {"size": {"height": 224, "width": 224}}, {"crop_pct": 1.0, "crop_mode": "squash"}),
        (VIT | {"size": {"shortest_edge": 224}}, {"crop_pct": 1.0, "crop_mode": "center"}),
        (VIT | {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
         {"crop_pct": 0.875, "crop_mode": "center"}),
        (VIT | {"size": 256, "do_center_crop": True, "crop_size": 224}, {"crop_pct": 0.875, "crop_mode": "squash"}),
        (VIT | {"size": {"shortest_edge": 224}, "crop_pct": 0.9}, {"crop_pct": 0.9, "crop_mode": "center"}),
        (VIT | {"size": {"shortest_edge": 384}, "crop_pct": 0.9}, {"crop_pct": 1.0, "crop_mode": "squash"}),
    ],
)  # fmt: skip
def test_preprocessing(config, wanted):
    usual = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"} if config else {}
    assert hf_architecture.preprocessing(config) == usual | wanted


def test_pixels_in_another_range_are_refused_and_those_without_normalisation_kept():
    for strange in ({"rescale_factor": 1 / 127.5}, {"do_rescale": False}, {"rescale_factor": "x"}):
        with pytest.raises(UserError, match="expected 1/255"):
            hf_architecture.preprocessing(VIT | strange)
    found = hf_architecture.preprocessing(VIT | {"do_normalize": False, "size": 8})
    assert (found["mean"], found["std"]) == ([0.0] * 3, [1.0] * 3)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"0": "cat", "1": "dog"}, ["cat", "dog"]),
        ({"1": "dog", "0": "cat"}, ["cat", "dog"]),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),
        ({"0": "cat", "2": "dog"}, None),
        ({"0": 7}, None),
        ([], None),
        (None, None),
    ],
)
def test_classes(table, wanted):
    assert hf_architecture.label_names({"id2label": table}) == wanted
    named = wanted if wanted is None or table is None else list(wanted)
    if isinstance(table, dict) and "LABEL_0" not in table.values():
        assert label_names({"label_names": table}) == named  # timm allows a table as well


def test_several_labels_per_image_have_sigmoids(tmp_path):
    config = {"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}
    assert "thresholds" not in hf_architecture.complete(config, tmp_path)
    several = hf_architecture.complete(config | {"problem_type": "multi_label_classification"}, tmp_path)
    assert several["thresholds"] == [0.5, 0.5] and several["num_classes"] == 2
    assert hf_architecture.complete({"architecture": "resnet18"}, tmp_path) == {"architecture": "resnet18"}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["ViT", "Swin", "ResNet", "Dinov2"])
def test_directories_of_transformers_need_no_name(tmp_path, kind):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    small = {
        "ViT": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 97},
        "Swin": {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4},
        "ResNet": {"depths": [2, 1], "hidden_sizes": [64, 128], "layer_type": "basic", "embedding_size": 64},
        "Dinov2": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "use_swiglu_ffn": True},
    }[kind]
    sizes = {} if kind == "ResNet" else {"image_size": 28 if kind == "Dinov2" else 32}
    torch.manual_seed(0)
    made = getattr(hf, f"{kind}Model" if kind == "Dinov2" else f"{kind}ForImageClassification")
    theirs = made(getattr(hf, f"{kind}Config")(**small, **sizes)).eval()
    theirs.save_pretrained(tmp_path)
    loaded = load(None, tmp_path)
    side = sizes.get("image_size", 32)
    images = np.random.default_rng(0).standard_normal((2, side, side, 3), dtype=np.float32)
    with torch.no_grad():
        out = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    wanted = out.pooler_output if kind == "Dinov2" else out.logits
    np.testing.assert_allclose(loaded.model.apply(loaded.variables, images), wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind.lower()
