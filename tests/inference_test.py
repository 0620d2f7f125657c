"""Classifiers from runs and from weight files: preprocessing, classes, predictions, damaged runs."""

import json
import os
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvit import inference, models, pretrained, train
from jaxvit.errors import UserError
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("inference")
    train.train_and_evaluate(tiny_config(write_npz(root / "data"), num_epochs=1), root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Weights of a very small model with the 1,000 ImageNet classes, saved as timm does."""
    fields = {"depth": 1, "embed_dim": 16, "num_heads": 2, "image_size": 32}
    model = models.create_model("vit_tiny_patch16_224", **fields)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    # A head that is not zero, so that classes differ.
    head = jax.random.normal(jax.random.key(1), (16, 1000))
    variables = {"params": {**variables["params"], "head": {"kernel": head, "bias": jnp.zeros(1000)}}}
    directory = tmp_path_factory.mktemp("weights")
    pretrained.save(model, variables, directory)
    return directory, model, variables


def write_images(folder, n=5):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return sorted(folder.glob("*.png"))


def test_find_images(tmp_path):
    inside = write_images(tmp_path / "a folder" / "below", 3)
    (tmp_path / "a folder" / "notes.txt").write_text("no image")
    assert inference.find_images([str(tmp_path / "a folder"), str(inside[0])]) == [*inside, inside[0]]
    for wrong in (tmp_path / "gone.png", tmp_path / "a\0b"):
        with pytest.raises(UserError, match="no file"):
            inference.find_images([str(wrong)])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (300, 2)])
def test_images_of_any_mode_and_size(run, tmp_path, mode, size):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    grey = np.full(size[::-1], 40000 if mode == "I;16" else 150, np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(grey)
    (image if mode == "I;16" else image.convert(mode)).save(path)
    ((_, probabilities),) = inference.predict(inference.from_run(run), [path])
    chex.assert_shape(probabilities, (3,))
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)


def test_predictions_do_not_depend_on_the_batch(run, tmp_path):
    paths, classifier = write_images(tmp_path), inference.from_run(run)
    whole = dict(inference.predict(classifier, paths, 32))
    assert list(whole) == paths
    for size in (1, 2, 5):
        for path, probabilities in inference.predict(classifier, paths, size):
            np.testing.assert_allclose(probabilities, whole[path], atol=1e-6)


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


def test_evaluation_of_a_named_model_on_folders_named_by_synset(imagenet, tmp_path):
    classifier = inference.from_name("vit_tiny_patch16_224", str(imagenet[0]))
    synsets = [synset for synset, _ in inference.imagenet_classes()]
    paths = write_images(tmp_path / "all", 4)
    best = [int(p.argmax()) for _, p in inference.predict(classifier, paths)]
    other = next(k for k in range(1000) if k not in best)
    for split in ("train", "val"):
        for path, k in zip(paths, best, strict=True):
            folder = tmp_path / "data" / split / synsets[k]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path.name)
        (tmp_path / "data" / split / synsets[other]).mkdir()
        shutil.copy(paths[0], tmp_path / "data" / split / synsets[other])
    for batch_size in (2, 64):
        found = inference.evaluate_split(classifier, data_name=f"folder:{tmp_path / 'data'}", batch_size=batch_size)
        assert (found.split, found.images, found.of) == (
            "val",
            5,
            10,
        )  # their own
        assert found.metrics["accuracy"] == pytest.approx(4 / 5)


def test_match_classes():
    def match(own, theirs):
        return inference.match_classes(inference.Classifier("m", None, None, own, {}), theirs).tolist()  # type: ignore[arg-type]

    assert match(["a", "b"], ["a", "b"]) == [0, 1]
    assert match(["a", "b", "c d"], ["C_D", "b"]) == [2, 1]
    names = [name for _, name in inference.imagenet_classes()]
    assert match(names, ["n01443537", "n01440764_tench", "great_white_shark"]) == [1, 0, 2]
    assert match(["07", "1"], ["1", "7"]) == [1, 0]
    assert match(["ant", "Ant"], ["Ant"]) == [1]
    for own, theirs, message in (
        (["a", "b", "c"], ["a", "z"], "'z'"),
        (["ant", "bee"], ["cat", "dog"], "'cat' of the data is none of the model's 2"),  # not by position
        (["1", "2", "3"], ["0", "1", "2"], "'0' .*\n.*only where they are exactly 0 to 2"),
        (["class 0", "class 1"], ["class 1", "cat"], "'cat'"),
        (["dog", "cat"], ["dog_toy", "cat"], "'dog_toy'"),
        (names, ["crane", "tench"], "'crane' of the data is two of the model's, 134 and 517"),
        (names, [str(i) for i in range(10)], "'0' .*\n.*only where they are exactly 0 to 999"),
    ):
        with pytest.raises(UserError, match=f"(?s){message}"):
            match(own, theirs)


def test_classes_matched_by_number_or_position_are_said(capsys):
    def match(own, theirs):
        labels = inference.match_classes(inference.Classifier("m", None, None, own, {}), theirs).tolist()  # type: ignore[arg-type]
        return labels, capsys.readouterr().err

    names = [name for _, name in inference.imagenet_classes()]
    for form in ("{}", "{:04d}"):
        theirs = sorted(form.format(i) for i in range(1000))  # as a file system lists them: 0, 1, 10, 100, ...
        labels, said = match(names, theirs)
        assert labels == [int(name) for name in theirs] and "count as the model's labels, 0 as 'tench'" in said
        labels, said = match([f"class {i}" for i in range(1000)], theirs)
        assert labels == [int(name) for name in theirs] and said == ""
    labels, said = match(["0", "1"], ["cat", "dog"])
    assert labels == [0, 1] and "by position in the order of the data, 0 is 'cat', 1 is 'dog'" in said


def test_numbered_folders_are_the_labels_of_a_foreign_model(imagenet, tmp_path):
    """ImageNetV2's layout: folders 0 to 999; the answers are those of folders 0000 to 0999, and right."""
    classifier = inference.from_name("vit_tiny_patch16_224", str(imagenet[0]))
    paths = write_images(tmp_path / "all", 4)
    best = [int(p.argmax()) for _, p in inference.predict(classifier, paths)]
    for form in ("{}", "{:04d}"):
        root = tmp_path / form.format(7)
        for k in range(1000):
            (root / "train" / form.format(k)).mkdir(parents=True)
            os.link(paths[0], root / "train" / form.format(k) / "0.png")
        for path, k in zip(paths, best, strict=True):
            (root / "test" / form.format(k)).mkdir(parents=True, exist_ok=True)
            os.link(path, root / "test" / form.format(k) / path.name)
        found = inference.evaluate_split(classifier, data_name=f"folder:{root}")
        assert (found.split, found.images, found.of) == ("test", 4, 1004) and found.metrics["accuracy"] == 1.0


def test_a_folder_with_one_image_of_each_class_is_evaluated(run, tmp_path):
    for name in inference.from_run(run).class_names:
        write_images(tmp_path / "own" / name, 1)
    name = f"folder:{tmp_path / 'own'}"
    found = inference.evaluate_split(inference.from_run(run), data_name=name)
    assert (found.images, found.split) == (found.of, "all")
    with pytest.raises(UserError, match="has no images in its test split"):
        inference.evaluate_split(inference.from_run(run), "test", data_name=name)
    with pytest.raises(UserError, match="images in as many classes leave none to test on"):
        train.train_and_evaluate(tiny_config(name, num_epochs=1), tmp_path / "run")


def test_folders_of_some_of_the_classes_are_evaluated(run, tmp_path, capsys):
    """One class folder alone, and an empty one beside others: an evaluation needs no two classes."""
    classifier = inference.from_run(run)
    paths = write_images(tmp_path / "alone" / classifier.class_names[1])
    said = [int(p.argmax()) for _, p in inference.predict(classifier, paths)]
    found = inference.evaluate_split(classifier, data_name=f"folder:{tmp_path / 'alone'}")
    assert (found.images, found.of, found.split) == (5, 5, "all")
    assert found.metrics["accuracy"] == pytest.approx(np.mean(np.array(said) == 1))
    for name in classifier.class_names:
        (tmp_path / "alone" / name).mkdir(exist_ok=True)
    again = inference.evaluate_split(classifier, data_name=f"folder:{tmp_path / 'alone'}")
    assert again.metrics == found.metrics and again.images == 5
    (tmp_path / "empty" / classifier.class_names[0]).mkdir(parents=True)
    with pytest.raises(UserError, match="no images"):
        inference.evaluate_split(classifier, data_name=f"folder:{tmp_path / 'empty'}")
    write_images(tmp_path / "other" / "giraffe", 1)
    with pytest.raises(UserError, match="'giraffe' of the data is none of the model's 3"):
        inference.evaluate_split(classifier, data_name=f"folder:{tmp_path / 'other'}")


def test_all_images_of_other_data_are_evaluated_unless_a_split_is_asked_for(run, tmp_path, capsys):
    for label in range(3):
        write_images(tmp_path / "photos" / str(label), 8)
    classifier, name = inference.from_run(run), f"folder:{tmp_path / 'photos'}"
    whole = inference.evaluate_split(classifier, data_name=name)
    assert (whole.split, whole.images, whole.of) == ("all", 24, 24)
    assert "its 3 folders are the classes" in capsys.readouterr().err
    held_out = inference.evaluate_split(classifier, "test", data_name=name)
    assert (held_out.split, held_out.images, held_out.of) == ("test", 5, 24)
    some = inference.evaluate_split(classifier, data_name=name, limit=6)
    assert (some.split, some.images, some.of) == ("all", 6, 24)
    assert inference.evaluate_split(classifier, limit=7).images == 7  # of the run's own test split
    own = json.loads((run / "config.json").read_text())["data"]["name"]
    again = inference.evaluate_split(classifier, data_name=own.replace("/data", "/./data"))
    assert (again.split, again.images) == ("test", 20)  # the run's own data, written in another way


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
        ({"colour": 1}, "no config word"),
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
