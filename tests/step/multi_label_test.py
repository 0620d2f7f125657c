"""Several labels per image: the scores and thresholds against scikit-learn, and against a search by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from jaxvit.step import multi_label


def _drawn(n=200, k=7, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, k)) < np.linspace(0.05, 0.6, k)).astype(np.uint8)
    logits = (2.0 * labels - 1 + 1.5 * rng.standard_normal((n, k))).astype(np.float32)
    return (logits if decimals is None else np.round(logits, decimals)), labels


@pytest.mark.parametrize("decimals", [None, 0])  # 0: with many equal scores
def test_scores_are_those_of_scikit_learn(decimals):
    logits, labels = _drawn(decimals=decimals)
    thresholds = np.linspace(0.2, 0.7, 7)
    said = 1 / (1 + np.exp(-logits.astype(np.float64))) >= thresholds
    found = multi_label.scores(logits, labels, thresholds)
    assert found == pytest.approx({
        "mAP": sklearn_metrics.average_precision_score(labels, logits, average="macro"),
        "micro_f1": sklearn_metrics.f1_score(labels, said, average="micro"),
        "macro_f1": sklearn_metrics.f1_score(labels, said, average="macro"),
        "exact_match": sklearn_metrics.accuracy_score(labels, said),
    }, rel=1e-12)  # fmt: skip
    precisions = sklearn_metrics.average_precision_score(labels, logits, average=None)
    np.testing.assert_allclose(multi_label.average_precisions(logits, labels), precisions, rtol=1e-12)


def test_a_class_without_images_has_no_average_precision_and_an_f1_of_0():
    logits, labels = _drawn()
    labels[:, 2] = 0
    found = multi_label.scores(logits, labels)
    rest = np.delete(np.arange(7), 2)
    assert np.isnan(multi_label.average_precisions(logits, labels)[2])
    assert found["mAP"] == pytest.approx(sklearn_metrics.average_precision_score(labels[:, rest], logits[:, rest]))
    assert found["macro_f1"] == pytest.approx(
        sklearn_metrics.f1_score(labels, logits >= 0, average="macro", zero_division=0)
    )
    logits[0, 0] = np.nan
    assert all(np.isnan(v) for v in multi_label.scores(logits, labels).values())


@pytest.mark.parametrize("decimals", [None, 0])
def test_thresholds_have_the_best_f1_that_any_threshold_has(decimals):
    logits, labels = _drawn(decimals=decimals)
    labels[:, 5] = 0
    p = multi_label.sigmoid(logits)
    thresholds = multi_label.choose_thresholds(logits, labels)
    assert thresholds[5] == 0.5 and np.all((thresholds > 0) & (thresholds < 1))
    for k in (0, 1, 2, 3, 4, 6):
        best = max(sklearn_metrics.f1_score(labels[:, k], p[:, k] >= t) for t in np.unique(p[:, k]))
        assert sklearn_metrics.f1_score(labels[:, k], p[:, k] >= thresholds[k]) == pytest.approx(best, rel=1e-12)
    # two classes told apart with room between: the threshold lies in the middle of it
    assert multi_label.choose_thresholds(np.array([[2.0], [1.0], [-1.0]]), np.array([[1], [1], [0]]))[0] == 0.5


def test_batch_sums_leave_out_what_is_masked():
    logits, labels = _drawn(6)
    logits[4:] = np.inf
    sums = multi_label.batch_sums(jnp.asarray(logits), jnp.asarray(labels), jnp.arange(6) < 4)
    p = multi_label.sigmoid(logits[:4])
    assert float(sums["count"]) == 4
    assert float(sums["loss"]) / 4 == pytest.approx(sklearn_metrics.log_loss(labels[:4].ravel(), p.ravel()), rel=1e-5)


def test_exact_match_and_worst():
    logits, labels = np.array([[3.0, -2], [1, 1], [-1, -1]]), np.array([[1, 0], [1, 0], [0, 0]])
    assert multi_label.exact_match(jnp.asarray(logits), jnp.asarray(labels)).tolist() == [True, False, True]
    assert multi_label.are_right(logits, labels).tolist() == [True, False, True]
    assert np.unravel_index(multi_label.worst(logits, labels).argmax(), (3, 2)) == (1, 1)
    assert multi_label.worst(logits, labels)[1, 1] == pytest.approx(np.log1p(np.e))
