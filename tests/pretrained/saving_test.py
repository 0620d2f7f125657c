"""The way back: what is written, that it is whole or not at all, and that timm loads it and predicts the same."""

import json
import os

import numpy as np
import pytest
from safetensors import safe_open

from jaxvit.errors import RunError, UserError
from jaxvit.models.registry import create_model
from jaxvit.pretrained import convert, load, load_pretrained, save
from jaxvit.pretrained.saving import differences, make_config, nearest_entry
from tests.helpers import pretrained as helpers


def drawn(case, **fields):
    model = helpers.make(case, **fields)
    return model, convert(model, helpers.weights(model))


def test_the_files(tmp_path):
    model, variables = drawn(helpers.VIT, image_size=(32, 48))
    names = ["ant", "bee", "cat", "dog", "eel"]
    path = save(model, variables, tmp_path / "new" / "place", name="vit_tiny_patch16_224", label_names=names)
    assert sorted(os.listdir(path)) == ["config.json", "model.safetensors"]
    config = json.loads((path / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224" and config["label_names"] == names
    args = {"depth": 2, "num_classes": 5, "in_chans": 3, "img_size": [32, 48], "global_pool": "token"}
    assert config["model_args"] == args
    cfg = config["pretrained_cfg"]
    assert (cfg["input_size"], cfg["num_classes"], cfg["classifier"]) == ([3, 32, 48], 5, "head")
    assert (cfg["mean"], cfg["first_conv"]) == ([0.5, 0.5, 0.5], "patch_embed.proj")
    with safe_open(path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(helpers.weights(model))


def test_other_channels_get_the_average_colour():
    cfg = make_config(create_model("resnet18", in_channels=1), "resnet18.a1_in1k")["pretrained_cfg"]
    np.testing.assert_allclose([cfg["mean"], cfg["std"]], [[0.449], [0.226]])
    assert cfg["tag"] == "a1_in1k" and cfg["input_size"] == [1, 224, 224]


def test_preprocessing_can_be_given():
    model = create_model("vit_tiny_patch16_224")
    given = {"mean": (0.1, 0.1, 0.1), "std": (1, 1, 1), "crop_pct": 1.0, "interpolation": "bilinear"}
    cfg = make_config(model, "vit_tiny_patch16_224", given)["pretrained_cfg"]
    assert (cfg["mean"], cfg["crop_pct"], cfg["interpolation"]) == ([0.1] * 3, 1.0, "bilinear")


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_384", "deit3_base_patch16_224", "vit_base_patch16_clip_224", "swin_s3_small_224", "resnet50d",
     "seresnext50_32x4d", "resnetrs101", "vgg13_bn", "deit_small_distilled_patch16_224", "ecaresnet50d_pruned"],
)  # fmt: skip
def test_the_entry_is_found_from_the_fields(name):
    found = nearest_entry(create_model(name, num_classes=3, drop_rate=0.3))
    assert differences(create_model(name), found) == {}
    assert found == name


def test_how_positions_began_is_not_recorded():
    fixed = create_model("vit_small_patch16_224", pos_embed="sincos2d")
    assert make_config(fixed) == make_config(create_model("vit_small_patch16_224"))


def test_what_timm_cannot_say_is_kept_for_jaxvit(tmp_path):
    fields = {"stem": "cifar", "num_classes": 5, "image_size": 32, "layers": (1, 1, 1, 1)}
    model, variables = drawn(("resnet18", fields))
    with pytest.warns(UserWarning, match="timm has no field for stem='cifar'"):
        save(model, variables, tmp_path, name="resnet18")
    assert json.loads((tmp_path / "config.json").read_text())["jaxvit"] == {"stem": "cifar"}
    loaded = load("resnet18", tmp_path)
    assert loaded.model == model and loaded.notes == ()


def test_a_failed_save_leaves_the_old_files(tmp_path, monkeypatch):
    model, variables = drawn(helpers.VIT)
    save(model, variables, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(RunError, match="cannot write .*: No space left"):
        save(model, variables, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_mistakes(tmp_path):
    model, variables = drawn(helpers.VIT)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        save(model, variables, tmp_path / "file")
    with pytest.raises(UserError, match="unknown model"):
        save(model, variables, tmp_path / "x", name="vit_tiny")
    with pytest.raises(UserError, match="variables are not those"):
        save(helpers.make(helpers.VIT, depth=3), variables, tmp_path / "x")
    assert not (tmp_path / "x").exists()


SMALL_SWIN = {"depths": (1, 2, 1, 1), "embed_dim": 24, "num_classes": 4}
EVA = {"depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 8, "image_size": 32, "num_classes": 4}
CASES = {
    "vit": (helpers.VIT, {"image_size": (32, 48)}),
    "deit": (helpers.DEIT, {}),
    "deit3": (("deit3_small_patch16_224", {"depth": 1, "image_size": 32, "num_classes": 0}), {}),
    "eva02": (("eva02_base_patch14_224", EVA), {}),
    "rope": (("vit_small_patch16_rope_mixed_ape_224", EVA), {"image_size": (32, 48)}),
    "pe": (("vit_pe_core_base_patch16_224", {**EVA, "attn_pool_num_heads": 2}), {}),
    "dinov3": (("vit_small_patch16_dinov3_qkvb", {**EVA, "num_reg_tokens": 2}), {"image_size": (32, 48)}),
    "sapiens2": (("vit_large_patch16_sapiens2", {**EVA, "num_kv_heads": (2, 1)}), {}),
    "swin": (("swin_tiny_patch4_window7_224", SMALL_SWIN), {"image_size": 64}),
    "resnet": (helpers.RESNET, {"in_channels": 1}),
    "resnet d": (("resnet18d", {"layers": (1, 1, 1, 1), "num_classes": 4, "image_size": 64}), {}),
}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_timm_loads_what_is_saved(tmp_path, case):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    (name, own), fields = case
    model, variables = drawn((name, own), **fields)
    save(model, variables, tmp_path, name=name)
    args = json.loads((tmp_path / "config.json").read_text())["model_args"]
    size = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
    images = np.random.default_rng(0).standard_normal((2, *size, model.in_channels), dtype=np.float32)
    ours = np.asarray(model.apply(variables, images))
    for theirs in (
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True),
        timm.create_model(name, checkpoint_path=str(tmp_path / "model.safetensors"), **args),
    ):
        with torch.no_grad():
            wanted = theirs.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(ours, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


# timm's words for a change on load, and ours; the first column is a case above.
CHANGES = [
    ("vit", {"img_size": (64, 32)}, {"image_size": (64, 32)}),
    ("vit", {"in_chans": 1, "num_classes": 0}, {"in_channels": 1, "num_classes": 0}),
    ("vit", {"patch_size": 8}, {"patch_size": 8}),
    ("deit", {"img_size": 80, "in_chans": 5}, {"image_size": 80, "in_channels": 5}),
    ("deit3", {"img_size": (48, 64)}, {"image_size": (48, 64)}),
    ("eva02", {"img_size": (48, 64), "in_chans": 1}, {"image_size": (48, 64), "in_channels": 1}),
    ("eva02", {"num_classes": 0}, {"num_classes": 0}),
    ("rope", {"img_size": (48, 64)}, {"image_size": (48, 64)}),
    ("rope", {"patch_size": 4, "num_classes": 0}, {"patch_size": 4, "num_classes": 0}),
    ("pe", {"img_size": 48, "in_chans": 5, "num_classes": 0}, {"image_size": 48, "in_channels": 5, "num_classes": 0}),
    ("dinov3", {"img_size": 64, "in_chans": 2}, {"image_size": 64, "in_channels": 2}),
    ("sapiens2", {"img_size": (24, 40), "num_classes": 0}, {"image_size": (24, 40), "num_classes": 0}),
    ("swin", {"img_size": (96, 128)}, {"image_size": (96, 128)}),
    ("swin", {"window_size": 4, "in_chans": 4}, {"window_size": 4, "in_channels": 4}),
    ("swin", {"img_size": 128, "window_size": 12}, {"image_size": 128, "window_size": 12}),
    ("resnet", {"in_chans": 3, "num_classes": 0}, {"in_channels": 3, "num_classes": 0}),
    ("resnet d", {"in_chans": 4}, {"in_channels": 4}),
]  # fmt: skip


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("case", "theirs", "ours"), CHANGES)
def test_files_of_timm_changed_on_load_equal_timms(tmp_path, case, theirs, ours):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    hub = pytest.importorskip("timm.models._hub")
    (name, own), fields = CASES[case]
    source = helpers.make((name, own), **fields)
    words = {"image_size": "img_size", "in_channels": "in_chans"}
    args = {words.get(k, k): v for k, v in (own | fields).items() if case[:6] != "resnet" or k != "image_size"}
    written = timm.create_model(name, **args)
    written.load_state_dict({k: torch.from_numpy(v) for k, v in helpers.weights(source).items()})
    hub.save_for_hf(written, tmp_path, safe_serialization=True)
    wanted = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **theirs).eval()
    extra = {"image_size": own["image_size"]} if case[:6] == "resnet" else {}
    model, variables = load_pretrained(name, tmp_path, **(extra | ours))
    size = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
    images = np.random.default_rng(0).standard_normal((2, *size, model.in_channels), dtype=np.float32)
    with torch.no_grad():
        logits = wanted(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(model.apply(variables, images), logits, atol=1e-5 * max(1, np.abs(logits).max()))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_a_cifar_stem_equals_timm_changed_by_hand(tmp_path):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    fields = {"layers": (1, 1, 1, 1), "num_classes": 4}
    source = helpers.make(("resnet18", fields))
    save(source, convert(source, helpers.weights(source)), tmp_path)
    model, variables = load_pretrained("resnet18", tmp_path, stem="cifar", image_size=32)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    theirs.conv1, theirs.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    kernel = np.asarray(variables["params"]["conv1"]["kernel"]).transpose(3, 2, 0, 1)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3), dtype=np.float32)
    with torch.no_grad():
        theirs.conv1.weight.copy_(torch.from_numpy(kernel))
        logits = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(model.apply(variables, images), logits, atol=1e-5 * max(1, np.abs(logits).max()))
