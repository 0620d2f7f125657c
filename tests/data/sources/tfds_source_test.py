"""TFDS data sets without TensorFlow, and CIFAR prepared from its binary archive."""

import os

import numpy as np
import pytest

from jaxvit.data import imagenet, index_file, load_dataset
from jaxvit.data.sources import cifar, tfds_source
from jaxvit.errors import UserError
from tests.helpers.cifar_archive import arrays, save_archive

pytest.importorskip("array_record")


def test_equal_images_through_tfds_and_npz_are_equal_data_sets(tmp_path, monkeypatch):
    spec = cifar.ARCHIVES["cifar10"]
    for split, files in spec.members.items():
        stored = [arrays("cifar10", split, file) for file in files]
        images, labels = np.concatenate([i for _, i in stored]), np.concatenate([k[:, 0] for k, _ in stored])
        np.savez(tmp_path / f"{split}.npz", image=images, label=labels)
    ours = load_dataset(f"npz:{tmp_path}", fraction=0.5, seed=4)
    archive = save_archive(tmp_path, "cifar10", monkeypatch)
    theirs = load_dataset("cifar10", fraction=0.5, seed=4, archive=archive, data_dir=str(tmp_path / "d"))
    for a, b in ((ours.train, theirs.train), (ours.val, theirs.val), (ours.test, theirs.test)):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.index, b.index)
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tfds:mnist", "not prepared"),
        ("tfds:cifar1O", "'cifar10'"),
        ("tfds:../up", "cannot open"),
        ("tfds:", "without a value after the colon"),
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


def test_labels_of_photos_are_read_once(tmp_path, monkeypatch):
    """They lie in the records of the images: of ImageNet, to read them is to read 150 GB."""
    import tensorflow_datasets as tfds

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_file, "WORTH_SECS", -1.0)
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "file_name": tfds.features.Text(),
        "kind": tfds.features.ClassLabel(names=["a", "b", "c"]),
    }
    splits = {"train": _rows(20, ((5, 4), (6, 9))), "validation": _rows(6, ((5, 4), (6, 9)))}
    for rows in splits.values():
        for i, row in enumerate(rows):
            row["file_name"] = f"ILSVRC2012_val_{7 * i % 23:08d}.JPEG"
    _builder(tmp_path / "data", features, splits)
    passes, in_threads = [], tfds_source.in_threads
    monkeypatch.setattr(tfds_source, "in_threads", lambda *a, **k: (passes.append(a[2]), in_threads(*a, **k))[1])

    def read(**options):
        passes.clear()
        data = load_dataset("tfds:tiny", data_dir=str(tmp_path / "data"), val_fraction=0, **options)
        pixels = [np.asarray(data.train.read(i)) for i in range(20)]
        return list(data.train.image_names()), data.train.labels.tolist(), data.test.labels.tolist(), pixels

    first = read()
    assert len(passes) == 2 and first[0] == sorted(first[0])
    for again, count in (({}, 0), ({"rescan": True}, 2)):
        found = read(**again)
        assert found[:3] == first[:3] and len(passes) == count
        for a, b in zip(found[3], first[3], strict=True):
            np.testing.assert_array_equal(a, b)
    passes.clear()
    alone = load_dataset("tfds:tiny", data_dir=str(tmp_path / "data"), to_train=False, prefer=("test",), rescan=True)
    assert (len(alone.train), alone.test.labels.tolist(), len(passes)) == (0, first[2], 1)
    record = next((tmp_path / "data").rglob("*train*array_record*"))
    os.utime(record, ns=(0, record.stat().st_mtime_ns + 1))
    assert read()[:3] == first[:3] and len(passes) == 2


def test_imagenet_of_tfds_has_our_classes_and_says_what_to_download(tmp_path):
    with tfds_source.quiet():
        import tensorflow_datasets as tfds

        names = tfds.builder("imagenet2012", data_dir=str(tmp_path)).info.features["label"].names
    assert names == [synset for synset, _ in imagenet.classes()]
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar.*downloads/manual"):
        load_dataset("tfds:imagenet2012", data_dir=str(tmp_path))


def test_sets_that_are_not_for_classification_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(5, 4, 3)), "kind": tfds.features.Scalar(np.int64)}
    _builder(tmp_path, features, {"train": _rows(4)})
    with pytest.raises(UserError, match="no class label"):
        load_dataset("tfds:tiny", data_dir=str(tmp_path))
