"""`data.check=leaks`: doubles in a folder are counted, listed, drawn, and left out where asked for."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from jaxvit import cli, data
from jaxvit import config as config_lib
from jaxvit.errors import UserError
from jaxvit.reports import report
from jaxvit.train import leaks
from tests.helpers.fake_runs import write_run
from tests.helpers.photos import photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes; a PNG of train is a copy in test under another name, another one in train under both labels."""
    root, images = tmp_path_factory.mktemp("photos"), photos(12, 60, 60)
    places = {"train/cat": [0, 1, 2, 3], "train/dog": [4, 5, 6, 7, 1], "test/cat": [8, 0], "test/dog": [9, 10]}
    for place, chosen in places.items():
        (root / place).mkdir(parents=True)
        for k in chosen:
            name = f"copy_{k}.png" if "test" in place else f"{k}.png"
            Image.fromarray(images[k]).save(root / place / name)
    Image.fromarray(images[5]).save(root / "test/dog/again.jpg", quality=80)
    return root


def load(folder):
    return data.load_dataset(f"folder:{folder}", val_fraction=0.0)


def config_of(**words):
    config = config_lib.default()
    config.data.update({"check": "leaks", **words})
    return config


def test_other_weights_look_again(folder, tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(leaks.doubles, "find", lambda splits, features: looked.append(features) or [])
    config = config_of(check="leaks_deep")
    for pretrained in ("a.safetensors", "a.safetensors", "b.safetensors"):
        config.pretrained = pretrained
        leaks.check(config, load(folder), tmp_path, lambda: {"of": pretrained})  # noqa: B023
    assert looked == [{"of": "a.safetensors"}, {"of": "b.safetensors"}]


def test_what_was_found_is_written_and_kept(folder, tmp_path, monkeypatch):
    dataset = leaks.check(config_of(), load(folder), tmp_path)
    with open(tmp_path / leaks.TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["kind"], r["image"], r["other_image"], r["same_label"]) for r in rows] == [
        ("exact", "test/cat/copy_0.png", "train/cat/0.png", "True"),
        ("near", "test/dog/again.jpg", "train/dog/5.png", "True"),
        ("exact", "train/cat/1.png", "train/dog/1.png", "False")]  # fmt: skip
    said = " ".join(dataset.notes)
    assert "2 of 5 test images (40.0%) have a duplicate in train: 1 the same pixels, 1 nearly the same" in said
    assert "1 pairs of training images" in said and "data.drop_leaks=True" in said
    with Image.open(tmp_path / leaks.PICTURE) as sheet:
        assert sheet.size[0] > 400
    monkeypatch.setattr(leaks.doubles, "find", None)  # a run that is resumed does not look again
    assert leaks.check(config_of(), load(folder), tmp_path).notes == dataset.notes
    dropped = leaks.check(config_of(drop_leaks=True), load(folder), tmp_path)
    assert len(dropped.train) == 7 and not {"train/cat/0.png", "train/dog/5.png"} & set(dropped.train.names or [])


def test_dropping_never_empties_a_class(tmp_path):
    images = np.array(photos(6, 40, 40))
    for name, chosen in {"train": [0, 1, 2], "test": [0, 3]}.items():
        labels = [0, 1, 1] if name == "train" else [0, 1]
        np.savez(tmp_path / f"{name}.npz", image=images[chosen], label=np.array(labels))
    dataset = data.load_dataset(f"npz:{tmp_path}", val_fraction=0.0)
    with pytest.raises(UserError, match="would leave no training image of class '0'"):
        leaks.check(config_of(drop_leaks=True), dataset, tmp_path)


def test_command_and_report(folder, tmp_path, capsys):
    assert cli.main(["leaks", "--data", f"folder:{folder}", "--out", str(tmp_path / "out")]) == 0
    assert "have a duplicate in train" in capsys.readouterr().out
    run = write_run(tmp_path / "run")
    leaks.check(config_of(), load(folder), run)
    page = report.write_report([run])[0].read_text(encoding="utf-8")
    assert "Leaks and duplicates" in page and "2 of 5 test images (40.0%)" in page
    assert json.loads((run / leaks.RECORD).read_text())["counts"] == {
        "test/train": {"exact": 1, "near": 1}, "train/train": {"exact": 1}}  # fmt: skip
    at = ["--out", str(tmp_path / "csv")]
    assert cli.main(["leaks", "--data", f"folder:{folder}", "--columns", "file=where", *at]) == 2
    photos = sorted(folder.rglob("*.png"))[:6]
    (tmp_path / "some.csv").write_text("where,what\n" + "".join(f"{p},{i % 2}\n" for i, p in enumerate(photos)))
    assert cli.main(["leaks", "--data", f"csv:{tmp_path / 'some.csv'}", "--columns", "file=where,label=what", *at]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"check": "leak"}, "data.check is 'leak'; expected leaks or leaks_deep. Did you mean 'leaks'"),
        ({"check": None, "drop_leaks": True}, "data.drop_leaks .*data.check=leaks"),
        ({"check": "leaks_deep"}, "data.check=leaks_deep compares features of the weights in pretrained"),
    ],
)
def test_words_that_make_no_sense(words, said):
    with pytest.raises(UserError, match=said):
        config_lib.checks.validate(config_of(**words))


def test_nothing_found_leaves_nothing(tmp_path):
    dataset = data.load_dataset("digits")
    found = leaks.lines(dataset, [])
    (tmp_path / leaks.TABLE).write_text("old")
    leaks.write(tmp_path, dataset, [])
    assert found == ["no image has a duplicate in another split, or in train with another label"]
    assert not (tmp_path / leaks.TABLE).exists()
