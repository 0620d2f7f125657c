"""Arrays in npz files."""

import numpy as np
import pytest

from jaxvit.data import load_dataset
from jaxvit.errors import UserError


def _arrays(n: int = 12, classes: int = 3, shape=(6, 5, 3)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {"image": rng.integers(0, 256, (n, *shape), np.uint8), "label": np.arange(n) % classes}


def _write(directory, train=None, test=None, **others):
    for name, arrays in {"train": train or _arrays(30), "test": test or _arrays(), **others}.items():
        np.savez(directory / f"{name}.npz", **arrays)
    return f"npz:{directory}"


@pytest.mark.parametrize("key", ["classes", "class_names"])
def test_npz_names_its_classes(tmp_path, key):
    data = load_dataset(_write(tmp_path, {**_arrays(30), key: np.array(["cat", "dog", "emu"])}), val_fraction=0)
    assert data.class_names == ["cat", "dog", "emu"] and not data.several


@pytest.mark.parametrize(
    ("file", "text"),
    [("classes.txt", "\ufeffcat\r\nsea  dog\r\nému\r\n\r\n"), ("classes.json", '["cat", "sea  dog", "ému"]')],
)
def test_a_file_names_the_classes(tmp_path, file, text):
    (tmp_path / file).write_bytes(text.encode())
    name = _write(tmp_path)
    assert load_dataset(name, val_fraction=0).class_names == ["cat", "sea  dog", "ému"]
    assert load_dataset(name, val_fraction=0).fingerprint() != load_dataset(_write(_other(tmp_path))).fingerprint()
    _write(tmp_path, {**_arrays(30), "class_names": np.array(["cat", "sea  dog", "ému"])})
    assert load_dataset(name, val_fraction=0).class_names[2] == "ému"  # both, and both say the same
    _write(tmp_path, {**_arrays(30), "class_names": np.array(["dog", "cat", "emu"])})
    with pytest.raises(UserError, match=f"{file} and train.npz name different classes"):
        load_dataset(name)


def _other(directory):
    (directory / "other").mkdir()
    return directory / "other"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("classes.txt", b"cat\n\ndog\n", "a name on every line"),
        ("classes.txt", b"", "a name on every line"),
        ("classes.txt", b"cat\ndog\ncat\n", "'cat' is named twice"),
        ("classes.txt", b"cat\ndog\n", "label 2; expected 0 to 1"),
        ("classes.txt", b"\xff\xfe\n", "cannot be read"),
        ("classes.json", b'{"0": "cat"}', "a JSON list of strings"),
        ("classes.json", b"[0, 1, 2]", "a JSON list of strings"),
        ("classes.json", b"[" * 100_000, "cannot be read"),
    ],
)
def test_a_file_that_does_not_name_the_classes_is_refused(tmp_path, file, content, said):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_dataset(_write(tmp_path))
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    (tmp_path / "classes.txt").write_text("a\nb\nc")
    with pytest.raises(UserError, match="has both classes.txt and classes.json"):
        load_dataset(f"npz:{tmp_path}")


def test_npz_is_read_as_stored(tmp_path):
    train, test = _arrays(30), _arrays()
    data = load_dataset(_write(tmp_path, train, test), val_fraction=0.2)
    assert data.train.images is not None and data.test.images is not None
    assert (len(data.train), len(data.val), len(data.test)) == (24, 6, 12)
    np.testing.assert_array_equal(data.train.images, train["image"][data.train.index])
    np.testing.assert_array_equal(data.test.images, test["image"])
    np.testing.assert_array_equal(data.test.index, np.arange(12))
    assert data.class_names == ["0", "1", "2"] and data.image_size == (6, 5)


def test_npz_labels_from_one_are_refused_and_classes_without_images_are_said(tmp_path):
    images = np.zeros((6, 4, 4, 3), np.uint8)

    def load(*labels, **more):
        for name, stored in zip(("train", "test"), labels, strict=True):
            np.savez(tmp_path / f"{name}.npz", image=images, label=np.array(stored), **more)
        return load_dataset(f"npz:{tmp_path}", val_fraction=0)

    with pytest.raises(UserError, match="labels from 1 to 3; expected labels from 0\nsubtract 1 .* all 4 classes"):
        load([1, 2, 3, 1, 2, 3], [3, 2, 1, 1, 2, 3])
    with pytest.raises(UserError, match="label 3; expected 0 to 2 .*labels may begin at 1"):
        load([1, 2, 3, 1, 2, 3], [3, 2, 1, 1, 2, 3], class_names=np.array(["a", "b", "c"]))
    named = load([1, 2, 3, 1, 2, 3], [3, 2, 1, 1, 2, 3], class_names=np.array(["none", "a", "b", "c"]))
    assert named.num_classes == 4 and "1 of 4 classes have no training image: none" in named.notes
    assert load([1, 2, 3, 1, 2, 3], [0, 2, 1, 1, 2, 3]).num_classes == 4  # the test split has the class 0
    assert load([0, 0, 0, 5, 5, 5], [0] * 6).notes == [
        "4 of 6 classes have no training image: 1, 2, 3, ...", "1 of 6 classes have no test image: '5'",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [bool, np.int64, np.float32])
def test_npz_with_several_labels_per_image(tmp_path, kind):
    labels = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]] * 5, kind)
    train, test = ({**_arrays(len(part)), "label": part} for part in (labels, labels[:6]))
    data = load_dataset(_write(tmp_path, {**train, "classes": np.array(["cat", "dog", "emu"])}, test), val_fraction=0)
    assert data.several and data.class_names == ["cat", "dog", "emu"] and data.train.labels.dtype == np.uint8
    np.testing.assert_array_equal(data.train.labels, labels)
    np.testing.assert_array_equal(data.test.labels, labels[:6])
    assert data.notes == ["several labels per image", "1 of 3 classes have no training image: emu"]
    data = load_dataset(_write(tmp_path, train, {**test, "label": labels[:6]}), val_fraction=0.2)
    assert data.class_names == ["0", "1", "2"] and len(data.val) == 4
    one_hot = {**_arrays(6), "label": np.eye(3, dtype=kind)[np.arange(6) % 3]}
    assert "exactly one of the classes" in load_dataset(_write(tmp_path, one_hot, one_hot), val_fraction=0).notes[0]


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([[0, 1], [2, 0]], None, r"train.npz: label has shape \[2, 2\], so several labels per image, but holds 2;"),
        ([[0.0, 0.5], [1, 0]], None, "but holds 0.5; expected only 0 and 1"),
        ([[0, 1], [1, 0]], [[0, 1, 1]], r"test.npz: label has shape \[1, 3\]; expected \[n, 2\]"),
        ([[0, 1], [1, 0]], [1, 0], r"test.npz: label has shape \[2\]; expected \[n, 2\]"),
        ([0, 1], [[0, 1]], r"test.npz: label has shape \[1, 2\]; expected \[n\] as in train.npz"),
    ],
)
def test_npz_mistakes_in_several_labels(tmp_path, train, test, said):
    parts = [np.array(train), np.array(train if test is None else test)]
    with pytest.raises(UserError, match=said):
        load_dataset(_write(tmp_path, *({**_arrays(len(part)), "label": part} for part in parts)))


def test_a_class_without_validation_images_of_its_own_split_is_refused(tmp_path):
    name = _write(tmp_path, val={**_arrays(4), "label": np.array([0, 0, 2, 2])})
    with pytest.raises(UserError, match="no validation image of the class '1'; expected at least one per class"):
        load_dataset(name)
    assert len(load_dataset(name, to_train=False).val) == 4


def test_npz_takes_floats_grey_images_names_and_its_own_validation(tmp_path):
    values = np.arange(256, dtype=np.float32) / 255
    images = np.tile(values[:32].reshape(4, 8), (10, 1, 1))
    train = {"image": images, "label": np.arange(10)[:, None] % 2, "class_names": np.array(["no", "ja", "maybe"])}
    val = {"image": images[:4], "label": np.array([2, 0, 1, 1], np.uint8)}
    data = load_dataset(_write(tmp_path, train, {**val}, val=val))
    assert data.train.images is not None and data.train.images.shape == (10, 4, 8, 1)
    np.testing.assert_array_equal(data.train.images[0].ravel(), np.arange(32))
    assert data.class_names == ["no", "ja", "maybe"] and len(data.val) == 4 and data.in_channels == 1


def _with(key, value, n=12):
    return {**_arrays(n), key: value}


BAD_TRAIN = {
    "negative": (_with("label", np.arange(12) - 1), "label -1"),
    "float labels": (_with("label", np.arange(12.0)), "whole numbers"),
    "one class": (_with("label", np.zeros(12, int)), "one class"),
    "lengths": (_with("label", np.arange(11) % 3), "12 images but 11 labels"),
    "range": (_with("image", np.full((12, 4, 4, 3), 3.5)), "3.5"),
    "below": (_with("image", np.full((12, 4, 4, 3), -0.5)), "-0.5"),
    "nan": (_with("image", np.full((12, 4, 4, 3), np.nan)), "not finite"),
    "object": (_with("image", np.array([None] * 12, object)), "never loaded"),
    "object labels": (_with("label", np.array(["a"] * 12, object)), "never loaded"),
    "large integers": (_with("image", np.full((12, 4, 4, 3), 300)), "300"),
    "channels first": (_with("image", np.zeros((12, 3, 32, 32), np.uint8)), "channels"),
    "flat": (_with("image", np.zeros((12, 48), np.uint8)), "shape"),
    "strings": (_with("image", np.full((12, 4, 4, 3), "x")), "expected uint8"),
    "empty": ({"image": np.zeros((0, 4, 4, 3), np.uint8), "label": np.zeros(0, int)}, "no images"),
    "no label": ({"image": np.zeros((4, 4, 4, 3), np.uint8)}, "'label'"),
    "no image": ({"label": np.zeros(4, int)}, "'image'"),
    "names": (_with("class_names", np.array(["a", "a", "b"])), "class_names"),
}


@pytest.mark.parametrize("case", BAD_TRAIN)
def test_bad_arrays_are_named(tmp_path, case):
    arrays, words = BAD_TRAIN[case]
    with pytest.raises(UserError, match="train.npz") as caught:
        load_dataset(_write(tmp_path, arrays))
    assert words in str(caught.value) and len(str(caught.value).splitlines()) <= 2


def test_damaged_or_missing_archives_are_named(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        load_dataset(f"npz:{tmp_path / 'none'}")
    with pytest.raises(UserError, match="train.npz is missing"):
        load_dataset(f"npz:{tmp_path}")
    name = _write(tmp_path)
    with pytest.raises(UserError, match=f"is a file; expected its directory. Did you mean '{name}'"):
        load_dataset(f"{name}/train.npz")
    whole = (tmp_path / "test.npz").read_bytes()
    for damaged in (b"", b"not a zip", whole[: len(whole) // 2], np.random.default_rng(0).bytes(500)):
        (tmp_path / "test.npz").write_bytes(damaged)
        with pytest.raises(UserError, match="test.npz"):
            load_dataset(name)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    (tmp_path / "test.npz").write_bytes(flipped)
    with pytest.raises(UserError, match="test.npz"):
        load_dataset(name)
