"""Several labels per image: sums of a batch on the device; scores of a whole split, and thresholds, on the host.

A class is predicted if its probability, the sigmoid of its logit, is at least its threshold.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.precision import full_float
from jaxvit.step.bce import sigmoid_cross_entropy

Array = jax.Array
USUAL = 0.5  # threshold before any is chosen, and of classes that validation does not have
NAMES = ("loss", "mAP", "micro_f1", "macro_f1", "exact_match")


def batch_sums(logits: Array, labels: Array, mask: Array) -> dict[str, Array]:
    """Sums over the examples where `mask` is True: logits [b, k], labels 0 or 1 [b, k], mask bool [b].

    Returns float32 scalars `loss` (binary cross-entropy, the mean over the classes, without smoothing or weights) and
    `count`. The other metrics need the whole split: `scores`.
    """
    loss = sigmoid_cross_entropy(logits, labels.astype(full_float()))
    # where, not a product: a padded example may have any value, and 0 * inf is NaN
    return {"loss": jnp.sum(jnp.where(mask, loss, 0.0)), "count": jnp.sum(mask.astype(full_float()))}


def exact_match(logits: Array, targets: Array) -> Array:
    """Which examples have all classes right at a threshold of 1/2, bool [b]; targets [b, k] may be soft."""
    return jnp.all((logits >= 0) == (targets >= 0.5), axis=-1)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64, of the shape of the logits."""
    logits = np.asarray(logits, np.float64)
    e = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, e) / (1.0 + e)


def scores(logits: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | float = USUAL) -> dict[str, float]:
    """Returns `mAP`, `micro_f1`, `macro_f1` and `exact_match` as scikit-learn defines them; NaN of NaN.

    Args:
      logits: float [n, k].
      labels: 0 or 1 [n, k].
      thresholds: of the probability, [k] or one for all classes.

    The mean of the average precisions is over the classes that have images here. F1 of a class that neither has images
    nor is predicted anywhere is 0 (scikit-learn's `zero_division=0`).
    """
    if not len(logits) or not np.isfinite(logits).all():
        return {name: float("nan") for name in NAMES if name != "loss"}
    truth = labels > 0
    said = sigmoid(logits) >= thresholds
    hits, of_both = np.sum(said & truth, axis=0), np.sum(said, axis=0) + np.sum(truth, axis=0)
    precisions = average_precisions(logits, labels)
    there = ~np.isnan(precisions)
    return {
        "mAP": float(precisions[there].mean()) if there.any() else float("nan"),
        "micro_f1": float(2 * hits.sum() / max(of_both.sum(), 1)),
        "macro_f1": float(np.mean(2 * hits / np.maximum(of_both, 1))),
        "exact_match": float(np.mean(are_right(logits, labels, thresholds))),
    }


def are_right(logits: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | float = USUAL) -> np.ndarray:
    """Which images have all classes right, bool [n]."""
    return np.all((sigmoid(logits) >= thresholds) == (labels > 0), axis=1)


def average_precisions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision of each class, float64 [k]: sum over n of (R_n - R_n-1) P_n; NaN of a class without images."""
    return np.array([_average_precision(logits[:, k], labels[:, k] > 0) for k in range(logits.shape[1])], np.float64)


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    if not truth.any():
        return float("nan")
    _, hits, said = curve(scores, truth)
    recalled = np.diff(hits, prepend=0) / truth.sum()
    return float(np.sum(recalled * hits / said))


def curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (different scores, highest first; hits; images said) of "said where at least this score", [m] each."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores are said together
    return scores[order][ends], np.cumsum(truth[order])[ends], ends + 1


def choose_thresholds(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the threshold of each class with the best F1, float64 [k]: in the middle between two probabilities.

    Of equally good ones the highest. A class without images keeps 1/2.
    """
    found = np.full(logits.shape[1], USUAL)
    for k in range(logits.shape[1]):
        truth = labels[:, k] > 0
        if truth.any():
            p, hits, said = curve(sigmoid(logits[:, k]), truth)
            best = int(np.argmax(2 * hits / (said + truth.sum())))
            found[k] = (p[best] + (p[best + 1] if best + 1 < len(p) else 0.0)) / 2
    return found


def worst(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each class of each image, float64 [n, k]: what the worst mistakes are found by."""
    signed = np.where(labels > 0, -1.0, 1.0) * np.asarray(logits, np.float64)
    return np.logaddexp(0.0, signed)


def as_indicators(labels: np.ndarray, num_classes: int) -> Any:
    """Labels int [n] as 0 and 1, uint8 [n, num_classes]; what is so already, as it is."""
    labels = np.asarray(labels)
    return labels if labels.ndim == 2 else np.eye(num_classes, dtype=np.uint8)[labels]
