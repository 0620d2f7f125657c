"""`hf:` and `wds:`: Parquet, Arrow and tar files made here, splits by their names, labels of every kind, mistakes."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import index_file, load_dataset
from jaxvit.data.sources import wds
from jaxvit.data.sources.wds import expand_braces
from jaxvit.errors import UserError


def _png(i):
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), 10 * i, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def _shard(file, samples):
    with tarfile.open(file, "w") as archive:
        for key, members in samples.items():
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_tar_shards_are_read_by_offset(tmp_path):
    for number in range(3):
        samples = {f"a.b/{number}{i}": {"png": _png(4 * number + i), "cls": b"%d\n" % (i % 2)} for i in range(4)}
        _shard(tmp_path / f"train-{number:03}.tar", samples)
    _shard(tmp_path / "test-000.tar", {"x": {"json": b'{"label": 1, "w": 5}', "seg.png": _png(9), "jpg": _png(20)}})
    data = load_dataset(f"wds:{tmp_path}/{{train,test}}-{{000..000}}.tar", val_fraction=0)
    assert (len(data.train), len(data.test)) == (4, 1)
    data = load_dataset(f"wds:{tmp_path}", val_fraction=0)
    assert data.class_names == ["0", "1"] and (len(data.train), len(data.test)) == (12, 1)
    for i, name in enumerate(data.train.image_names()):
        number, place = divmod(int(data.train.index[i]) - 1, 4)  # the test shard comes first
        assert name == f"train-{number:03}.tar/a.b/{number}{place}" and data.train.labels[i] == place % 2
        assert np.asarray(data.train.read(i))[0, 0, 0] == 10 * (4 * number + place)
    assert [file.name for file in data.train.within] == sorted(file.name for file in tmp_path.iterdir())
    assert data.test.labels.tolist() == [1] and np.asarray(data.test.read(0))[0, 0, 0] == 200  # not the mask
    only = load_dataset(f"wds:{tmp_path}/train-*.tar", val_fraction=0)
    assert len(only.train) == 10 and len(only.test) == 2


@pytest.mark.parametrize("several", [False, True])
def test_shards_are_read_once(tmp_path, several, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_file, "WORTH_SECS", -1.0)

    def label(k):
        return {"json": json.dumps({"label": ["a", "b"][: k % 3] if several else k % 3}).encode()}

    for name in ("imagenet1k-train-0000", "imagenet1k-train-0001", "imagenet1k-validation-00"):  # as timm's
        samples = {f"{name[-6:]}_{k}": {"png": _png(k), **label(k)} for k in range(9)}
        _shard(tmp_path / f"{name}.tar", {**samples, "broken": {"jpg": b"", **label(1)}})
    reads, read = [], wds._read
    monkeypatch.setattr(wds, "_read", lambda *a: (reads.append(1), read(*a))[1])

    def load(**options):
        reads.clear()
        name = f"wds:{tmp_path}"
        data = load_dataset(name, val_fraction=0, max_bad_fraction=0.2, skipped_file=str(tmp_path / "skip"), **options)
        splits = [
            (list(s.image_names()), s.labels.tolist(), s.index.tolist()) for s in (data.train, data.val, data.test)
        ]
        pixels = [int(np.asarray(data.train.read(i))[0, 0, 0]) for i in range(len(data.train))]
        return data.class_names, splits, data.image_size, data.notes, pixels, (tmp_path / "skip").read_text()

    first = load()
    assert len(reads) == 1 and first[2] == (6, 5) and len(first[5].splitlines()) == 3
    assert len(first[1][2][0]) == 9 and all("validation" in name for name in first[1][2][0])  # the test, as published
    assert not first[1][1][0]
    assert load() == first and not reads
    assert load(rescan=True) == first and reads
    _shard(tmp_path / "imagenet1k-train-0001.tar", {"z": {"png": _png(1), **label(1)}})
    assert len(load()[1][0][0]) < len(first[1][0][0]) and reads
    (tmp_path / "imagenet1k-train-0001.tar").unlink()
    assert not any("0001" in name for names, *_ in load()[1] for name in names)


def test_lists_in_json_are_several_labels(tmp_path):
    labels = [["a"], ["a", "b"], [], ["b"], ["a"]]
    samples = {f"{i}": {"png": _png(i), "json": json.dumps({"labels": v}).encode()} for i, v in enumerate(labels)}
    _shard(tmp_path / "x.tar", samples)
    data = load_dataset(f"wds:{tmp_path / 'x.tar'}", val_fraction=0)
    assert data.several and len(data.train) + len(data.test) == 5


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ({"a": {"png": b"x"}}, "a in x.tar has no label; expected a.cls"),
        ({"a": {"png": b"x", "cls": b" "}}, "a in x.tar has no label in its cls"),
        ({"a": {"png": b"x", "json": b"{"}}, "json holds no text, or no JSON"),
        ({"a": {"cls": b"1"}}, "no images in 1 shards"),
        (None, "x.tar is compressed; unpack it"),
    ],
)
def test_mistakes_in_shards(tmp_path, samples, said):
    if samples is None:
        tarfile.open(tmp_path / "x.tar", "w:gz").close()
    else:
        _shard(tmp_path / "x.tar", samples)
    with pytest.raises(UserError) as error:
        load_dataset(f"wds:{tmp_path / 'x.tar'}")
    assert said in str(error.value)
    with pytest.raises(UserError, match=r"2 of 3 shards are not there: .*y.tar"):
        load_dataset(f"wds:{tmp_path}/{{x,y,z}}.tar")


def test_braces():
    assert expand_braces("a-{008..010}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert expand_braces("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    assert expand_braces("plain") == ["plain"]
