"""The mean of probabilities."""

import numpy as np

from jaxvit import combine


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_the_mean_is_that_of_probabilities():
    logits = 4 * np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(softmax(combine.log_mean(logits, False)), softmax(logits).mean(0), rtol=1e-5)
    found = np.asarray(combine.log_mean(logits, True))
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), (1 / (1 + np.exp(-logits))).mean(0), rtol=1e-5)
    extreme = np.array([[[900.0, -900.0]], [[800.0, -800.0]]])
    assert np.isfinite(combine.log_mean(extreme, False)).all() and np.isfinite(combine.log_mean(extreme, True)).all()
