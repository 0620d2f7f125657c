"""TFDS data sets without TensorFlow, and CIFAR prepared from its binary archive."""

import dataclasses
import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxvit.data import load_dataset
from jaxvit.data.sources import cifar, tfds_source
from jaxvit.errors import UserError

pytest.importorskip("array_record")
PER_FILE = 20


def _arrays(name: str, split: str, file: str):
    """Labels [PER_FILE, keys] and images [PER_FILE, 32, 32, 3] of one file of the synthetic archive."""
    rng = np.random.default_rng(len(name) + sum(map(ord, file)))
    keys = len(cifar.ARCHIVES[name].label_names)
    labels = np.stack([rng.permutation(PER_FILE) % 10 for _ in range(keys)], 1).astype(np.uint8)
    return labels, rng.integers(0, 256, (PER_FILE, 32, 32, 3), np.uint8)


def _archive(name: str, *, leave_out: str = "", cut: int = 0, extra: tuple = ()) -> bytes:
    spec = cifar.ARCHIVES[name]
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:gz") as tar:

        def add(path: str, content: bytes, **fields) -> None:
            info = tarfile.TarInfo(path)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        for path, content, fields in extra:
            add(path, content, **fields)
        for split, files in spec.members.items():
            for file in files:
                labels, images = _arrays(name, split, file)
                rows = np.concatenate([labels, images.transpose(0, 3, 1, 2).reshape(PER_FILE, -1)], 1)
                if file != leave_out:
                    add(f"{spec.folder}/{file}", rows.tobytes()[: len(rows.tobytes()) - cut])
        for key, file in spec.label_names.items():
            names = [f"{key} {i}" for i in range(spec.num_classes[key])]
            add(f"{spec.folder}/{file}", "\n".join(names).encode() + b"\n\n")
    return buffer.getvalue()


def _saved(directory: Path, name: str, monkeypatch=None, **changes) -> str:
    content = _archive(name, **changes)
    file = directory / f"{name}.tar.gz"
    file.write_bytes(content)
    if monkeypatch is not None:
        md5 = hashlib.md5(content).hexdigest()
        monkeypatch.setitem(cifar.ARCHIVES, name, dataclasses.replace(cifar.ARCHIVES[name], md5=md5))
    return str(file)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_prepared_in_tfds_own_layout_from_a_local_archive(tmp_path, monkeypatch, name):
    archive, data_dir = _saved(tmp_path, name, monkeypatch), str(tmp_path / "data")
    data = load_dataset(name, archive=archive, data_dir=data_dir, val_fraction=0)
    files = cifar.ARCHIVES[name].members["train"]
    stored = [_arrays(name, "train", file) for file in files]
    assert data.train.images is not None
    np.testing.assert_array_equal(data.train.images, np.concatenate([images for _, images in stored]))
    np.testing.assert_array_equal(data.train.labels, np.concatenate([labels[:, -1] for labels, _ in stored]))
    assert data.class_names[3] == "label 3" and data.image_size == (32, 32)

    import tensorflow_datasets as tfds

    source = tfds.data_source(name, split="test", data_dir=data_dir)
    assert len(source) == PER_FILE and source[0]["image"].shape == (32, 32, 3)
    assert {bytes(r["id"]) for r in source} == {b"test_%05d" % i for i in range(PER_FILE)}
    assert "tensorflow" not in sys.modules
    os.remove(archive)  # the second time it is read from where it was prepared
    again = load_dataset(f"tfds:{name}", data_dir=data_dir, val_fraction=0)
    np.testing.assert_array_equal(again.train.images, data.train.images)


def test_equal_images_through_tfds_and_npz_are_equal_data_sets(tmp_path, monkeypatch):
    spec = cifar.ARCHIVES["cifar10"]
    for split, files in spec.members.items():
        stored = [_arrays("cifar10", split, file) for file in files]
        images, labels = np.concatenate([i for _, i in stored]), np.concatenate([k[:, 0] for k, _ in stored])
        np.savez(tmp_path / f"{split}.npz", image=images, label=labels)
    ours = load_dataset(f"npz:{tmp_path}", fraction=0.5, seed=4)
    archive = _saved(tmp_path, "cifar10", monkeypatch)
    theirs = load_dataset("cifar10", fraction=0.5, seed=4, archive=archive, data_dir=str(tmp_path / "d"))
    for a, b in ((ours.train, theirs.train), (ours.val, theirs.val), (ours.test, theirs.test)):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.index, b.index)
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)


def test_an_archive_with_another_checksum_is_not_used(tmp_path):
    with pytest.raises(UserError, match="expected c32a1d4ab5d03f1284b67883e8d87530"):
        load_dataset("cifar10", archive=_saved(tmp_path, "cifar10"), data_dir=str(tmp_path / "d"))
    assert not (tmp_path / "d" / "cifar10").exists()
    with pytest.raises(UserError, match="cannot be read"):
        load_dataset("cifar10", archive=str(tmp_path / "none.tar.gz"), data_dir=str(tmp_path / "d"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"leave_out": "test_batch.bin"}, "test_batch.bin missing"),
        ({"cut": 7}, "expected a multiple of 3073"),
    ],
)
def test_archives_of_another_shape_are_refused_whole(tmp_path, monkeypatch, changes, words):
    archive = _saved(tmp_path, "cifar10", monkeypatch, **changes)
    with pytest.raises(UserError, match=words):
        load_dataset("cifar10", archive=archive, data_dir=str(tmp_path / "d"))
    assert not (tmp_path / "d" / "cifar10").exists()


def test_members_that_do_not_belong_touch_nothing(tmp_path, monkeypatch):
    folder = cifar.ARCHIVES["cifar10"].folder
    extra = (
        ("../../escaped.bin", b"x", {}),
        ("/escaped.bin", b"x", {}),
        (f"{folder}/test_batch.bin", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/hostname"}),
        (f"{folder}/sub/data_batch_1.bin", b"x", {}),
    )
    archive = _saved(tmp_path / ".", "cifar10", monkeypatch, extra=extra)
    data = load_dataset("cifar10", archive=archive, data_dir=str(tmp_path / "d"))
    assert len(data.test) == PER_FILE
    assert not list(tmp_path.parent.rglob("escaped.bin"))


def test_damaged_gzip_is_named(tmp_path):
    file = tmp_path / "x.tar.gz"
    file.write_bytes(_archive("cifar10")[:5000])
    with pytest.raises(UserError, match="damaged|missing"):
        cifar.prepare("cifar10", str(tmp_path), str(file), md5=hashlib.md5(file.read_bytes()).hexdigest())


def test_without_network_the_message_says_what_to_give(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise cifar.urllib.error.URLError("no network")

    monkeypatch.setattr(cifar.urllib.request, "urlopen", offline)
    with pytest.raises(UserError, match=r"data\.archive.*data\.dir") as caught:
        load_dataset("cifar100", data_dir=str(tmp_path))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tfds:mnist", "not prepared"),
        ("tfds:cifar1O", "'cifar10'"),
        ("tfds:../up", "cannot open"),
        ("tfds:", "nothing after the colon"),
    ],
)
def test_mistakes_in_tfds_names_are_answered(tmp_path, name, words):
    with pytest.raises(UserError, match=words) as caught:
        load_dataset(name, data_dir=str(tmp_path))
    assert len(str(caught.value).splitlines()) <= 2


def _builder(directory, features, splits, name="Tiny", file_format="array_record"):
    """Writes a small data set with TFDS's own writer; `splits` maps names to lists of examples."""
    import tensorflow_datasets as tfds

    overrides = {
        "VERSION": tfds.core.Version("1.0.0"),
        "code_path": None,
        "_info": lambda self: tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features)),
        "_split_generators": lambda self, dl: {split: enumerate(rows) for split, rows in splits.items()},
        "_generate_examples": lambda self: None,
        "__module__": __name__,
    }
    with tfds_source.quiet(), tfds.core.registered.skip_registration():
        cls = type(name, (tfds.core.GeneratorBasedBuilder,), overrides)
        cls(data_dir=str(directory), file_format=file_format).download_and_prepare()


def _rows(n, sizes=((5, 4),), labels=3):
    rng = np.random.default_rng(n)
    rows = []
    for i in range(n):
        image = rng.integers(0, 256, (*sizes[i % len(sizes)], 3), np.uint8)
        rows.append({"image": cifar._png(image), "kind": i % labels if labels > 0 else -1})
    return rows


def test_other_layouts_other_sizes_and_hidden_test_labels(tmp_path):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "kind": tfds.features.ClassLabel(names=["a", "b", "c"]),
    }
    sizes = ((5, 4), (6, 9))
    _builder(
        tmp_path / "1", features, {"train": _rows(20, sizes), "validation": _rows(6, sizes), "test": _rows(5, sizes)}
    )
    data = load_dataset("tfds:tiny", data_dir=str(tmp_path / "1"))
    assert (len(data.train), len(data.val), len(data.test)) == (20, 6, 5)
    assert data.image_size is None and data.class_names == ["a", "b", "c"]
    assert {data.train.read(i).size for i in range(4)} == {(4, 5), (9, 6)}
    _builder(tmp_path / "2", features, {"train": _rows(20), "validation": _rows(6), "test": _rows(5, labels=0)})
    hidden = load_dataset("tfds:tiny", data_dir=str(tmp_path / "2"))
    assert (len(hidden.train), len(hidden.val), len(hidden.test)) == (18, 2, 6)
    _builder(tmp_path / "3", features, {"train": _rows(20)})
    alone = load_dataset("tfds:tiny", data_dir=str(tmp_path / "3"))
    assert (len(alone.train), len(alone.val), len(alone.test)) == (14, 2, 4)


def test_sets_that_are_not_for_classification_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(5, 4, 3)), "kind": tfds.features.Scalar(np.int64)}
    _builder(tmp_path, features, {"train": _rows(4)})
    with pytest.raises(UserError, match="no class label"):
        load_dataset("tfds:tiny", data_dir=str(tmp_path))
