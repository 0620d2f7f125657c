"""CIFAR's binary archives."""

import hashlib
import os
import sys
import tarfile

import numpy as np
import pytest

from jaxvit.data import load_dataset
from jaxvit.data.sources import cifar
from jaxvit.errors import UserError
from tests.helpers.cifar_archive import PER_FILE, archive_bytes, arrays, save_archive


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_prepared_in_tfds_own_layout_from_a_local_archive(tmp_path, monkeypatch, name):
    archive, data_dir = save_archive(tmp_path, name, monkeypatch), str(tmp_path / "data")
    data = load_dataset(name, archive=archive, data_dir=data_dir, val_fraction=0)
    files = cifar.ARCHIVES[name].members["train"]
    stored = [arrays(name, "train", file) for file in files]
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


def test_an_archive_with_another_checksum_is_not_used(tmp_path):
    with pytest.raises(UserError, match="expected c32a1d4ab5d03f1284b67883e8d87530"):
        load_dataset("cifar10", archive=save_archive(tmp_path, "cifar10"), data_dir=str(tmp_path / "d"))
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
    archive = save_archive(tmp_path, "cifar10", monkeypatch, **changes)
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
    archive = save_archive(tmp_path / ".", "cifar10", monkeypatch, extra=extra)
    data = load_dataset("cifar10", archive=archive, data_dir=str(tmp_path / "d"))
    assert len(data.test) == PER_FILE
    assert not list(tmp_path.parent.rglob("escaped.bin"))


def test_damaged_gzip_is_named(tmp_path):
    file = tmp_path / "x.tar.gz"
    file.write_bytes(archive_bytes("cifar10")[:5000])
    with pytest.raises(UserError, match="damaged|missing"):
        cifar.prepare("cifar10", str(tmp_path), str(file), md5=hashlib.md5(file.read_bytes()).hexdigest())


def test_without_network_the_message_says_what_to_give(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise cifar.urllib.error.URLError("no network")

    monkeypatch.setattr(cifar.urllib.request, "urlopen", offline)
    with pytest.raises(UserError, match=r"data\.archive.*data\.dir") as caught:
        load_dataset("cifar100", data_dir=str(tmp_path))
    assert len(str(caught.value).splitlines()) == 2
