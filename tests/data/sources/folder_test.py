"""Folders of photos: layouts, splits, odd and broken files, and mistakes named."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import load_dataset, make_feed, make_transform
from jaxvit.errors import UserError


def _fill(directory, n, seed=0, suffix=".jpg", size=(12, 10)):
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(directory / f"{i:03d}{suffix}")


def _plain(root, n=20, classes=("ant", "bee", "cat")):
    for i, name in enumerate(classes):
        _fill(root / name, n, i)
    return f"folder:{root}"


def test_class_folders_are_split_automatically_and_the_test_split_is_fixed(tmp_path):
    data = load_dataset(_plain(tmp_path))
    assert data.class_names == ["ant", "bee", "cat"]
    assert (len(data.train), len(data.val), len(data.test)) == (42, 6, 12)
    np.testing.assert_array_equal(np.bincount(data.test.labels), 4)
    np.testing.assert_array_equal(np.bincount(data.val.labels), 2)
    names = [*data.train.names, *data.val.names, *data.test.names]
    assert len(set(names)) == 60 and "bee/003.jpg" in names
    other = load_dataset(f"folder:{tmp_path}", seed=3)
    assert other.test.names == data.test.names and other.val.names != data.val.names
    for split in (data.train, data.val, data.test):
        for i, name in enumerate(split.names):
            assert data.class_names[split.labels[i]] == name.split("/")[0]
        np.testing.assert_array_equal(np.asarray(split.read(1)), np.asarray(Image.open(tmp_path / split.names[1])))


def test_numbers_in_names_of_classes_count_by_their_value_and_a_run_keeps_its_order(tmp_path):
    name = _plain(tmp_path, 5, ("c10", "c2", "c1"))
    data = load_dataset(name)
    assert data.class_names == ["c1", "c2", "c10"]
    assert any("sorted by the numbers in them: 'c1', 'c2', 'c10'" in note for note in data.notes)
    before = ["c1", "c10", "c2"]  # as runs of earlier versions have them
    kept = load_dataset(name, class_names=before)
    assert kept.class_names == before and not any("sorted by the numbers" in note for note in kept.notes)
    for found in (data, kept):
        for i, file in enumerate(found.train.names):
            assert found.class_names[found.train.labels[i]] == file.split("/")[0]
    assert load_dataset(name, class_names=["c1", "c10", "x"]).class_names == data.class_names


@pytest.mark.parametrize(("val_name", "with_test"), [("val", False), ("validation", False), ("val", True)])
def test_train_and_val_folders(tmp_path, val_name, with_test):
    """val/ selects and is never the test split; a missing test split is held out of train/."""
    _plain(tmp_path / "train", 10)
    _plain(tmp_path / val_name, 5)
    if with_test:
        _plain(tmp_path / "test", 4)
    data = load_dataset(f"folder:{tmp_path}")
    assert len(data.val) == 15 and all(name.startswith(f"{val_name}/") for name in data.val.names)
    assert (len(data.train), len(data.test)) == ((30, 12) if with_test else (24, 6))
    assert all(name.startswith("test/" if with_test else "train/") for name in data.test.names)
    assert data.drawn == (() if with_test else ("test",))
    reading = f"train/ trains, {val_name}/ selects" + (
        ", test/ tests" if with_test else "; the test images are held out of train/"
    )
    assert any(reading in note for note in data.notes)


def test_train_alone_and_a_test_folder_without_classes(tmp_path):
    _plain(tmp_path / "train", 10)
    (tmp_path / "test").mkdir()
    data = load_dataset(f"folder:{tmp_path}")
    assert (len(data.train), len(data.val), len(data.test)) == (21, 3, 6)
    assert any("not used" in note for note in data.notes)


def test_content_counts_and_names_do_not(tmp_path):
    name = _plain(tmp_path, 4)
    ant = tmp_path / "ant"
    picture = Image.new("RGB", (9, 9), "red")
    picture.save(ant / "webp.jpg", "WEBP")
    picture.save(ant / "no_suffix", "PNG")
    picture.save(ant / "JPEG.dat", "JPEG")
    (ant / "deep" / "deeper").mkdir(parents=True)
    picture.save(ant / "deep" / "deeper" / "x.PNG")
    for ignored in ("notes.txt", ".DS_Store", "Thumbs.db", ".hidden.jpg", "empty.csv"):
        (ant / ignored).write_bytes(b"" if ignored == "empty.csv" else b"hello")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.md").write_text("hello")
    data = load_dataset(name)
    found = {
        n for s in (data.train, data.val, data.test) for n in s.names if n.startswith("ant") and not n[4].isdigit()
    }
    assert found == {"ant/webp.jpg", "ant/no_suffix", "ant/JPEG.dat", "ant/deep/deeper/x.PNG"}
    assert data.class_names == ["ant", "bee", "cat"]


def test_names_in_any_script(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Äpfel") for form in ("NFC", "NFD"))
    _plain(tmp_path / "train", 3, (composed, "犬", "with space"))
    _plain(tmp_path / "test", 2, (apart, "犬"))
    data = load_dataset(f"folder:{tmp_path}", val_fraction=0)
    assert data.class_names == sorted([composed, "犬", "with space"])
    assert set(data.test.labels) == {data.class_names.index(composed), data.class_names.index("犬")}


def test_classes_named_by_numbers_count_by_value(tmp_path):
    """0 ... 11 are the labels 0 to 11, not 0, 1, 10, 11, 2: whatever zeros stand before them."""
    for form in ("{}", "{:04d}"):
        root = tmp_path / form[:3].strip("{}:")
        data = load_dataset(_plain(root, 3, [form.format(i) for i in range(12)]), val_fraction=0)
        assert data.class_names == [form.format(i) for i in range(12)]
        for split in (data.train, data.test):
            for name, label in zip(split.names, split.labels, strict=True):
                assert int(name.split("/")[0]) == label


def test_mistakes_are_named(tmp_path):
    def error(path=tmp_path):
        with pytest.raises(UserError) as caught:
            load_dataset(f"folder:{path}")
        assert len(str(caught.value).splitlines()) <= 2
        return str(caught.value)

    assert "no such directory" in error(tmp_path / "none")
    assert "empty" in error()
    (tmp_path / "loose.jpg").write_bytes(b"x")
    assert "one subfolder per class" in error()
    (tmp_path / "ant").mkdir()
    assert "only the class 'ant'" in error()
    (tmp_path / "bee").mkdir()
    assert "no images" in error()
    _fill(tmp_path / "ant", 3)
    assert "no images in the class folder 'bee'" in error()
    (tmp_path / "bee" / "notes.txt").write_text("hello")
    assert "no images in the class folder 'bee'" in error()


def test_unknown_classes_in_val_are_named(tmp_path):
    _plain(tmp_path / "train", 3)
    _plain(tmp_path / "val", 3, ("ant", "dog"))
    with pytest.raises(UserError, match="'dog' is not a class"):
        load_dataset(f"folder:{tmp_path}")


def test_two_images_are_enough(tmp_path):
    data = load_dataset(_plain(tmp_path, 2, ("ant", "bee")))
    assert len(data.train) >= 2 and len(data.test) >= 1 and set(data.train.labels) == {0, 1}


def test_one_image_a_class_leaves_none_to_test_on(tmp_path):
    data = load_dataset(_plain(tmp_path, 1))  # training refuses it; it can be evaluated as a whole
    assert not len(data.test) and not len(data.val) and len(data.train) == len(data.class_names)
    assert not any("held out (" in note for note in data.notes)


def test_image_size_is_known_where_all_agree(tmp_path):
    name = _plain(tmp_path, 3)
    assert load_dataset(name).image_size == (12, 10)
    _fill(tmp_path / "ant", 1, size=(9, 9), suffix=".png")
    assert load_dataset(name).image_size is None


def test_odd_photos_reach_the_device(tmp_path):
    for name in ("ant", "bee"):
        _fill(tmp_path / name, 2)
        for mode in ("L", "CMYK"):
            Image.new(mode, (31, 17)).save(tmp_path / name / f"{mode}.jpg")
        for mode in ("LA", "P", "RGBA", "I;16", "1"):
            Image.new(mode, (5, 40)).save(tmp_path / name / f"{mode.replace(';', '')}.png")
    data = load_dataset(f"folder:{tmp_path}", val_fraction=0)
    feed = make_feed(data.train, transform=make_transform((8, 6)))
    (batch,) = feed.batches(np.arange(len(data.train)), len(data.train))
    assert batch["image"].shape == (len(data.train), 8, 6, 3) and bool(batch["mask"].all())


def test_three_hundred_files_with_one_per_cent_bad_are_read_the_same_each_time(tmp_path):
    """Truncated, zero-byte, of another kind than the name says, animated, bombs, unreadable, gone while training."""
    root, listed = tmp_path / "photos", tmp_path / "skipped.txt"
    name = _plain(root, 102)
    good = (root / "ant" / "000.jpg").read_bytes()
    (root / "ant" / "001.jpg").write_bytes(good[: len(good) // 2])
    (root / "bee" / "002.jpg").write_bytes(b"")
    Image.new("1", (20_000, 5_000)).save(root / "cat" / "003.png")
    (root / "cat" / "003.jpg").unlink()
    frames = [Image.new("RGB", (10, 12), colour) for colour in ("red", "blue")]
    frames[0].save(root / "cat" / "004.webp", save_all=True, append_images=frames[1:])  # its first frame is read
    (root / "bee" / "005.png").write_bytes(good)  # a JPEG in truth, and read as one
    first, second = (load_dataset(name, skipped_file=str(listed)) for _ in range(2))
    assert sum("skipped 3 of 308" in note and str(listed) in note for note in first.notes) == 1
    assert len(listed.read_text().splitlines()) == 3
    assert sum(len(s) for s in (first.train, first.val, first.test)) == 305
    for a, b in ((first.train, second.train), (first.val, second.val), (first.test, second.test)):
        assert a.names == b.names
        np.testing.assert_array_equal(a.index, b.index)
    gone = first.train.names[7]
    (root / gone).write_bytes(good[:100])  # damaged after the check
    feed = make_feed(first.train, transform=make_transform((12, 10), 3), resident_bytes=0)
    batches = list(feed.batches(np.arange(32), 8))
    assert feed.unreadable == {7} and [bool(b["mask"].all()) for b in batches] == [False, True, True, True]
