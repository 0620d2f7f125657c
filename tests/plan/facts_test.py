"""Facts of the data without reading images."""

import io
import json
import tarfile

import numpy as np
import pytest

from jaxvit.plan import facts
from tests.helpers import tiny_config, write_npz


def test_facts_come_from_headers_names_and_arguments(tmp_path):
    name = write_npz(tmp_path, num_train=48, num_test=20, size=8)
    config = tiny_config(name)
    here = facts.find(config)
    assert (here.num_classes, here.num_train, here.num_val, here.num_test, here.shape) == (3, 43, 5, 20, (8, 8, 3))
    assert here.note is None
    config.data.name = "tfds:imagenet2012"
    assert facts.find(config).num_classes == 1000 and facts.find(config, num_train=5).num_train == 5
    config.data.name = "folder:/nowhere"
    assert facts.find(config, num_classes=7).num_classes == 7
    unknown = facts.find(config)
    assert unknown.num_classes == 1000 and unknown.shape is None
    assert unknown.note is not None and "the plan assumes photos, 1,000 classes" in unknown.note


def test_facts_of_parquet_and_shards_come_from_their_labels(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for split, labels in (("train", ["a", "b", "c", "a"] * 5), ("test", ["b", "b"])):
        table = pyarrow.table({"image": [{"bytes": b"no image", "path": None}] * len(labels), "label": labels})
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    config = tiny_config(f"hf:{tmp_path}")
    found = facts.find(config)
    assert (found.num_classes, found.num_train, found.num_val, found.num_test) == (3, 18, 2, 2)
    assert found.note is None and not found.several
    with tarfile.open(tmp_path / "train-000.tar", "w") as archive:
        for i in range(10):
            label = json.dumps({"label": ["x", "y"][: i % 3]}).encode()
            for name, content in ((f"{i}.jpg", b"no image"), (f"{i}.json", label)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    config.data.name = f"wds:{tmp_path}/train-000.tar"
    found = facts.find(config)
    assert (found.num_classes, found.num_train + found.num_val, found.num_test) == (2, 8, 2)
    assert found.note is None and found.several
    for name, why in ((f"wds:{tmp_path}/x.tar", "the shard is not there"), ("hf:/nowhere", "no such directory")):
        config.data.name = name
        found = facts.find(config, num_classes=7)
        assert found.num_classes == 7
        assert found.note is not None and why in found.note and "--num-classes N" in found.note


def test_facts_of_arrays_with_several_labels(tmp_path):
    images = np.zeros((10, 4, 4, 3), np.uint8)
    names = np.array(["a", "b", "c"])
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", image=images, label=np.eye(3, dtype=int)[np.arange(10) % 3], classes=names)
    found = facts.find(tiny_config(f"npz:{tmp_path}"))
    assert (found.num_classes, found.several, found.shape) == (3, True, (4, 4, 3))
