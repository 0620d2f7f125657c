"""Labels in a file: splits and groups, one label or several, and mistakes named."""

import sys

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import load_dataset, make_feed, make_transform
from jaxvit.data.splits import hold_out_groups
from jaxvit.errors import UserError


def _images(root, names):
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(root / name)


def _write(root, text, name="labels.csv", encoding="utf-8"):
    (root / name).write_text(text, encoding=encoding)
    return f"csv:{root / name}"


def _plain(root, n=20, classes=("ant", "bee", "cat"), head="file,label", row="{file},{name}"):
    files = [(f"images/{name}{i}.jpg", name, i) for i in range(n) for name in classes]
    _images(root, [file for file, *_ in files])
    return _write(root, "\n".join([head, *(row.format(file=file, name=name, i=i) for file, name, i in files)]))


def test_one_label_per_image_is_split_as_folders_are(tmp_path):
    data = load_dataset(_plain(tmp_path))
    assert data.class_names == ["ant", "bee", "cat"] and not data.several
    assert (len(data.train), len(data.val), len(data.test)) == (42, 6, 12)
    np.testing.assert_array_equal(np.bincount(data.test.labels), 4)
    np.testing.assert_array_equal(np.bincount(data.val.labels), 2)
    other = load_dataset(data.name, seed=3)
    assert other.test.names == data.test.names and other.val.names != data.val.names
    assert data.image_size == (9, 8) and data.drawn == ("test", "val")
    for split in (data.train, data.val, data.test):
        for i, name in enumerate(split.names):
            assert data.class_names[split.labels[i]] == name.split("/")[1].rstrip("0123456789.jpg")
        np.testing.assert_array_equal(np.asarray(split.read(1)), np.asarray(Image.open(tmp_path / split.names[1])))
    feed = make_feed(data.test, transform=make_transform(8))
    batch = next(iter(feed.batches(np.arange(5), 8, pad=True)))
    assert batch["label"].tolist() == [*data.test.labels[:5], 0, 0, 0]


def test_given_splits_are_taken_and_validation_is_drawn_where_there_is_none(tmp_path):
    name = _plain(tmp_path, head="split;label;path;age", row="{i};{name};{file};1")
    text = (tmp_path / "labels.csv").read_text()
    for i in range(20):
        text = text.replace(f"\n{i};", f"\n{('Train', 'test', 'Validation')[min(i % 5, 2)]};")
    _write(tmp_path, text)
    data = load_dataset(name)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 36, 12) and data.drawn == ()
    assert any("columns that are not used: age" in note for note in data.notes)
    _write(tmp_path, text.replace("Validation", "train"))
    data = load_dataset(name)
    assert (len(data.train), len(data.val), len(data.test)) == (43, 5, 12) and data.drawn == ("val",)


def test_groups_stay_together_in_the_splits_that_are_made(tmp_path):
    name = _plain(tmp_path, head="file,label,group", row="{file},{name},{name}-{i}")
    text = (tmp_path / "labels.csv").read_text()
    for i in range(20):  # five groups of four images for each class
        text = text.replace(f"-{i}\n", f"-g{i % 5}\n")
    _write(tmp_path, text.replace("-19", "-g4"))
    data = load_dataset(name)
    groups = [{(n.split("/")[1][:3], int(n[10:-4]) % 5) for n in s.names} for s in (data.train, data.val, data.test)]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert [len(s) for s in (data.train, data.val, data.test)] == [44, 4, 12]
    np.testing.assert_array_equal(np.bincount(data.test.labels), 4)
    assert any("whole groups" in note for note in data.notes)


def test_groups_are_held_out_near_the_share_of_each_class():
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 2000, p=[0.5, 0.3, 0.15, 0.05])
    groups = rng.integers(0, 300, 2000)
    kept, held = hold_out_groups(labels, groups, 400, 7)
    assert len(kept) + len(held) == 2000 and not set(groups[kept]) & set(groups[held])
    np.testing.assert_allclose(np.bincount(labels[held]), 0.2 * np.bincount(labels), atol=3)
    again = hold_out_groups(labels, groups, 400, 7)[1]
    np.testing.assert_array_equal(held, again)
    assert not np.array_equal(held, hold_out_groups(labels, groups, 400, 8)[1])
    # two groups that both hold all classes: the smaller one is held out; a single group cannot be divided
    halves = np.repeat([0, 1], [6, 4])
    assert hold_out_groups(np.tile([0, 1], 5), halves, 1, 0)[1].tolist() == [6, 7, 8, 9]
    assert hold_out_groups(np.tile([0, 1], 5), np.zeros(10), 2, 0)[1].tolist() == []


def test_numbers_as_labels_have_their_order_and_a_run_keeps_its_own(tmp_path):
    name = _plain(tmp_path, 4, ("10", "2"), head="Image,Class")
    data = load_dataset(name)
    assert data.class_names == ["2", "10"]
    assert load_dataset(name, class_names=["10", "2"]).class_names == ["10", "2"]


def test_columns_of_other_names_are_given(tmp_path):
    name = _plain(tmp_path, 4, ("x", "y"), head="where,what,label", row="{file},{name},{i}")
    assert load_dataset(name, columns="file=where, label=what").class_names == ["x", "y"]
    for columns, said in (
        ("file=wher", "no column 'wher'; there are where, what, label. Did you mean 'where'"),
        ("fiel=where", "data.columns is 'fiel=where'; expected file, label, split, group"),
        ("where", "as 'file=path,label=species'"),
        (None, "no column 'file'; there are where, what, label"),
    ):
        with pytest.raises(UserError, match=said):
            load_dataset(name, columns=columns)


def test_names_are_found_as_windows_and_macos_write_them(tmp_path):
    _images(tmp_path, ["bilder/tür.jpg", "bilder/b b.jpg", "c,d.jpg", "e.jpg"])
    decomposed = "bilder/tu\u0308r.jpg"
    text = f'\ufefffile;label\nbilder\\b b.jpg;Öl\n{decomposed};Öl\n"c,d.jpg";"a;b"\n./e.jpg;O\u0308l\n'
    data = load_dataset(_write(tmp_path, text), to_train=False)
    assert data.several and data.class_names == ["a", "b", "Öl"]
    data = load_dataset(_write(tmp_path, text.replace('"a;b"', "ab")), val_fraction=0)
    assert data.class_names == ["ab", "Öl"] and "bilder/b b.jpg" in (*data.train.names, *data.test.names)


def test_several_labels_in_a_cell_and_in_columns_are_the_same(tmp_path):
    _images(tmp_path, [f"{i}.png" for i in range(12)])
    sets = ["cat|dog", "cat", "", "dog | bird", "bird|bird", "cat|dog|bird"] * 2
    lines = ["file,labels", *(f"{i}.png,{text}" for i, text in enumerate(sets))]
    cells = load_dataset(_write(tmp_path, "\n".join(lines)))
    columns = ["file,bird,cat,dog"]
    columns += [f"{i}.png,{int('bird' in s)},{str('cat' in s).lower()},{float('dog' in s)}" for i, s in enumerate(sets)]
    by_class = load_dataset(_write(tmp_path, "\n".join(columns), "columns.csv"))
    assert cells.several and cells.class_names == by_class.class_names == ["bird", "cat", "dog"]
    assert any("separated by '|'; 2 images have none" in note for note in cells.notes)
    for a, b in ((cells.train, by_class.train), (cells.val, by_class.val), (cells.test, by_class.test)):
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.names == b.names and a.labels.dtype == np.uint8 and a.labels.shape[1] == 3
        for name, row in zip(a.names, a.labels, strict=True):
            assert {n for n, on in zip(cells.class_names, row, strict=True) if on} == {
                s.strip() for s in sets[int(name[:-4])].split("|") if s.strip()
            }
    batch = next(iter(make_feed(cells.train, transform=make_transform(8)).batches(np.arange(2), 3, pad=True)))
    np.testing.assert_array_equal(batch["label"], [*cells.train.labels[:2], [0, 0, 0]])


def test_the_rarest_label_of_an_image_is_what_is_stratified_by(tmp_path):
    _images(tmp_path, [f"{i}.png" for i in range(40)])
    lines = ["file,labels", *(f"{i}.png,{'common|rare' if i < 10 else 'common'}" for i in range(40))]
    data = load_dataset(_write(tmp_path, "\n".join(lines)))
    assert len(data.test) == 8 and data.test.labels[:, 1].sum() == 2  # of 10
    part = load_dataset(data.name, fraction=0.5)
    assert abs(int(part.train.labels[:, 1].sum()) - len(part.train) / 4) <= 1
    assert set(part.train.names) < set(data.train.names)


MISTAKES = {
    "file,label\na.jpg,x\nb.jpg,\n,y\n": "1 row has no file: line 4",
    "file,label\na.jpg,x\nb.jpg,\n": "1 row has no label: line 3 (b.jpg)",
    "file,label\na.jpg,x\nz.jpg,y\nq.jpg,x\n": "2 of 3 files are not there: z.jpg (line 3), q.jpg (line 4)",
    "file,label\na,x\nb.jpg,y\n": "there is a.jpg: a name needs its file extension",
    "file,label,split\na.jpg,x,train\nb.jpg,y,tset\n": "split is 'tset' in line 3; expected train, val or test",
    "file,label,split\na.jpg,x,test\nb.jpg,y,test\n": "no image of the split train",
    "file,label,split\na.jpg,x,train\nb.jpg,x,train\nc.jpg,y,test\n": "no training image of the class 'y'",
    "file,label\na.jpg,x\nb.jpg,x\n": "only the class 'x'",
    "file,label\na.jpg,x\nb.jpg,y\n./a.jpg,y\n": "./a.jpg has two labels, 'x' (line 2) and 'y' (line 4)",
    "file,label\na.jpg,x\nb.jpg,y\n./a.jpg,x\n": "a row repeats a file: ./a.jpg (line 2 and line 4)",
    "file,label\na.jpg,x\nb.jpg,y\na.jpg,x\nb.jpg,y\n": "2 rows repeat files: a.jpg (line 2 and line 4),",
    "where,species\na.jpg,x\n": "data.columns=file=where,label=species names both",
    "file,label,split\na.jpg,x,train\nb.jpg,y,train\na.jpg,x,test\n": "a.jpg has two splits, 'train' (line 2) and",
    "file,label,split,group\na.jpg,x,train,p\nb.jpg,y,train,q\nc.jpg,y,test,q\n": "group 'q' is in two splits, train",
    "file,species\na.jpg,x\nb.jpg,y\n": "no column 'label', and column 'species' holds 'x'; expected label",
    "file,x,y\na.jpg,1,0\nb.jpg,-1,1\n": "no column 'label', and column 'x' holds '-1'",
    "a.jpg,x\nb.jpg,y\n": "header line; it begins with 'a.jpg'",
    "file\na.jpg\n": "no column 'label'; expected label, or a column of 0 and 1",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named(tmp_path, text):
    _images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    name = _write(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_dataset(name, skipped_file=tmp_path / "skipped.txt")
    assert MISTAKES[text] in str(error.value) and len(str(error.value).splitlines()) <= 2
    assert not (tmp_path / "skipped.txt").exists()


@pytest.mark.parametrize("several", [False, True])
def test_a_class_without_validation_images(tmp_path, several):
    """Of a split that the file gives it is an error; of one that is drawn here a line says so."""
    _images(tmp_path, [f"{i}.png" for i in range(12)])
    kinds = [("x|z" if several else "x", "train"), ("y", "train"), ("z", "train"), ("x", "val")] * 3
    name = _write(tmp_path, "file,label,split\n" + "\n".join(f"{i}.png,{a},{b}" for i, (a, b) in enumerate(kinds)))
    with pytest.raises(UserError, match="no validation image of the classes 'y', 'z'; expected at least one per class"):
        load_dataset(name)
    assert len(load_dataset(name, to_train=False).val) == 3
    name = _write(tmp_path, "file,label\n" + "\n".join(f"{i}.png,{'rare' if i < 2 else 'common'}" for i in range(12)))
    notes = load_dataset(name).notes
    assert "1 of 2 classes have no validation image: 'rare'" in notes


def test_unreadable_images_are_skipped_and_listed_as_those_of_folders(tmp_path):
    name = _plain(tmp_path)
    (tmp_path / "images/ant3.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 60 image files cannot be read.*max_bad_fraction=0.02"):
        load_dataset(name)
    data = load_dataset(name, max_bad_fraction=0.02, skipped_file=tmp_path / "skipped.txt")
    assert len(data.train) + len(data.val) + len(data.test) == 59
    assert "images/ant3.jpg\tno image data" in (tmp_path / "skipped.txt").read_text()
    assert data.train.index.max() <= 59 and len({*data.train.index, *data.val.index, *data.test.index}) == 59


def test_parquet_is_read_by_either_name_and_missing_pyarrow_is_one_line(tmp_path, monkeypatch):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    _images(tmp_path, [f"{i}.png" for i in range(8)])
    table = pyarrow.table({"file": [f"{i}.png" for i in range(8)], "label": [i % 2 for i in range(8)]})
    parquet.write_table(table, tmp_path / "labels.parquet")
    for kind in ("csv", "parquet"):
        data = load_dataset(f"{kind}:{tmp_path / 'labels.parquet'}", val_fraction=0)
        assert data.class_names == ["0", "1"] and not data.several
    lists = pyarrow.table({"file": [f"{i}.png" for i in range(8)], "labels": [["a", "b"], ["a"]] * 4})
    parquet.write_table(lists, tmp_path / "lists.parquet")
    data = load_dataset(f"parquet:{tmp_path / 'lists.parquet'}", val_fraction=0)
    assert data.several and data.class_names == ["a", "b"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"the package pyarrow is not installed: pip install 'jaxvit\[parquet\]'"):
        load_dataset(f"parquet:{tmp_path / 'labels.parquet'}")
