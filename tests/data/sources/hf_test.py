"""Data sets of the Hub on disk: Parquet and Arrow."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import load_dataset
from jaxvit.errors import UserError


def _png(i):
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), 10 * i, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def _table(labels, names=None, first=0):
    pyarrow = pytest.importorskip("pyarrow")
    images = [{"bytes": _png(first + i), "path": None} for i in range(len(labels))]
    table = pyarrow.table({"image": images, "label": labels})
    if names:
        feature = {"_type": "ClassLabel", "names": names}
        features = {"image": {"_type": "Image"}, "label": feature}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return table


def _write(file, table):
    parquet = pytest.importorskip("pyarrow.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, file)


def test_parquet_of_the_hub(tmp_path, monkeypatch):
    names = ["zebra", "ant"]  # the order of the data set, not of the alphabet
    _write(tmp_path / "data" / "train-00000-of-00002.parquet", _table([0, 1] * 4, names))
    _write(tmp_path / "data" / "train-00001-of-00002.parquet", _table([1, 0] * 2, names, 8))
    _write(tmp_path / "data" / "test-00000-of-00001.parquet", _table([1, 0, 1], names, 20))
    data = load_dataset(f"hf:{tmp_path}", val_fraction=0)
    assert data.class_names == names and (len(data.train), len(data.test)) == (12, 3) and data.drawn == ("val",)
    assert data.test.labels.tolist() == [1, 0, 1] and data.image_size == (6, 5)
    assert [np.asarray(data.test.read(i))[0, 0, 0] for i in range(3)] == [200, 210, 220]
    assert data.test.names[1] == "data/test-00000-of-00001.parquet[1]"
    copy = tmp_path / "cache" / "datasets--me--insects" / "snapshots" / "abc"
    _write(copy / "train.parquet", _table([0, 1] * 5, names))
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert len(load_dataset("hf:me/insects", val_fraction=0).test) == 2
    with pytest.raises(UserError, match="no such directory, and no copy in the hub's cache"):
        load_dataset("hf:me/nothing")


def test_arrow_files_of_save_to_disk_texts_and_lists(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    for split, n in (("train", 6), ("validation", 2), ("test", 2)):
        (tmp_path / split).mkdir()
        table = _table(["x|y", "z"] * (n // 2))
        file = str(tmp_path / split / "data-00000-of-00001.arrow")
        with pyarrow.OSFile(file, "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    data = load_dataset(f"hf:{tmp_path}")
    assert data.class_names == ["x|y", "z"] and (len(data.train), len(data.val), len(data.test)) == (6, 2, 2)
    _write(tmp_path / "lists" / "train.parquet", _table([["a", "b"], [], ["a"], ["b"], ["a"]]))
    data = load_dataset(f"hf:{tmp_path / 'lists'}", val_fraction=0)
    assert data.several and sorted([*data.train.labels.sum(1), *data.test.labels.sum(1)]) == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("label", "columns", "said"),
    [
        ([0, 1, -1], None, r"train.parquet\[2\] has no label"),
        ([0, 1, 5], None, r"has the label 5; there are 2 classes"),
        ([0, 1, 0], "label=lable", "no column 'lable'; there are image, label. Did you mean 'label'"),
    ],
)
def test_mistakes_in_parquet(tmp_path, label, columns, said):
    _write(tmp_path / "train.parquet", _table(label, ["a", "b"]))
    with pytest.raises(UserError, match=said):
        load_dataset(f"hf:{tmp_path}", columns=columns)
