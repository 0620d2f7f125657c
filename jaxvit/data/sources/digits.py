"""The embedded data set: 1,797 scans of handwritten digits that come with scikit-learn."""

from typing import Any

import numpy as np

from jaxvit.data.splits import Source, channel_statistics, from_arrays, hold_out

NUM_TEST = 450
TEST_SEED = 450  # of the fixed test split; never the run's seed


def load() -> Source:
    """Returns 8x8 grey scans, uint8 [n, 8, 8, 1], with a stratified test split of 450 that no seed changes.

    The test part of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak, 1998).
    """
    from sklearn.datasets import load_digits

    raw: Any = load_digits()
    images = np.rint(raw.images * (255.0 / 16.0)).astype(np.uint8)[..., None]  # 17 grey levels, 0 to 16
    labels = raw.target.astype(np.int32)
    train, test = hold_out(labels, NUM_TEST, TEST_SEED)
    splits = {
        "train": from_arrays("train", images[train], labels[train], train, stored="digits"),
        "test": from_arrays("test", images[test], labels[test], test, stored="digits"),
    }
    mean, std = channel_statistics(images[train])
    names = [str(d) for d in range(10)]
    return Source(splits, names, 1, (8, 8), mean, std)
