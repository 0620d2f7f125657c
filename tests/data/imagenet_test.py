"""ImageNet-1k: the classes and their names, the folders as they are published."""

import pytest
from PIL import Image

from jaxvit import config
from jaxvit.data import imagenet, load_dataset
from jaxvit.errors import UserError
from jaxvit.plan import facts


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


def _kaggle(root, rows):
    (root / imagenet.SOLUTION).write_text("ImageId,PredictionString\n" + "".join(f"{a},{b} \n" for a, b in rows))


def test_validation_images_without_class_folders_have_kaggles_labels(tmp_path):
    """As in Kaggle's copy: ILSVRC/Data/CLS-LOC has train/ and val/, and the labels lie three folders above."""
    root = tmp_path / "ILSVRC/Data/CLS-LOC"
    for synset in ("n01440764", "n01443537"):
        _fill(root / "train" / synset, 4)
    _fill(root / "val", 5, "ILSVRC2012_val_0000000{}.JPEG")
    _fill(root / "test", 2, "ILSVRC2012_test_0000000{}.JPEG")  # nobody has their labels
    synsets = [f"n0144{'0764' if i % 2 else '3537'} 1 2 30 40 n01443537 5 6 7 8" for i in range(1, 6)]
    _kaggle(tmp_path, [(f"ILSVRC2012_val_0000000{i}", synset) for i, synset in enumerate(synsets, 1)])
    for prefer in ((), ("test",)):
        data = load_dataset(f"folder:{root}", val_fraction=0, prefer=prefer, to_train=not prefer)
        assert data.class_names == ["n01440764", "n01443537"] and len(data.train) == (0 if prefer else 8)
        assert list(data.test.image_names()) == [f"val/ILSVRC2012_val_0000000{i}.JPEG" for i in range(1, 6)]
        assert data.test.labels.tolist() == [0, 1, 0, 1, 0] and data.test.read(2).size == (8, 8)
    alone = load_dataset(f"folder:{root / 'val'}", val_fraction=0, to_train=False)
    names = [*alone.train.image_names(), *alone.test.image_names()]
    assert sorted(names) == [f"ILSVRC2012_val_0000000{i}.JPEG" for i in range(1, 6)]
    assert alone.class_names == data.class_names
    assert facts.find(_config(f"folder:{root}")).num_test == 5
    _fill(root / "val", 6, "ILSVRC2012_val_0000000{}.JPEG")
    with pytest.raises(UserError, match="val_00000006.JPEG: LOC_val_solution.csv has no class for it"):
        load_dataset(f"folder:{root}")
    for rows in ([], [("ILSVRC2012_val_00000001", "cat 1 2 3 4")], [("ILSVRC2012_val_00000001", "")]):
        _kaggle(tmp_path, rows)
        with pytest.raises(UserError, match="expected the columns ImageId and PredictionString"):
            load_dataset(f"folder:{root}")


def _config(name):
    given = config.default()
    given.data.name = name
    return given


def test_validation_images_without_class_folders_are_refused(tmp_path):
    for synset in ("n01440764", "n01443537"):
        _fill(tmp_path / "train" / synset, 2)
    _fill(tmp_path / "val", 3, "ILSVRC2012_val_0000000{}.JPEG")
    for path in (tmp_path, tmp_path / "val"):
        with pytest.raises(UserError, match="ILSVRC2012_val_0000000.*\n.*a folder per synset"):
            load_dataset(f"folder:{path}")
