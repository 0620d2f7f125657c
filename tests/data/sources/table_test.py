"""Names to data sets: digits, arrays, and every mistake in them answered in plain words."""

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


def test_limits_apply_to_train_only():
    whole, part = load_dataset("digits"), load_dataset("digits", fraction=0.1)
    np.testing.assert_array_equal(whole.val.index, part.val.index)
    assert len(part.train) == 121 and set(part.train.index) < set(whole.train.index)
    assert any("121 of 1,212" in note for note in part.notes) and "most of the time" not in " ".join(part.notes)
    assert any("data.val_fraction=0.02 uses fewer" in n for n in load_dataset("digits", per_class=3).notes)
    few = load_dataset("digits", per_class=3, val_fraction=0)
    assert len(few.val) == 0 and (np.bincount(few.train.labels) == 3).all()


def test_test_split_must_fit_train(tmp_path):
    with pytest.raises(UserError, match="test.npz: label 3"):
        load_dataset(_write(tmp_path, test=_arrays(12, classes=4)))
    with pytest.raises(UserError, match=r"images are \[6, 4, 3\]"):
        load_dataset(_write(tmp_path, test=_arrays(12, shape=(6, 4, 3))))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digit", "'digits'"),
        ("cifar-10", "'cifar10'"),
        ("mnist", "expected one of"),
        ("folders:x", "'folder'"),
        ("npz:", "without a value after the colon"),
        ("", "expected one of"),
        (None, "expected one of"),
    ],
)
def test_wrong_names_are_answered(name, words):
    with pytest.raises(UserError) as caught:
        load_dataset(name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("place", "kind"), [("photos", "folder"), ("my arrays", "npz"), ("a.csv", "csv"), ("a.md", "")]
)
def test_a_path_without_its_kind_of_data_is_answered(tmp_path, monkeypatch, place, kind):
    for file in ("photos/cat/1.jpg", "my arrays/train.npz", "a.csv", "a.md"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load_dataset(place)
    assert (f"Did you mean '{kind}:{place}'?" in str(caught.value)) == bool(kind)


def test_the_test_split_can_be_limited_and_is_the_same_for_every_seed():
    whole, some, fewer = (load_dataset("digits", test_limit=n) for n in (None, 100, 20))
    other = load_dataset("digits", test_limit=100, seed=7)
    assert (len(whole.test), len(some.test), len(fewer.test)) == (450, 100, 20)
    np.testing.assert_array_equal(some.test.index, other.test.index)
    assert set(fewer.test.index) < set(some.test.index) < set(whole.test.index)
    assert np.bincount(some.test.labels).min() >= 9  # stratified
    assert any("test: 100 of 450 images used" in note for note in some.notes)
    assert len(some.train) == len(whole.train) and len(load_dataset("digits", test_limit=1000).test) == 450
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(UserError, match="data.test_limit is .*; expected a whole number of at least 1"):
            load_dataset("digits", test_limit=wrong)
