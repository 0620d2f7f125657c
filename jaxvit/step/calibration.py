"""Probabilities that mean what they say: reliability, and the temperature that corrects it (Guo et al., 2017).

Labels are int [n], or of several labels per image 0 and 1 [n, k]: probabilities are then sigmoids, and each class of
each image counts as a separate prediction, "present" or not.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit, logsumexp, softmax

from jaxvit.errors import UserError
from jaxvit.step import multi_label

BINS = 15
WIDEST = 1e4  # the temperature lies between this factor of the logits' deviation and its inverse
ROWS = 4096  # images at a time, as float64


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal bins of confidence; bins without answers hold NaN."""

    confidence: np.ndarray  # mean, [bins]
    accuracy: np.ndarray  # [bins]
    count: np.ndarray  # [bins]
    ece: float  # expected calibration error: mean gap, weighted by the answers of the bins
    mce: float  # the largest gap


def checked(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits [n, k] and labels [n] or [n, k] as arrays; raises UserError where they do not fit each other."""
    z, y = np.asarray(logits), np.asarray(labels)
    if z.ndim != 2 or y.shape not in (z.shape[:1], z.shape):
        raise UserError(f"logits have shape {z.shape}, labels {y.shape}; expected [n, k], and [n] or 0 and 1 [n, k]")
    highest = z.shape[1] if y.ndim == 1 else 2
    if y.size and not (y.min() >= 0 and y.max() < highest):
        raise UserError(f"labels from {y.min()} to {y.max()}; expected 0 to {highest - 1}")
    return z, y


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """Calibration error of answers [n] over bins (i/bins, (i+1)/bins] of their confidence [n] (Guo et al., 2017)."""
    confidence, correct = np.asarray(confidence), np.asarray(correct)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(which, confidence, bins) / count
        accuracy = np.bincount(which, correct, bins) / count
    gap = np.abs(mean - accuracy)
    return Reliability(mean, accuracy, count, float(np.nansum(gap * count) / len(confidence)), float(np.nanmax(gap)))


def answers(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns (confidence, whether it is right): the most probable class [n], or every class of every image [n * k]."""
    scaled = np.asarray(logits, np.float64) / temperature
    if labels.ndim == 2:
        return expit(scaled).ravel(), labels.ravel() > 0
    return softmax(scaled, axis=-1).max(axis=-1), scaled.argmax(axis=-1) == labels


def ece(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Expected calibration error at a temperature; NaN of logits that are not finite."""
    logits, labels = checked(logits, labels)
    if not np.isfinite(logits).all():
        return float("nan")
    return reliability(*answers(logits, labels, temperature)).ece


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood (nats) of the labels at a temperature; of several labels the mean over classes."""
    logits, labels = checked(logits, labels)
    return _total(lambda z, y: _losses(z / temperature, y), logits, labels) / labels.size


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature T with the least NLL of logits / T on labels that the model was not trained on.

    The NLL is convex in 1 / T (Guo et al., 2017, section 4.2), so that the minimum is found by Brent's method.

    Args:
      logits: float [n, k].
      labels: int [n], or 0 and 1 [n, k].

    Raises:
      UserError: no image, labels that do not fit the logits, logits that are not finite, or no minimum: where all
        labels have the highest logits it lies at T = 0, and where the logits tell nothing of the labels at infinity.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = checked(logits, labels)
    if not len(labels):
        raise UserError("no temperature can be fitted: the validation split is empty")
    if not np.isfinite(logits).all():
        raise UserError("no temperature can be fitted: some logits are not finite; did the training diverge?")
    if np.all(_margins(logits, labels) >= 0):
        raise UserError(
            f"no temperature can be fitted: the model gets all {len(labels):,} images right, so no "
            "confidence is too high\nexpected a validation split with some mistakes, for example a larger one"
        )
    if _total(_slopes, logits, labels) >= 0:
        equal = "probabilities of 1/2" if labels.ndim == 2 else "equal probabilities"
        raise UserError(
            f"no temperature can be fitted: on the {len(labels):,} images {equal} have a lower loss "
            "than the logits at any temperature"
        )
    centred = logits if labels.ndim == 2 else logits - logits.mean(axis=-1, keepdims=True)
    scale = math.log(float(np.sqrt(np.mean(np.square(centred, dtype=np.float64)))))
    found = minimize_scalar(
        lambda log_t: nll(logits, labels, math.exp(log_t)),
        bounds=(scale - math.log(WIDEST), scale + math.log(WIDEST)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return math.exp(float(found.x))  # type: ignore[attr-defined]


def at_temperature(thresholds: np.ndarray, temperature: float) -> np.ndarray:
    """Thresholds of sigmoid(z) [k] as those of sigmoid(z / temperature): the same classes are predicted."""
    if temperature == 1:
        return thresholds
    with np.errstate(divide="ignore"):
        return expit((np.log(thresholds) - np.log1p(-thresholds)) / temperature)


def _total(of: Callable[[np.ndarray, np.ndarray], np.ndarray], logits: np.ndarray, labels: np.ndarray) -> float:
    parts = (slice(i, i + ROWS) for i in range(0, len(labels), ROWS))
    return math.fsum(float(np.sum(of(np.asarray(logits[part], np.float64), labels[part]))) for part in parts)


def _losses(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2:
        return multi_label.worst(z, labels)
    return logsumexp(z, axis=-1) - _of_labels(z, labels)


def _slopes(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Derivatives of the losses by 1 / T at T = infinity (of several labels twice that)."""
    return -_signed(z, labels) if labels.ndim == 2 else z.mean(axis=-1) - _of_labels(z, labels)


def _margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """At least 0 where a label has the highest logit; of several labels where a logit has the right sign."""
    return _signed(logits, labels) if labels.ndim == 2 else _of_labels(logits, labels) - logits.max(axis=-1)


def _signed(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.where(labels > 0, z, -z)


def _of_labels(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.take_along_axis(z, labels[:, None].astype(np.int64), axis=-1)[:, 0]
