"""ImageNet-1k: the classes and their names, the folders as they are published."""

import pytest
from PIL import Image

from jaxvit.data import imagenet, load_dataset
from jaxvit.errors import UserError


def _fill(folder, n, name="{}.JPEG"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (8, 6 + i), (9 * i, 0, 0)).save(folder / name.format(i + 1))


def test_classes_are_in_the_order_of_their_synsets():
    synsets = [synset for synset, _ in imagenet.classes()]
    assert len(synsets) == len(set(synsets)) == 1000 and synsets == sorted(synsets)  # as folders and TFDS have them
    assert imagenet.classes()[0] == ("n01440764", "tench") and imagenet.classes()[-1][0] == "n15075141"


def test_classes_for_a_person():
    every = imagenet.readable([synset for synset, _ in imagenet.classes()])
    assert len(set(every)) == 1000 and every[0] == "tench"
    assert sorted(name.split(" (")[0] for name in every if "(n" in name) == ["crane", "crane", "maillot", "maillot"]
    assert imagenet.readable(["n01440764", "mine"]) == ["n01440764", "mine"]
    assert not imagenet.are_synsets([]) and not imagenet.are_synsets(["n99999999"])


def test_number_of_a_validation_image():
    assert imagenet.val_number("val/n01440764/ILSVRC2012_val_00000293.JPEG") == 293
    assert imagenet.val_number("ILSVRC2012_val_000002931.JPEG") is None and imagenet.val_number("x.jpg") is None


def test_val_of_imagenets_classes_is_the_test_split(tmp_path):
    for synset in ("n01440764", "n01443537"):
        _fill(tmp_path / "train" / synset, 8)
        _fill(tmp_path / "val" / synset, 3)
    data = load_dataset(f"folder:{tmp_path}", val_fraction=0.0)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 0, 6) and data.drawn == ("val",)
    assert all(name.startswith("val/") for name in data.test.image_names())
    drawn = load_dataset(f"folder:{tmp_path}", val_fraction=0.25)
    assert (len(drawn.train), len(drawn.val)) == (12, 4) and drawn.test.names == data.test.names
    alone = load_dataset(f"folder:{tmp_path}", val_fraction=0.0, to_train=False, prefer=("test", "val"))
    assert (len(alone.train), len(alone.val), len(alone.test)) == (0, 0, 6) and alone.test.names == data.test.names
    assert alone.test.labels.tolist() == data.test.labels.tolist() and alone.class_names == data.class_names
    assert any("only val/ is read" in note for note in alone.notes)
    _fill(tmp_path / "test" / "n01440764", 1)
    assert len(load_dataset(f"folder:{tmp_path}").val) == 6  # with a test split of its own


def test_validation_images_without_class_folders_are_refused(tmp_path):
    for synset in ("n01440764", "n01443537"):
        _fill(tmp_path / "train" / synset, 2)
    _fill(tmp_path / "val", 3, "ILSVRC2012_val_0000000{}.JPEG")
    for path in (tmp_path, tmp_path / "val"):
        with pytest.raises(UserError, match="ILSVRC2012_val_0000000.*\n.*a folder per synset"):
            load_dataset(f"folder:{path}")
