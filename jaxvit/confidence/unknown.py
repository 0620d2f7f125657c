"""Scores that tell images of known classes from others; each is higher for what the model knows."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp, softmax

from jaxvit.errors import UserError

NEIGHBOURS = 50  # Sun et al. (2022), on CIFAR
ROWS = 1024  # images at a time


def max_probability(logits: np.ndarray, *, several: bool = False) -> np.ndarray:
    """The largest probability of each image [n] (Hendrycks & Gimpel, 2017); of several labels the largest sigmoid."""
    logits = np.asarray(logits, np.float64)
    return (expit(logits) if several else softmax(logits, axis=-1)).max(axis=-1)


def energy(logits: np.ndarray, *, several: bool = False) -> np.ndarray:
    """The negative free energy, log sum exp of the logits [n] (Liu et al., 2020).

    Of several labels per image the sum of log(1 + exp(logit)) over the classes (Wang et al., 2021, "JointEnergy").
    """
    logits = np.asarray(logits, np.float64)
    return np.logaddexp(0, logits).sum(axis=-1) if several else np.asarray(logsumexp(logits, axis=-1))


def knn(
    features: np.ndarray,
    train_features: np.ndarray,
    k: int = NEIGHBOURS,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """The negative distance [n] to the k-th nearest training image (Sun et al., 2022).

    Args:
      features: of the images, [n, d]; scaled to length 1 here, as the others.
      train_features: of the training images, [m, d].
      k: of the neighbour; at most m.
      progress: called with the number of images done since the last call.
    """
    from sklearn.neighbors import NearestNeighbors

    if not 1 <= k <= len(train_features):
        raise UserError(f"the {k}th nearest of {len(train_features):,} training images was requested; expected fewer")
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(_unit(train_features))
    found = []
    for i in range(0, len(features), ROWS):
        distances = index.kneighbors(_unit(features[i : i + ROWS]))[0]
        found.append(-distances[:, -1])
        progress(len(distances))
    return np.concatenate(found)


def _unit(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.maximum(norms, np.finfo(features.dtype).tiny)


class Detection(NamedTuple):
    """How well a score tells known images from unknown ones."""

    auroc: float  # the probability that a known image scores higher than an unknown one
    fpr: float  # share of the unknown images that pass where a share `tpr` of the known ones does
    threshold: float  # the score from which on an image passes then


def detect(known: np.ndarray, unknown: np.ndarray, tpr: float = 0.95) -> Detection:
    """Compares the scores of known images [n] with those of unknown ones [m]; the known ones are the positives."""
    from sklearn.metrics import roc_auc_score

    truth = np.repeat([1, 0], [len(known), len(unknown)])
    threshold = np.sort(known)[::-1][max(math.ceil(tpr * len(known) - 1e-9), 1) - 1]
    auroc = roc_auc_score(truth, np.concatenate([known, unknown]))
    return Detection(float(auroc), float(np.mean(unknown >= threshold)), float(threshold))
