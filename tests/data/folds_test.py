"""Folds have the properties of scikit-learn's; every image is tested once; groups stay together."""

import numpy as np
import pytest

from jaxvit.data import folds, load_dataset
from jaxvit.errors import UserError


def counts(labels, fold, k):
    return np.array([np.bincount(labels[fold == i], minlength=labels.max() + 1) for i in range(k)])


@pytest.mark.parametrize("k", [2, 3, 5])
def test_as_stratified_k_fold(k):
    """Sizes and class counts of the folds differ by one at most; scikit-learn's sorted counts are the same."""
    from sklearn.model_selection import StratifiedKFold

    labels = np.repeat(np.arange(4), [17, 5, 40, 23])[np.random.default_rng(1).permutation(85)]
    fold = folds.assign(labels, None, k)
    ours = counts(labels, fold, k)
    assert np.ptp(ours, axis=0).max() <= 1 and np.ptp(ours.sum(axis=1)) <= 1
    theirs = np.array([
        np.bincount(labels[test], minlength=4) for _, test in StratifiedKFold(k).split(labels, labels)
    ])  # fmt: skip
    assert (np.sort(ours, axis=0) == np.sort(theirs, axis=0)).all()


def test_groups_never_cross_and_classes_are_as_even_as_scikit_learns():
    from sklearn.model_selection import StratifiedGroupKFold

    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), rng.integers(1, 12, 60))
    labels = (rng.random(len(groups)) < np.where(groups % 3 == 0, 0.9, 0.2)).astype(int)
    fold = folds.assign(labels, groups, 5)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in range(60))
    theirs = np.empty(len(labels), int)
    for i, (_, test) in enumerate(StratifiedGroupKFold(5).split(labels, labels, groups)):
        theirs[test] = i

    def uneven(fold):
        return counts(labels, fold, 5).std(axis=0).max()

    assert uneven(fold) <= uneven(theirs) + 1


def test_every_image_is_tested_once_and_none_that_trains(tmp_path):
    """Of data without a test split of their own the folds are of all images, whatever the seed."""
    images = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    np.savez(tmp_path / "train.npz", image=images, label=np.arange(60) % 3)
    np.savez(tmp_path / "test.npz", image=images[:6], label=np.arange(6) % 3)
    seen = []
    for i in range(1, 5):
        data = load_dataset(f"npz:{tmp_path}", seed=i, fold=f"{i}/4", val_fraction=0.2)
        assert not {*data.test.index} & {*data.train.index, *data.val.index}
        assert len(data.train) + len(data.val) + len(data.test) == 60
        assert "own test split of 6 images is not used" in " ".join(data.notes)
        seen += [int(image[0, 0, 0]) for image in data.test.images]
    assert sorted(seen) == list(range(60))


def test_of_a_folder_without_a_test_split_all_images_are_in_folds(tmp_path):
    from PIL import Image

    for k in range(30):
        place = tmp_path / ("cat" if k % 2 else "dog")
        place.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(place / f"{k}.png")
    names = []
    for i in (1, 2, 3):
        data = load_dataset(f"folder:{tmp_path}", fold=f"{i}/3")
        assert not {*data.test.names} & {*data.train.names, *data.val.names}
        assert [int(np.asarray(data.test.read(0))[0, 0, 0])] == [int(data.test.names[0].split("/")[1][:-4])]
        names += data.test.names
    assert len(names) == len(set(names)) == 30


def test_groups_of_a_label_file_stay_together(tmp_path):
    from PIL import Image

    rows = ["file,label,group"]
    for k in range(40):
        Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{'cat' if k % 8 < 4 else 'dog'},patient{k // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    tested = []
    for i in (1, 2, 3, 4, 5):
        data = load_dataset(f"csv:{tmp_path / 'labels.csv'}", fold=f"{i}/5")
        assert not {*data.test.groups} & ({*data.train.groups} | {*data.val.groups})
        tested += data.test.names
    assert len(tested) == len(set(tested)) == 40
    with pytest.raises(UserError, match=r"class 'cat' is in 5 groups, fewer than 6 folds"):
        load_dataset(f"csv:{tmp_path / 'labels.csv'}", fold="1/6")
    with pytest.raises(UserError, match=r"has 10 groups, fewer than 11 folds"):
        load_dataset(f"csv:{tmp_path / 'labels.csv'}", fold="1/11")


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "1", "a/b", "1/5/2", "-1/5", "1.5/5"])
def test_what_is_no_fold(text):
    with pytest.raises(UserError, match="expected i/k, the i-th of k folds"):
        load_dataset("digits", fold=text)


def test_more_folds_than_images_of_a_class():
    with pytest.raises(UserError, match=r"class '.' has 13\d images, fewer than 140 folds: some would leave it out"):
        load_dataset("digits", fold="1/140")
