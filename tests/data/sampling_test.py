"""Epochs drawn by class: as often as asked for, from seed and epoch alone; long-tailed subsets."""

import numpy as np
import pytest

from jaxvit.data import epoch_order, load_dataset
from jaxvit.data.sampling import class_shares
from jaxvit.data.splits import limit, long_tail
from jaxvit.errors import UserError

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 3], [9000, 900, 100]))  # class 2 has no images


def drawn(sampling, seed=0, epoch=0, repeats=1):
    return epoch_order(seed, epoch, len(LABELS), repeats, labels=LABELS, sampling=sampling)


@pytest.mark.parametrize(("sampling", "power"), [("balanced", 0.0), ("sqrt", 0.5)])
def test_classes_are_drawn_by_their_share_and_their_images_alike(sampling, power):
    order = np.concatenate([drawn(sampling, epoch=epoch) for epoch in range(5)])
    assert len(order) == 5 * len(LABELS)
    share = np.array([9000.0**power, 900.0**power, 0, 100.0**power])
    np.testing.assert_allclose(class_shares([9000, 900, 0, 100], sampling), share / share.sum())
    found = np.bincount(LABELS[order], minlength=4) / len(order)
    np.testing.assert_allclose(found, share / share.sum(), atol=0.01)  # 4.5 standard deviations
    times = np.bincount(order, minlength=len(LABELS))[LABELS == 3]
    assert times.min() > 0.5 * times.mean() and times.max() < 1.6 * times.mean()


def test_draws_depend_on_seed_and_epoch_only():
    orders = [drawn("balanced", seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, orders))) == 4
    assert drawn("balanced", 1, 0).tolist() == orders[2]
    assert orders[0][:4] == FIRST  # numpy promises the bits of PCG64


FIRST = [9876, 4717, 8295, 4808]


def test_repeated_augmentation_repeats_the_draws():
    order, repeated = drawn("balanced"), drawn("balanced", repeats=3)
    np.testing.assert_array_equal(repeated, np.repeat(order, 3)[: len(order)])


@pytest.mark.parametrize(("classes", "of_each"), [(10, 5000), (100, 500)])
def test_long_tailed_cifar_has_the_sizes_of_the_paper(classes, of_each):
    """As the code of Cao et al. (2019) for CIFAR-10-LT and -100-LT: int(n * 0.01^(c / (k - 1)))."""
    wanted = [int(of_each * 0.01 ** (c / (classes - 1.0))) for c in range(classes)]
    assert long_tail(np.full(classes, of_each), 100.0).tolist() == wanted


def test_a_long_tail_of_unequal_classes_keeps_its_ratio_and_takes_what_is_there():
    sizes = long_tail(np.array([300, 1000, 40]), 10.0)
    assert sizes.tolist() == [300, 94, 30]


def test_long_tails_lie_in_each_other():
    labels = np.arange(600) % 6
    many, few = (set(limit(labels, fraction=1.0, per_class=None, seed=3, imbalance=r)[0]) for r in (5.0, 20.0))
    assert few < many


def test_imbalance_is_of_the_training_split_alone():
    plain, tailed = load_dataset("digits"), load_dataset("digits", imbalance=20.0)
    counts = np.bincount(tailed.train.labels)
    assert counts[0] == 120 and counts[-1] == 6 and (np.diff(counts) < 0).all()
    np.testing.assert_array_equal(plain.val.index, tailed.val.index)
    np.testing.assert_array_equal(plain.test.index, tailed.test.index)
    assert any("long-tailed 20:1" in note for note in tailed.notes)


def test_an_imbalance_below_1_is_refused():
    with pytest.raises(UserError, match="at least 1"):
        load_dataset("digits", imbalance=0.01)
