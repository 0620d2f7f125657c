"""`config.json` beside weights: read as its writer meant it, and checked like any file from a stranger."""

import json
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.models.registry import create_model
from jaxvit.pretrained import convert, export, load, load_pretrained, save, stored_data_config
from tests.helpers import pretrained as helpers

VIT_NAME, VIT = helpers.VIT


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("test_vit2", {"init_values": None, "image_size": 32, "num_classes": 5}),
        ("vit_tiny_patch16_224", {"init_values": 0.1, "depth": 1, "image_size": 32, "num_classes": 5}),
        ("resnetblur18", {"aa_layer": None, "num_classes": 5, "layers": (1, 1), "channels": (8, 8)}),
        ("vit_medium_patch16_gap_240", {"fc_norm": None, "depth": 1, "image_size": 32, "num_classes": 5}),
        ("seresnet18", {"attn_layer": None, "num_classes": 5, "layers": (1, 1), "channels": (8, 8)}),
    ],
)
@pytest.mark.filterwarnings("ignore:timm has no field:UserWarning")
def test_none_is_a_value_that_comes_back(tmp_path, name, fields):
    model = create_model(name, **fields)
    weights = helpers.weights(model)
    save(model, convert(model, weights), tmp_path, name=name)
    loaded = load(None, tmp_path)
    assert loaded.model == model
    helpers.assert_same(export(loaded.model, loaded.variables), weights)


@pytest.fixture
def directory(tmp_path):
    """A saved model; call it with the changes of its config.json."""
    model = helpers.make(helpers.VIT)
    save(model, convert(model, helpers.weights(model)), tmp_path, name=VIT_NAME)
    whole = json.loads((tmp_path / "config.json").read_text())

    def change(args, cfg):
        changed = whole | {"model_args": whole["model_args"] | args, "pretrained_cfg": whole["pretrained_cfg"] | cfg}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        return tmp_path

    return change


@pytest.mark.parametrize(
    ("args", "cfg", "said"),
    [
        ({}, {"crop_pct": 100}, "crop_pct=100; expected a share"),
        ({}, {"crop_pct": 0}, "crop_pct=0; expected a share"),
        ({}, {"crop_pct": "big"}, "crop_pct=big; expected a share"),
        ({}, {"std": ["a"]}, "std=.*; expected one number above 0 per channel"),
        ({}, {"std": [0, 0, 0]}, "std=.*; expected one number above 0 per channel"),
        ({}, {"std": []}, "std=.*; expected one number above 0 per channel"),
        ({}, {"mean": [float("nan")] * 3}, "mean=.*; expected one number per channel"),
        ({}, {"mean": [[0.5]] * 3}, "mean=.*; expected one number per channel"),
        ({}, {"mean": [0.5] * 10_000}, "mean=.*; expected one number per channel"),
        ({}, {"interpolation": 3}, "interpolation=3; expected nearest or bilinear"),
        ({}, {"interpolation": ["bicubic"]}, "interpolation=.*; expected nearest"),
        ({}, {"crop_mode": {}}, "crop_mode={}; expected center"),
        ({"name": "x"}, {}, "has no field 'name'"),
        ({"parent": None, "name": "x"}, {}, "has no field 'name'"),
        ({"depth": 10_000_000}, {}, "depth=10000000 is too large; expected at most 1000"),
        ({"depth": 1e30}, {}, "wrong type"),
        ({"embed_dim": 2**40}, {}, "embed_dim=.* is too large"),
        ({"num_heads": 0}, {}, "num_heads=0 is too small"),
        ({"mlp_ratio": 1e30}, {}, "mlp_ratio=1e\\+30 is too large"),
        ({"img_size": [2**30, 2**30]}, {}, "image_size=.* is too large"),
        ({"patch_size": [16] * 9999}, {}, "patch_size|more than 4096 entries"),
        ({"depth": 900}, {}, "depth=900, but .* holds 3. tensors"),
        ({"embed_dim": 61440}, {}, "describes a model of .* numbers; the file holds"),
    ],
)
def test_a_config_from_a_stranger_is_checked_like_a_users_options(directory, args, cfg, said):
    begun = time.monotonic()
    path = directory(args, cfg)
    with pytest.raises(UserError, match=said):
        load_pretrained(VIT_NAME, path)
    if not said.startswith(("depth=900", "describes")):
        with pytest.raises(UserError, match=said):
            stored_data_config(VIT_NAME, path)
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"depth": ' + "9" * 5000 + "}", '{"a": 1' + "0" * 50 + "}", '{"a": 1e999}', "\x00", "3"]
)
def test_a_config_that_is_no_config(directory, text):
    path = directory({}, {})
    (path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config.json"):
        load_pretrained(VIT_NAME, path)


def test_the_image_size_asked_for_goes_before_the_checkpoints_own(tmp_path):
    small = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    model = create_model("vit_small_patch14_dinov2", image_size=70, **small)
    weights = helpers.weights(model)
    save_file(weights, tmp_path / "x.safetensors")
    loaded = load("vit_small_patch14_dinov2", tmp_path / "x.safetensors", image_size=64, patch_size=16, **small)
    assert loaded.notes == (
        "image_size: pos_embed resampled from 5x5 to 4x4 patches",
        "patch_size: patch_embed.proj.weight resampled from (14, 14) to (16, 16) pixels",
    )
    save(model, convert(model, weights), tmp_path / "d")
    assert load(None, tmp_path / "d", image_size=64, patch_size=16).notes == loaded.notes
    with pytest.raises(UserError, match="not divisible by patch size 16x16; the nearest image_size is"):
        load("vit_small_patch14_dinov2", tmp_path / "x.safetensors", patch_size=16, **small)


def resnet_of_transformers(directory, config):
    (directory / "config.json").write_text(json.dumps({"model_type": "resnet", "hidden_act": "relu"} | config))
    save_file({"resnet.embedder.embedder.convolution.weight": np.zeros((64, 3, 7, 7), np.float32)},
              directory / "model.safetensors")  # fmt: skip
    return directory


@pytest.mark.parametrize("word", ["downsample_in_bottleneck", "downsample_in_first_stage"])
def test_what_a_transformers_resnet_may_do_and_ours_cannot(tmp_path, word):
    with pytest.raises(UserError, match=f"{word}=True; expected False, as its weights would give other logits"):
        load("resnet50", resnet_of_transformers(tmp_path, {word: True}))
    with pytest.raises(UserError, match="holds 1 tensors"):  # and without it the tensors are looked at
        load("resnet50", resnet_of_transformers(tmp_path, {word: False}))
    with pytest.raises(UserError, match="a ResNet with hidden_act='silu'; expected 'relu'"):
        load("resnet50", resnet_of_transformers(tmp_path, {"hidden_act": "silu"}))


def test_pre_logits_are_never_dropped_beside_the_classifier_that_reads_them(tmp_path):
    weights = helpers.weights(helpers.make(helpers.VIT))
    hidden = {"pre_logits.fc.weight": np.ones((192, 192), np.float32), "pre_logits.fc.bias": np.ones(192, np.float32)}
    save_file(weights | hidden, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="reads a hidden layer, pre_logits.*\nExpected num_classes=0"):
        load(VIT_NAME, tmp_path / "x.safetensors", depth=2)
    with pytest.raises(UserError, match=r"unexpected pre_logits.fc.weight"):
        convert(helpers.make(helpers.VIT), weights | hidden)
    for classes in (0, 7):
        loaded = load(VIT_NAME, tmp_path / "x.safetensors", depth=2, num_classes=classes)
        assert loaded.notes[0] == "pre_logits is not loaded" and len(loaded.notes) == 2


HF_CASES = {
    "other heads": ("ViT", {"num_attention_heads": 4}, VIT_NAME),
    "another activation": ("ViT", {"hidden_act": "gelu_new"}, VIT_NAME),
    "another epsilon": ("ViT", {"layer_norm_eps": 1e-2}, VIT_NAME),
    "DeiT": ("DeiT", {"hidden_act": "quick_gelu"}, "deit_tiny_distilled_patch16_224"),
    "basic ResNet": ("ResNet", {"layer_type": "basic", "hidden_sizes": [64, 128]}, "resnet18"),
    "bottlenecks": ("ResNet", {"hidden_sizes": [256, 512]}, "resnet50"),
    "Swin": ("Swin", {}, "swin_tiny_patch4_window7_224"),
}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", HF_CASES)
def test_directories_that_transformers_saved(tmp_path, case):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind, own, name = HF_CASES[case]
    sizes = {"image_size": 32, "num_labels": 5}
    ours: dict = {"image_size": 32}
    if kind in ("ViT", "DeiT"):
        sizes |= {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
        ours |= {"embed_dim": 24, "depth": 2}  # the number of heads is that of the config
    elif kind == "Swin":
        grid = {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}
        sizes |= grid
        ours |= {**grid, "depths": (1, 2), "num_heads": (2, 4)}
    else:
        sizes = {"depths": [2, 1], "embedding_size": 64, "num_labels": 5}
        ours |= {"layers": (2, 1), "channels": (64, 128)}
    torch.manual_seed(0)
    teacher = "WithTeacher" if kind == "DeiT" else ""
    theirs = getattr(hf, f"{kind}ForImageClassification{teacher}")(getattr(hf, f"{kind}Config")(**(sizes | own))).eval()
    with torch.no_grad():
        for x in theirs.parameters():
            x.add_(0.1 * torch.randn_like(x))
    theirs.save_pretrained(tmp_path)
    torch.save({"lr": 0.1}, tmp_path / "training_args.bin")
    loaded = load(name, tmp_path, **ours)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3), dtype=np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).logits.numpy()
    found = loaded.model.apply(loaded.variables, images)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_a_transformers_swin_whose_windows_do_not_divide_its_map_is_refused(tmp_path):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    grid = {"image_size": 40, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
    theirs = hf.SwinForImageClassification(hf.SwinConfig(**grid, num_labels=5))
    theirs.save_pretrained(tmp_path)
    ours = {**grid, "depths": (2, 2), "num_heads": (2, 4)}
    with pytest.raises(UserError, match="pads a map of 10x10 for windows of 4x4 otherwise than timm"):
        load("swin_tiny_patch4_window7_224", tmp_path, **ours)
    assert torch


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("registers", [False, True])
def test_dinov2_of_transformers_and_its_patches_resampled(tmp_path, registers):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    word = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(hf, f"{word}Config")(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=6, image_size=70, patch_size=14
    )
    torch.manual_seed(0)
    theirs = getattr(hf, f"{word}Model")(config).eval()
    with torch.no_grad():
        for x in theirs.parameters():
            x.add_(0.1 * torch.randn_like(x))
    theirs.save_pretrained(tmp_path)
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    small = {"depth": 2, "embed_dim": 24}
    loaded = load(name, tmp_path, **small)
    assert loaded.model.num_heads == 6 and loaded.model.image_size == 70
    images = np.random.default_rng(0).standard_normal((2, 70, 70, 3), dtype=np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).pooler_output.numpy()
    np.testing.assert_allclose(loaded.model.apply(loaded.variables, images), wanted, atol=1e-4)
    assert len(load(name, tmp_path, patch_size=8, image_size=40, **small).notes) == 1  # 5x5 patches as before
