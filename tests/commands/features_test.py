"""`features`: the file, resuming and reading it again, kNN, probe and similar images, mistakes."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from jaxvit import cli, data, explain, pretrained
from jaxvit.inference import features as features_lib
from tests.helpers import pretrained as pretrained_helpers
from tests.helpers import write_npz
from tests.helpers.commands import failed, passed

CASE = ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 16, "num_heads": 2, "image_size": 32, "patch_size": 8})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small model without a classifier, as timm's feature models are."""
    model = pretrained_helpers.make(CASE, num_classes=0)
    variables = pretrained.convert(model, pretrained_helpers.weights(model))
    path = tmp_path_factory.mktemp("weights")
    pretrained.save(model, variables, path, name=CASE[0])
    return path, model, variables


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of five photos of several sizes."""
    root, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for k in range(3):
        (root / f"class {k}").mkdir(parents=True)
        for i in range(5):
            image = rng.integers(0, 120, (20 + i, 33, 3))
            image[..., k] += 120
            Image.fromarray(image.astype(np.uint8)).save(root / f"class {k}" / f"{i}.png")
    return root


def words(weights, *more):
    return ["features", "--model", CASE[0], "--checkpoint", weights[0], *more]


def test_the_file_holds_a_row_for_each_photo(weights, photos, tmp_path, capsys, monkeypatch):
    path, model, variables = weights
    out = tmp_path / "f.npz"
    argv = words(weights, "--data", f"folder:{photos}", "--out", out, "--batch-size", 4)
    query = photos / "class 1" / "2.png"
    said, _ = passed(capsys, [*argv, "--similar", query, photos / "class 0" / "0.png", "--top", 3])
    assert "15 images (12 train, 3 test) with 16 features" in said
    with np.load(out) as found:
        found = dict(found)
    names = [f"class {k}/{i}.png" for k in range(3) for i in range(5)]
    assert found["names"].tolist() == names
    assert found["labels"].tolist() == [k for k in range(3) for _ in range(5)]
    assert found["class_names"].tolist() == ["class 0", "class 1", "class 2"]
    words_of = pretrained.load(CASE[0], path).data_config
    images = np.stack([data.preprocess(Image.open(photos / name), words_of) for name in names])
    np.testing.assert_allclose(found["features"], explain.features(model, variables, images), atol=1e-5)

    lines = [line.split() for line in said.splitlines() if re.search(r"\b\d\.\d{4}\b", line)]
    unit = found["features"] / np.linalg.norm(found["features"], axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[7]), kind="stable")[:3]
    assert [line[line.index("class") + 1] for line in lines[:3]][0] == "1/2.png"
    assert len(lines) == 6
    for line, row in zip(lines[:3], order, strict=True):
        assert " ".join(line).count(names[row]) >= 1, (line, names[row])
    with Image.open(tmp_path / "f_similar.png") as sheet:
        assert sheet.width > 4 * 128
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.npz", "f_similar.png"]

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(features_lib, "extract", refuse)
    assert "computed before" in passed(capsys, argv)[0]
    assert cli.main([str(word) for word in [*argv, "--split", "train"]]) == 2
    assert "does not hold these features" in capsys.readouterr().err.splitlines()[-1]
    Image.open(query).rotate(90).save(query)  # the same name
    assert cli.main([str(word) for word in argv]) == 2
    assert "does not hold these features" in capsys.readouterr().err.splitlines()[-1]


def test_photos_without_classes(weights, photos, tmp_path, capsys):
    argv = words(weights, "--data", f"folder:{photos / 'class 2'}", "--out", tmp_path / "f.npz")
    assert "images without class folders" in failed(capsys, argv)
    assert "5 images (5 all)" in passed(capsys, [*argv, "--unlabelled"])[0]
    with np.load(tmp_path / "f.npz") as found:
        assert found["names"].tolist() == [f"{i}.png" for i in range(5)] and set(found["labels"]) == {-1}


def test_knn_and_probe_are_scikit_learns(weights, tmp_path, capsys):
    out, name = tmp_path / "f.npz", write_npz(tmp_path / "data", num_train=30, num_test=20, size=32)
    argv = words(weights, "--data", name, "--out", out, "--knn", 3, "--probe", "--json", tmp_path / "scores.json")
    said, _ = passed(capsys, argv)
    scores = json.loads((tmp_path / "scores.json").read_text())
    with np.load(out) as found:
        train, test = (found["features"][found["splits"] == split].astype(np.float64) for split in ("train", "test"))
        labels, truth = (found["labels"][found["splits"] == split] for split in ("train", "test"))
        assert found["names"][0] == "train.npz[0]"
    train, test = ((x - train.mean(0)) / train.std(0) for x in (train, test))
    near = np.linalg.norm(test[:, None] - train[None], axis=-1).argsort(1)[:, :3]
    said_by_hand = [np.bincount(labels[row], minlength=3).argmax() for row in near]
    p, n, z = float(np.mean(said_by_hand == truth)), 20, 1.959964
    assert scores["knn"]["accuracy"] == pytest.approx(p)
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)  # Wilson (1927)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert scores["knn"]["low"] == pytest.approx(max(0, middle - half))
    assert scores["probe"]["accuracy"] > 0.5 and "linear probe" in said and f"{p:.2%}" in said
    # The test split alone in the file: the training images are computed beside it.
    argv = words(weights, "--data", name, "--split", "test", "--out", tmp_path / "g.npz", "--knn", 3)
    assert f"{p:.2%}" in passed(capsys, argv)[0]
    with np.load(tmp_path / "g.npz") as found:
        assert set(found["splits"]) == {"test"}


def test_mistakes_are_named(weights, tmp_path, capsys):
    out = ("--out", tmp_path / "f.npz")
    folder = ("--data", write_npz(tmp_path / "data", num_train=6, num_test=3))
    (tmp_path / "other.npz").write_bytes(b"something")
    for argv, message in (
        (["features", "--workdir", tmp_path / "gone", *out], "no such directory"),
        (["features", "--workdir", "a", "--workdir", "b", *out], "given twice"),
        (["features", *out], "give one of --workdir DIR"),
        (words(weights, *folder), "expected --out FILE.npz"),
        (words(weights, *folder, "--out", tmp_path / "f.csv"), "expected --out FILE.npz"),
        (words(weights, *out), "--model needs --data"),
        (words(weights, *folder, *out, "--similar", tmp_path / "gone.jpg"), "gone.jpg"),
        (words(weights, *folder, *out, "--unlabelled", "--probe"), "excludes --knn"),
        (words(weights, *folder, *out, "--json", tmp_path / "x.json"), "expected one of these"),
        (words(weights, *folder, *out, "--split", "val"), "has no images in its val split"),
        (words(weights, *folder, *out, "--knn", "0"), "not a whole number of 1 or more"),
        (words(weights, *folder, *out, "--knn", "7"), "more neighbours than there are training images, 6"),
        (words(weights, "--data", "digits", *out, "--unlabelled"), "expected --data folder:PATH"),
        (words(weights, *folder, "--out", tmp_path / "other.npz"), "does not hold these features"),
        (words(weights, *folder, *out, "--top", "3"), "expected --similar"),
        (words(weights, *folder, *out, "--columns", "file=a"), "does not use it"),
        (words(weights, "--data", f"folder:{tmp_path}", *out, "--unlabelled", "--columns", "file=a"), "--columns"),
    ):
        assert message in failed(capsys, argv), argv
    assert not (tmp_path / "f.npz").exists()
