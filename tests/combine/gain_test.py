"""The gain of several over one."""

import numpy as np
import pytest

from jaxvit import combine
from jaxvit.combine import gain


def test_gain_of_mean_average_precision_against_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(3)
    labels = (rng.random((40, 3)) < 0.4).astype(np.uint8)
    logits = np.round(rng.normal(size=(40, 3)) + labels, 1)  # with ties
    weights = rng.multinomial(40, np.full(40, 1 / 40), 5).astype(float)
    for w, found in zip(weights, gain.weighted_map(logits, labels, weights), strict=True):
        expected = np.mean([average_precision_score(labels[:, k], logits[:, k], sample_weight=w) for k in range(3)])
        assert found == pytest.approx(expected)
    better = logits + labels
    result = combine.measure_gain(logits, better, labels)
    of_each = [average_precision_score(labels, x) for x in (logits, better)]
    assert result.figure == "mAP" and result.difference == pytest.approx(of_each[1] - of_each[0])
    assert 0 < result.low < result.difference < result.high and result.p is None
