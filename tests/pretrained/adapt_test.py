"""Weights of another head, size or stem."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import export, load, load_pretrained, resample
from tests.helpers import pretrained as helpers

VIT_NAME, VIT = helpers.VIT


def logits(model, variables, seed=0):
    size = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
    rng = np.random.default_rng(seed)
    return model.apply(variables, rng.standard_normal((1, *size, model.in_channels), dtype=np.float32))


def test_a_new_head(saved):
    model, variables = load_pretrained(VIT_NAME, saved["vit"], num_classes=9)
    assert not np.any(variables["params"]["head"]["kernel"])
    np.testing.assert_array_equal(logits(model, variables), np.zeros((1, 9)))
    one, two, three = (
        load_pretrained(VIT_NAME, saved["vit"], num_classes=9, head_init="normal", seed=seed)[1]["params"]["head"]
        for seed in (1, 1, 2)
    )
    assert 0.01 < np.std(one["kernel"]) < 0.03 and not np.any(one["bias"])
    np.testing.assert_array_equal(one["kernel"], two["kernel"])
    assert np.any(one["kernel"] != three["kernel"])
    with pytest.raises(UserError, match="head_init='ones' is unknown"):
        load_pretrained(VIT_NAME, saved["vit"], num_classes=9, head_init="ones")
    same = load(VIT_NAME, saved["vit"], num_classes=5)
    assert same.notes == () and np.any(same.variables["params"]["head"]["kernel"])


@pytest.mark.parametrize(("word", "width"), [("vit", 192), ("swin", 32), ("resnet", 96), ("deit", 192)])
def test_no_head(saved, word, width):
    loaded = load(helpers.ALL[word][0], saved[word], num_classes=0)
    assert logits(loaded.model, loaded.variables).shape == (1, width)
    assert all("is not loaded" in note for note in loaded.notes) and loaded.notes


def test_both_heads_of_a_distilled_model_are_new(saved):
    loaded = load(helpers.DEIT[0], saved["deit"], num_classes=3)
    assert len(loaded.notes) == 2
    assert loaded.variables["params"]["head_dist"]["kernel"].shape == (192, 3)


def test_a_feature_file_gives_features_or_a_fresh_head(tmp_path):
    model = helpers.make(helpers.VIT, num_classes=0)
    save_file(helpers.weights(model), tmp_path / "x.safetensors")
    own = {"depth": 2}
    assert load_pretrained(VIT_NAME, tmp_path / "x.safetensors", **own)[0].num_classes == 0
    loaded = load(VIT_NAME, tmp_path / "x.safetensors", num_classes=4, **own)
    assert loaded.notes == ("num_classes=4: head is fresh (zero)",)


def test_siglip_without_its_pooling_head(tmp_path):
    name, small = "vit_base_patch16_siglip_224", {"embed_dim": 24, "num_heads": 2, "depth": 1, "image_size": 32}
    save_file(helpers.weights(helpers.make((name, small))), tmp_path / "x.safetensors")
    loaded = load(name, tmp_path / "x.safetensors", global_pool="avg", fc_norm=False, **small)
    assert loaded.notes == ("global_pool='avg': attn_pool is not loaded",)
    with pytest.raises(UserError, match="has no field 'depht'"):
        load("resnet18", revision="never asked", depht=3)


def test_a_new_image_size(saved):
    before = helpers.weights(helpers.make(helpers.VIT))["pos_embed"]
    loaded = load(VIT_NAME, saved["vit"], image_size=(48, 80))
    wanted = resample.resample_abs_pos_embed(before, (3, 5), (2, 2), 1)
    np.testing.assert_array_equal(loaded.variables["params"]["pos_embed"], wanted)
    assert loaded.notes == ("image_size: pos_embed resampled from 2x2 to 3x5 patches",)
    assert loaded.data_config["image_size"] == (48, 80)


def test_new_windows(saved):
    name, weights = helpers.SWIN[0], helpers.weights(helpers.make(helpers.SWIN))
    loaded = load(name, saved["swin"], image_size=(16, 64), window_size=8)
    key = "layers.0.blocks.0.attn.relative_position_bias_table"
    ours = export(loaded.model, loaded.variables)[key]
    np.testing.assert_array_equal(ours, resample.resize_rel_pos_bias_table(weights[key], (4, 8), (4, 4)))
    assert "stage 0: 4x4 to 4x8" in loaded.notes[0]


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("word", ["vit", "swin", "resnet"])
def test_other_channels(saved, word, channels):
    loaded = load(helpers.ALL[word][0], saved[word], in_channels=channels)
    assert len(loaded.notes) == 1 and f"from 3 to {channels} channels" in loaded.notes[0]
    assert logits(loaded.model, loaded.variables).shape == (1, 5)


def test_patches_are_resampled_only_when_asked(saved, tmp_path):
    loaded = load(VIT_NAME, saved["vit"], patch_size=8)
    assert loaded.variables["params"]["patch_embed"]["proj"]["kernel"].shape == (8, 8, 3, 192)
    weights = helpers.weights(helpers.make(helpers.VIT, patch_size=32, image_size=224))
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"patch_embed.proj.weight is \[192, 3, 32, 32\], expected"):
        load_pretrained(VIT_NAME, tmp_path / "x.safetensors", depth=2)


@pytest.mark.parametrize("name", ["resnet18", "resnet18d", "resnetrs50"])
def test_a_cifar_stem_is_fresh_and_named(tmp_path, name):
    small = {"layers": (1, 1), "channels": (16, 16), "num_classes": 5}
    weights = helpers.weights(helpers.make((name, small)))
    save_file(weights, tmp_path / "x.safetensors")
    loaded = load(name, tmp_path / "x.safetensors", stem="cifar", image_size=32, **small)
    assert "stem='cifar': conv1 is fresh; not loaded: conv1." in loaded.notes[0]
    ours = export(loaded.model, loaded.variables)
    assert ours["conv1.weight"].shape == (64, 3, 3, 3) and 0.03 < ours["conv1.weight"].std() < 0.1
    for key in ("bn1.weight", "layer2.0.conv2.weight", "fc.weight"):
        np.testing.assert_array_equal(ours[key], weights[key])
