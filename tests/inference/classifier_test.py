"""A classifier from a run or a name, and runs whose files are not as they were written."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit import inference
from jaxvit.build import parts
from jaxvit.errors import UserError
from jaxvit.inference import classifier


def test_a_runs_model_gives_the_recorded_logits(run):
    classifier = inference.from_run(run)
    assert classifier.class_names == ["0", "1", "2"]
    config = json.loads((run / "config.json").read_text())
    with np.load(config["data"]["name"].removeprefix("npz:") + "/test.npz") as test:
        images = test["image"].astype(np.float32) / 255
    images = (images - np.float32(config["data"]["mean"])) / np.float32(config["data"]["std"])
    logits = jax.jit(classifier.model.apply)(classifier.variables, images)
    with np.load(run / "predictions.npz") as recorded:
        np.testing.assert_allclose(logits, recorded["logits"], atol=1e-5)


def test_a_named_model_uses_its_weights_classes_and_preprocessing(imagenet, tmp_path):
    directory, model, variables = imagenet
    classifier = inference.from_name("vit_tiny_patch16_224", str(directory))
    assert classifier.class_names[0] == "tench" and len(classifier.class_names) == 1000
    assert classifier.data_config["image_size"] == (32, 32)
    assert tuple(classifier.data_config["mean"]) == (0.5, 0.5, 0.5)
    path = tmp_path / "half.png"
    Image.fromarray(np.full((50, 40, 3), 51, np.uint8)).save(path)
    ((_, probabilities),) = inference.predict(classifier, [path])
    logits = model.apply(variables, jnp.full((1, 32, 32, 3), 51 / 255 / 0.5 - 1))
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits)[0], atol=1e-6)


def damage(run, tmp_path, **words):
    """Copies a run, unverified, with other values in config.json; words are a__b=value for a.b."""
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy/manifest.json").unlink()
    values = json.loads((run / "config.json").read_text())
    for word, value in words.items():
        *parents, name = word.split("__")
        target = values
        for parent in parents:
            target = target[parent]
        target[name] = value
    (tmp_path / "copy/config.json").write_text(json.dumps(values))
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"model__depth": 2}, "another model.*blocks_1"),
        ({"model__embed_dim": 32}, "another model.*expected"),
        ({"model__name": "resnet18"}, "no field"),
        ({"data__image_size": None}, "damaged.*image_size"),
        ({"data__mean": [0.5]}, "damaged.*channels"),
        ({"data__std": [0.0, 1.0, 1.0]}, "damaged"),
        ({"dtype": "float8"}, "damaged.*dtype"),
        ({"colour": 1}, "no config option"),
    ],
)
def test_a_run_whose_config_was_changed_is_refused(run, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        inference.from_run(damage(run, tmp_path, **words))


@pytest.mark.parametrize("file", ["config.json", "classes.json"])
def test_a_file_that_is_not_as_the_run_wrote_it_is_refused(run, tmp_path, file):
    shutil.copytree(run, tmp_path / "copy")
    content = (tmp_path / "copy" / file).read_bytes()
    (tmp_path / "copy" / file).write_bytes(content.replace(b"0", b"1", 1))
    with pytest.raises(UserError, match=f"{file} has changed since the run") as caught:
        inference.from_run(tmp_path / "copy")
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "cannot read"),
        ("config.json", "[]", "damaged"),
        ("config.json", "{}", "damaged"),
        ("classes.json", '["a"]', "3 classes"),
        ("classes.json", "[1, 2, 3]", "3 classes"),
        ("classes.json", '{"a": 1}', "damaged"),
    ],
)
def test_damaged_files_of_a_run_are_named(run, tmp_path, file, content, message):
    copy = damage(run, tmp_path)
    (copy / file).write_text(content)
    with pytest.raises(UserError, match=message):
        inference.from_run(copy)


def test_a_run_without_checkpoints_is_named_and_left_alone(run, tmp_path):
    copy = damage(run, tmp_path)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint"):
        inference.from_run(copy)
    assert not (copy / "checkpoints").exists()


def test_weights_of_a_float64_run_are_float64_where_that_is_switched_on(run):
    config = inference.from_run(run).config

    def types():
        template = classifier._template(config, parts.make_model(config))
        return {leaf.dtype.name for leaf in jax.tree.leaves(template)}

    with jax.enable_x64(True):
        assert types() == {"float32"}
    config.dtype = "float64"
    assert types() == {"float32"}
    with jax.enable_x64(True):
        assert types() == {"float64"}
