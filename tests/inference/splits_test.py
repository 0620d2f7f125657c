"""Classifiers from runs and from weight files: preprocessing, classes, predictions, damaged runs."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxvit import inference, train
from jaxvit.build import parts
from jaxvit.errors import UserError
from jaxvit.inference import splits
from tests.helpers import tiny_config


def write_images(folder, n=5):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return sorted(folder.glob("*.png"))


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
            "test",
            5,
            5,
        )  # their own, which lies in val/; no other is read
        assert found.metrics["accuracy"] == pytest.approx(4 / 5)


def test_a_model_chooses_among_the_classes_of_the_data(imagenet, tmp_path, capsys):
    """As published figures of ImageNet-A and ImageNet-R are: logits of other classes do not count."""
    classifier = inference.from_name("vit_tiny_patch16_224", str(imagenet[0]))
    synsets, kept = [synset for synset, _ in inference.imagenet_classes()], [3, 200, 700, 998]
    paths = write_images(tmp_path / "all", 4)
    for path, k in zip(paths, kept, strict=True):
        (tmp_path / "data" / synsets[k]).mkdir(parents=True)
        shutil.copy(path, tmp_path / "data" / synsets[k])
    p = np.array([p for _, p in inference.predict(classifier, paths)])[:, kept]
    p /= p.sum(axis=1, keepdims=True)
    right = (p.argmax(axis=1) == np.arange(4)).mean()
    name = f"folder:{tmp_path / 'data'}"
    found = inference.evaluate_split(classifier, data_name=name, restrict=True)
    assert found.metrics["accuracy"] == right and found.metrics["top5_accuracy"] == 1 and found.classes == 4
    assert found.metrics["loss"] == pytest.approx(-np.log(np.diag(p)).mean(), rel=1e-5)
    assert "--restrict-classes" not in capsys.readouterr().err
    assert inference.evaluate_split(classifier, data_name=name).metrics["loss"] > found.metrics["loss"]
    assert "4 of the model's 1,000 classes; --restrict-classes" in capsys.readouterr().err


def test_photos_that_were_renamed_since_a_run_are_a_warning(tmp_path, capsys):
    """Without a test split others are held out then, of which the run has seen most."""
    for unit in "ab":
        write_images(tmp_path / unit, 10)
    config = tiny_config(f"folder:{tmp_path}")
    seen = parts.load_data(config).fingerprint()
    run = inference.Classifier("m", None, None, ["a", "b"], {"image_size": (8, 8)}, config, data=seen)
    splits.open_data(run)
    assert not capsys.readouterr().err
    (tmp_path / "a/0.png").rename(tmp_path / "a/z.png")
    for found, said in ((run, "different names"), (dataclasses.replace(run, data=None), "")):
        splits.open_data(found)
        assert said in capsys.readouterr().err
    assert not capsys.readouterr().err


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
        (["ant", "bee"], ["cat", "dog"], "'cat' of the data is not one of the model's 2"),  # not by position
        (["1", "2", "3"], ["0", "1", "2"], "'0' .*\n.*only if they are exactly 0 to 2"),
        (["class 0", "class 1"], ["class 1", "cat"], "'cat'"),
        (["dog", "cat"], ["dog_toy", "cat"], "'dog_toy'"),
        (["dog", "cat", "bear"], ["bears", "cat"], r"3 classes \('dog', 'cat', 'bear'\). Did you mean 'bear'\?"),
        (names, ["crane", "tench"], "'crane' of the data matches two of the model's, 134 and 517"),
        (names, [str(i) for i in range(10)], "'0' .*\n.*only if they are exactly 0 to 999"),
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
        assert labels == [int(name) for name in theirs] and "taken as the model's labels, with 0 for 'tench'" in said
        labels, said = match([f"class {i}" for i in range(1000)], theirs)
        assert labels == [int(name) for name in theirs] and said == ""
    labels, said = match(["0", "1"], ["cat", "dog"])
    assert labels == [0, 1] and "by position in the data's order: 0 is 'cat', 1 is 'dog'" in said


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
        assert (found.split, found.images, found.of) == ("test", 4, 4) and found.metrics["accuracy"] == 1.0


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
    with pytest.raises(UserError, match="'giraffe' of the data is not one of the model's 3"):
        inference.evaluate_split(classifier, data_name=f"folder:{tmp_path / 'other'}")


def test_all_images_of_other_data_are_evaluated_unless_a_split_is_asked_for(run, tmp_path, capsys):
    for label in range(3):
        write_images(tmp_path / "photos" / str(label), 8)
    classifier, name = inference.from_run(run), f"folder:{tmp_path / 'photos'}"
    whole = inference.evaluate_split(classifier, data_name=name)
    assert (whole.split, whole.images, whole.of) == ("all", 24, 24)
    said = capsys.readouterr().err
    assert "its 3 folders are the classes" in said and "held out" not in said
    held_out = inference.evaluate_split(classifier, "test", data_name=name)
    assert "test: 5 images held out" in capsys.readouterr().err
    assert (held_out.split, held_out.images, held_out.of) == ("test", 5, 24)
    some = inference.evaluate_split(classifier, data_name=name, limit=6)
    assert (some.split, some.images, some.of) == ("all", 6, 24)
    assert inference.evaluate_split(classifier, limit=7).images == 7  # of the run's own test split
    own = json.loads((run / "config.json").read_text())["data"]["name"]
    again = inference.evaluate_split(classifier, data_name=own.replace("/data", "/./data"))
    assert (again.split, again.images) == ("test", 20)  # the run's own data, written in another way


def test_data_of_a_run_that_are_no_longer_there(tmp_path, monkeypatch):
    config = tiny_config(f"npz:{tmp_path / 'gone'}")
    with pytest.raises(UserError, match="no such directory") as said:
        splits.own_data(config, ["a"])
    assert "the run was trained on them: put" in str(said.value)
    monkeypatch.chdir(tmp_path)
    config.data.name = "npz:gone"  # of another directory
    with pytest.raises(UserError) as said:
        splits.own_data(config, ["a"])
    assert repr(str(tmp_path / "gone")) in str(said.value)
    (tmp_path / "gone").mkdir()
    with pytest.raises(UserError) as said:
        splits.own_data(config, ["a"])
    assert "the run was trained" not in str(said.value)
