"""What subfolders mean: splits by their usual names, classes by all others, and the order of classes."""

import re

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import layout
from jaxvit.data.sources import folder
from jaxvit.errors import UserError


def make(root, *folders):
    """Makes class folders with one image each; "train/2" is a folder with two of them."""
    for text in folders:
        name, _, classes = text.partition("/")
        for directory in [root / name / f"class{i}" for i in range(int(classes or 0))] or [root / name]:
            directory.mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(directory / "x.png")
    return root


@pytest.mark.parametrize(
    ("folders", "expected", "notes"),
    [
        (("train/2", "val/2", "test/2"), ("train", "val", "test"), "train/ trains, val/ selects, test/ tests"),
        (("Train/2", "Val/2", "Test/2"), ("Train", "Val", "Test"), ""),
        (
            ("TRAIN/2", "VAL/2"),
            ("TRAIN", "VAL", None),
            "TRAIN/ trains, VAL/ selects; the test images are held out of TRAIN/",
        ),
        (("training/2", "testing/2"), ("training", None, "testing"), "training/ trains, testing/ tests$"),
        (("training/2", "validation/2"), ("training", "validation", None), ""),
        (("trainval/2", "test/2"), ("trainval", None, "test"), ""),
        (("train/2", "trainval/2", "test/2"), ("train", None, "test"), "trainval/ in .* is not used"),
        (("train/2", "eval/2"), ("train", "eval", None), ""),
        (("train/2", "holdout/2"), ("train", None, "holdout"), ""),
        (("train/2", "hold-out/2"), ("train", None, "hold-out"), ""),
        (("train/2", "dev/2", "test/2"), ("train", "dev", "test"), ""),
        (("train_set/2", "test_set/2"), ("train_set", None, "test_set"), ""),
        (("training_data/2", "val_images/2"), ("training_data", "val_images", None), ""),
        (("train/2",), ("train", None, None), "train/ trains; the test images are held out of train/"),
        (("train/2", "test"), ("train", None, None), "test/ has no class folders and is not used"),
        (("train/2", "val/2", "extra/2", "more"), ("train", "val", None), "extra/, more/ in .* are not used"),
        (("train/2", "val/2", "validation/2"), ("train", "val", None), "validation/ in .* is not used"),
        (("ant", "bee"), (".", None, None), "its 2 folders are the classes"),
        (("ant", "bee", "test"), (".", None, None), "test/ is taken for a class; a split needs a train/ next to it"),
        (("bus", "car", "train"), (".", None, None), "train/ is taken for a class"),
        (("ant/2", "bee/2"), (".", None, None), "each of them has the folders class0/, class1/; .* folder:.*ant"),
        (("training shoes", "test tube"), (".", None, None), "its 2 folders are the classes"),
        (("bullet train/2", "ant/3"), (".", None, None), "its 2 folders are the classes$"),
        (("ant", "bee", "@eaDir", "lost+found", "$RECYCLE.BIN"), (".", None, None), "its 2 folders are the classes"),
        (("development", "trains", "testament"), (".", None, None), "its 3 folders are the classes"),
    ],
)
def test_readings(tmp_path, folders, expected, notes):
    found = layout.read_layout(make(tmp_path, *folders))
    named = {s: tmp_path / d for s, d in zip(("train", "val", "test"), expected, strict=True) if d is not None}
    assert found.folders == named
    assert re.search(notes, "; ".join(found.notes)), found.notes


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "test"), "train/ are named like splits|test/, train/ are named like splits"),
        (("Train", "Val", "Test"), "named like splits"),
        (("val/2", "test/2"), "no train/ has class folders\nexpected .* for example folder:.*test"),
        (("test/2",), "test/ is named like a split"),
        (("bus", "car", "train/2"), "train/ is the training split or a class next to bus/, car/"),
        (("seg_train/2", "seg_test/2", "seg_pred/2"), "look like splits.* folder:.*seg_train$"),
        (("cifar10_train/2", "cifar10_test/2"), "look like splits"),
        (("split=train/2", "split=test/2"), "look like splits"),
        (("tr/2", "te/2"), "look like splits"),
        (("trn/2", "val/2"), "look like splits"),
        (("train/2", "unlabelled"), "for the split use folder:.*train"),
    ],
)
def test_what_can_be_read_two_ways_is_refused(tmp_path, folders, message):
    with pytest.raises(UserError, match=f"(?s){message}") as caught:
        layout.read_layout(make(tmp_path, *folders))
    assert len(str(caught.value).splitlines()) == 2


def test_order_of_classes():
    assert layout.in_order(["10", "9", "2"]) == ["2", "9", "10"]
    assert layout.in_order(["b10", "b9", "a"]) == ["a", "b9", "b10"]
    assert layout.in_order(["10", "9", "a"]) == ["9", "10", "a"]
    assert layout.in_order([f"c{i}" for i in range(12)]) == [f"c{i}" for i in range(12)]
    assert layout.in_order(["n02123045_tabby", "n02123045", "n01440764"])[0] == "n01440764"
    assert layout.in_order(["x" + "9" * 5000, "x1"]) == ["x1", "x" + "9" * 5000]
    assert layout.in_order(["1", "01", "0"]) == ["0", "01", "1"]  # not numbers that tell classes apart
    assert layout.in_order(["\u0664", "10"]) == ["10", "\u0664"]  # other scripts' digits are text


@pytest.mark.torch
def test_the_order_of_classes_is_that_of_timms_reader():
    misc = pytest.importorskip("timm.utils.misc")
    rng = np.random.default_rng(0)
    for _ in range(200):
        names = {"".join(rng.choice(list("ab0129_-"), rng.integers(1, 7))) for _ in range(12)}
        assert [misc.natural_key(name) for name in layout.in_order(names)] == sorted(map(misc.natural_key, names))


def test_numbers_as_labels():
    assert layout.as_labels(["0", "1", "10", "2", *map(str, range(3, 10))]) == [0, 1, 10, 2, *range(3, 10)]
    assert layout.as_labels(["0002", "0000", "0001"]) == [2, 0, 1]
    assert layout.as_labels(["1", "2", "3"]) is None
    assert layout.as_labels(["0", "00", "1"]) is None
    assert layout.as_labels(["0", "1", "x"]) is None


def test_an_archive_that_nests_twice_is_named(tmp_path):
    make(tmp_path / "photos", "ant", "bee")
    assert layout.inner(tmp_path) == tmp_path / "photos"
    with pytest.raises(UserError, match="Did you mean folder:.*photos"):
        folder.load(str(tmp_path))
