"""load_pretrained: files with and without config.json, adaptation, wrong architectures, the record, the hub's cache."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.errors import UserError
from jaxvit.pretrained import convert, export, files, hub, load, load_pretrained, resample, save
from tests.helpers import pretrained as helpers

VIT_NAME, VIT = helpers.VIT


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory per family with drawn weights, as `save` writes it."""
    paths = {}
    for word in ("vit", "swin", "resnet", "deit"):
        model = helpers.make(helpers.ALL[word])
        path = tmp_path_factory.mktemp(word)
        save(model, convert(model, helpers.weights(model)), path, name=helpers.ALL[word][0])
        paths[word] = path
    return paths


def logits(model, variables, seed=0):
    size = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
    rng = np.random.default_rng(seed)
    return model.apply(variables, rng.standard_normal((1, *size, model.in_channels), dtype=np.float32))


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
    with pytest.raises(UserError, match="misshapen  pos_embed(.|\n)*no square image.* say checkpoint_image_size"):
        load_pretrained(VIT_NAME, tmp_path / "x.safetensors", depth=2)
    with pytest.raises(UserError, match="checkpoint_image_size=48.0 is no size"):
        load(VIT_NAME, tmp_path / "x.safetensors", checkpoint_image_size=48.0)
    loaded = load(VIT_NAME, tmp_path / "x.safetensors", depth=2, checkpoint_image_size=(32, 48))
    assert (loaded.model.num_classes, loaded.model.in_channels, loaded.model.image_size) == (7, 2, (32, 48))
    square = helpers.make((VIT_NAME, {**fields, "image_size": 64}))
    save_file(helpers.weights(square), tmp_path / "y.safetensors")
    assert load_pretrained(VIT_NAME, tmp_path / "y.safetensors", depth=2)[0].image_size == 64


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
    assert "layers.0: 4x4 to 4x8" in loaded.notes[0]


def test_windows_that_are_not_square_are_known_from_the_config(tmp_path):
    model = helpers.make(helpers.SWIN, image_size=(16, 64), window_size=8)  # windows 4x8 and 2x8
    weights = helpers.weights(model)
    save(model, convert(model, weights), tmp_path)
    loaded = load(helpers.SWIN[0], tmp_path, image_size=64)
    key = "layers.0.blocks.0.attn.relative_position_bias_table"
    ours = export(loaded.model, loaded.variables)[key]
    np.testing.assert_array_equal(ours, resample.resize_rel_pos_bias_table(weights[key], (8, 8), (4, 8)))


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


def test_a_config_of_another_architecture(saved):
    with pytest.raises(UserError, match="holds 'test_resnet', as its config.json says, not 'resnet18'"):
        load_pretrained("resnet18", saved["resnet"])


def test_renamed_tensors_are_named(saved, tmp_path):
    weights = helpers.weights(helpers.make(helpers.VIT))
    weights["hexd.weight"] = weights.pop("head.weight")
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="unexpected hexd.weight"):
        load_pretrained(VIT_NAME, tmp_path / "x.safetensors", depth=2)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"model_args": 3}, "no table of words"),
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


def test_half_precision_compute_is_a_field(saved):
    model, variables = load_pretrained(VIT_NAME, saved["vit"], dtype="bfloat16")
    assert model.dtype == jnp.bfloat16 and variables["params"]["cls_token"].dtype == jnp.float32


def test_neither_name_nor_file(tmp_path):
    with pytest.raises(UserError, match="needs a model name"):
        load_pretrained(None)
    save_file(helpers.weights(helpers.make(helpers.VIT)), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="does not say which model"):
        load_pretrained(None, tmp_path / "x.safetensors")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, saved, monkeypatch):
    """A cache of the hub with one repository in it, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (snapshot / name).write_bytes((saved["vit"] / name).read_bytes())
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return tmp_path


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_the_hub_through_its_cache(cache, saved, revision):
    loaded = load("vit_tiny_patch16_224.augreg_in21k", revision=revision)
    assert loaded.checkpoint.source == f"timm/vit_tiny_patch16_224.augreg_in21k@{COMMIT}"
    assert loaded.checkpoint.sha256 == files.sha256(saved["vit"] / "model.safetensors")
    assert loaded.model.depth == 2  # from its config.json
    assert hub.fetch("vit_tiny_patch16_224.augreg_in21k", cache_dir=cache).config


@pytest.mark.parametrize("revision", [None, "abc"])
def test_without_network_two_lines_tell_the_way(cache, revision):
    with pytest.raises(UserError) as error:
        load("resnet18", revision=revision)
    first, second = str(error.value).splitlines()
    assert first.startswith("cannot get the weights of resnet18.a1_in1k from the Hugging Face hub")
    assert "--config.pretrained=FILE" in second and "--checkpoint FILE" in second and "checkpoint=FILE" in second
    assert f"huggingface.co/timm/resnet18.a1_in1k/resolve/{revision or 'main'}/model.safetensors" in second
