"""What the config.json beside the weights says."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvit.data.splits import IMAGENET_MEAN
from jaxvit.errors import UserError
from jaxvit.models.registry import create_model
from jaxvit.pretrained import convert, export, load, load_pretrained, resample, save, stored_data_config
from jaxvit.pretrained.loading import _agree
from jaxvit.pretrained.saving import make_config
from jaxvit.pretrained.timm_config import own_data_config
from tests.helpers import pretrained as helpers

VIT_NAME, VIT = helpers.VIT


def test_windows_that_are_not_square_are_known_from_the_config(tmp_path):
    model = helpers.make(helpers.SWIN, image_size=(16, 64), window_size=8)  # windows 4x8 and 2x8
    weights = helpers.weights(model)
    save(model, convert(model, weights), tmp_path)
    loaded = load(helpers.SWIN[0], tmp_path, image_size=64)
    key = "layers.0.blocks.0.attn.relative_position_bias_table"
    ours = export(loaded.model, loaded.variables)[key]
    np.testing.assert_array_equal(ours, resample.resize_rel_pos_bias_table(weights[key], (8, 8), (4, 8)))


def test_windows_take_images_of_any_size_as_timms_word_asks(tmp_path):
    model = helpers.make(helpers.SWIN)
    save(model, convert(model, helpers.weights(model)), tmp_path, name=helpers.SWIN[0])
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"]["dynamic_img_size"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(None, tmp_path).model == model


def test_a_config_of_another_architecture(saved):
    with pytest.raises(UserError, match="holds 'test_resnet', as its config.json says, not 'resnet18'"):
        load_pretrained("resnet18", saved["resnet"])


def test_what_was_saved_without_its_name_is_loaded_by_it(tmp_path):
    fields = {"depth": 1, "num_heads": 2, "embed_dim": 16, "patch_size": 8, "image_size": 8, "num_classes": 5}
    model = create_model(VIT_NAME, **fields)
    variables = convert(model, helpers.weights(model))
    save(model, variables, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "vit_small_patch8_224"
    loaded = load(VIT_NAME, tmp_path)
    assert (loaded.name, loaded.model) == (VIT_NAME, model)
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded.variables, variables))
    assert stored_data_config(VIT_NAME, tmp_path)["image_size"] == (8, 8)


TINY = {"embed_dim": 192, "num_heads": 3, "image_size": (32, 48)}


@pytest.mark.parametrize(
    ("name", "fields"), [("deit_tiny_patch16_224", {"image_size": (32, 48)}), ("vit_base_patch16_224", TINY)]
)
def test_several_names_of_the_same_fields_are_one_model(name, fields):
    model = create_model(name, **fields)
    config = make_config(model)
    assert config["architecture"] == VIT_NAME  # exactly
    found, saved = _agree(name, config, Path("model.safetensors"), fields)
    assert found == name and create_model(name, **saved) == model


def test_what_save_guessed_does_not_overrule_the_preprocessing_of_a_name():
    model = create_model("deit_tiny_patch16_224", image_size=32)
    guessed, given = make_config(model), make_config(model, data_config={"mean": (0.1, 0.2, 0.3), "crop_pct": 0.77})
    assert own_data_config("deit_tiny_patch16_224", model, guessed)["mean"] == IMAGENET_MEAN
    assert own_data_config(VIT_NAME, model, guessed)["mean"] == (0.5, 0.5, 0.5)
    assert own_data_config("deit_tiny_patch16_224", model, given)["mean"] == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "resnet18"])
def test_another_model_is_not(name):
    config = make_config(create_model(VIT_NAME, image_size=32))
    with pytest.raises(UserError, match=f"holds '{VIT_NAME}'.* not '{name}'"):
        _agree(name, config, Path("model.safetensors"), {})


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"model_args": 3}, "not a table"),
        ({"model_args": {"depht": 2}}, "has no field 'depht'.*depth"),
        ({"model_args": {"depth": "many"}}, "depth='many' has the wrong type"),
        ({"architecture": "vit_tine"}, "holds 'vit_tine'"),
    ],
)
def test_strange_configs(saved, tmp_path, config, match):
    whole = json.loads((saved["vit"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(whole | config))
    (tmp_path / "model.safetensors").write_bytes((saved["vit"] / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=match):
        load_pretrained(VIT_NAME, tmp_path)


def test_the_preprocessing_of_the_config_counts(saved, tmp_path):
    whole = json.loads((saved["vit"] / "config.json").read_text())
    whole["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.77, "interpolation": "bilinear", "input_size": 5}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    (tmp_path / "model.safetensors").write_bytes((saved["vit"] / "model.safetensors").read_bytes())
    config = load(VIT_NAME, tmp_path).data_config
    assert (config["mean"], config["crop_pct"], config["interpolation"]) == ((0.1, 0.2, 0.3), 0.77, "bilinear")
    assert config["image_size"] == (32, 32)
