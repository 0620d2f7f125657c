"""load_pretrained: files with and without config.json, adaptation, wrong architectures, the record, the hub's cache."""

import jax.numpy as jnp
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import export, files, load, load_pretrained
from tests.helpers import pretrained as helpers

VIT_NAME, VIT = helpers.VIT


@pytest.mark.parametrize("word", ["vit", "swin", "resnet", "deit"])
def test_a_saved_model_comes_back(saved, word):
    model = helpers.make(helpers.ALL[word])
    loaded = load(helpers.ALL[word][0], saved[word])
    assert loaded.notes == () and loaded.licence in ("apache-2.0", "mit")
    helpers.assert_same(export(loaded.model, loaded.variables), helpers.weights(model))
    assert loaded.checkpoint.sha256 == files.sha256(saved[word] / "model.safetensors")
    assert load(None, saved[word]).model == loaded.model


def test_without_config_the_tensors_and_fields_decide(tmp_path):
    fields = {"depth": 2, "image_size": (32, 48), "num_classes": 7, "in_channels": 2}
    model = helpers.make((VIT_NAME, fields))
    save_file(helpers.weights(model), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="misshapen  pos_embed(.|\n)*for a square image.* pass checkpoint_image_size"):
        load_pretrained(VIT_NAME, tmp_path / "x.safetensors", depth=2)
    with pytest.raises(UserError, match="checkpoint_image_size=48.0 is not a size"):
        load(VIT_NAME, tmp_path / "x.safetensors", checkpoint_image_size=48.0)
    loaded = load(VIT_NAME, tmp_path / "x.safetensors", depth=2, checkpoint_image_size=(32, 48))
    assert (loaded.model.num_classes, loaded.model.in_channels, loaded.model.image_size) == (7, 2, (32, 48))
    square = helpers.make((VIT_NAME, {**fields, "image_size": 64}))
    save_file(helpers.weights(square), tmp_path / "y.safetensors")
    assert load_pretrained(VIT_NAME, tmp_path / "y.safetensors", depth=2)[0].image_size == 64


def test_renamed_tensors_are_named(saved, tmp_path):
    weights = helpers.weights(helpers.make(helpers.VIT))
    weights["hexd.weight"] = weights.pop("head.weight")
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="unexpected hexd.weight"):
        load_pretrained(VIT_NAME, tmp_path / "x.safetensors", depth=2)


def test_windows_of_a_model_of_other_stages_are_those_given(tmp_path):
    """The windows of the name are for four stages."""
    fields = {"depths": (1, 1), "num_heads": (1, 2), "embed_dim": 8, "image_size": 16, "window_size": 4}
    weights = helpers.weights(helpers.make(("swin_s3_tiny_224", fields)))
    save_file(weights, tmp_path / "x.safetensors")
    model, variables = load_pretrained("swin_s3_tiny_224", tmp_path / "x.safetensors", **fields)
    helpers.assert_same(export(model, variables), weights)


def test_windows_of_the_file_are_counted_in_its_own_patches(tmp_path):
    """Maps of 6x6 and 3x3 from patches of 3 pixels, where the name has patches of 4, which do not divide 18."""
    fields = {"depths": (1, 1), "num_heads": (1, 2), "embed_dim": 8, "window_size": 4}
    weights = helpers.weights(
        helpers.make(("swin_tiny_patch4_window7_224", fields | {"image_size": 18, "patch_size": 3}))
    )
    save_file(weights, tmp_path / "x.safetensors")
    options = {**fields, "patch_size": 4, "image_size": 32, "checkpoint_image_size": 18}
    loaded = load("swin_tiny_patch4_window7_224", tmp_path / "x.safetensors", **options)
    tables = {n: a for n, a in export(loaded.model, loaded.variables).items() if "bias_table" in n}
    assert [table.shape for table in tables.values()] == [(49, 1), (49, 2)]
    assert any("resized in stage 1: 3x3 to 4x4" in note for note in loaded.notes)


def test_half_precision_compute_is_a_field(saved):
    model, variables = load_pretrained(VIT_NAME, saved["vit"], dtype="bfloat16")
    assert model.dtype == jnp.bfloat16 and variables["params"]["cls_token"].dtype == jnp.float32


def test_neither_name_nor_file(tmp_path):
    with pytest.raises(UserError, match="needs a model name"):
        load_pretrained(None)
    save_file(helpers.weights(helpers.make(helpers.VIT)), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="does not say which model"):
        load_pretrained(None, tmp_path / "x.safetensors")
