"""One pass over a split: every example once, whatever the batch."""

import jax
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from jaxvit.step import metrics
from jaxvit.step.evaluate import evaluate

rng = np.random.default_rng(0)
IMAGES, LABELS = rng.normal(size=(23, 4)).astype(np.float32), rng.integers(0, 4, 23)


class Feed:
    """Logits in the place of images; the last batch is filled up with padding that is not finite."""

    def __len__(self):
        return len(IMAGES)

    def batches(self, order, batch_size, *, pad):
        assert pad
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            missing = batch_size - len(rows)
            image = np.concatenate([IMAGES[rows], np.full((missing, 4), np.nan, np.float32)])
            label = np.concatenate([LABELS[rows], np.zeros(missing, int)])
            yield {"image": image, "label": label, "mask": np.arange(batch_size) < len(rows)}


@jax.jit
def step(variables, batch):
    return metrics.batch_sums(batch["image"], batch["label"], batch["mask"]), batch["image"]


@pytest.mark.parametrize("batch_size", [1, 8, 23, 64])
def test_metrics_are_scikit_learns_at_any_batch_size(batch_size):
    seen = []
    found, logits, places = evaluate(step, {}, Feed(), batch_size, keep_logits=True, progress=seen.append)
    said = IMAGES.argmax(-1)
    probabilities = scipy.special.softmax(IMAGES.astype(np.float64), axis=-1)
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(LABELS, said))
    assert found["nll"] == pytest.approx(sklearn.metrics.log_loss(LABELS, probabilities), rel=1e-5)
    assert found["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(LABELS, said, average="macro"))
    np.testing.assert_array_equal(logits, IMAGES)
    np.testing.assert_array_equal(places, np.arange(23))
    assert seen[-1] == 23 and seen == sorted(seen)


def test_a_dry_run_stops_early_and_without_logits_none_are_kept():
    found, logits, places = evaluate(step, {}, Feed(), 8, max_steps=1)
    assert found["accuracy"] == pytest.approx((IMAGES[:8].argmax(-1) == LABELS[:8]).mean())
    assert logits is None and places is None
