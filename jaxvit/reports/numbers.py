"""The numbers of a report: differences between runs, confusion, classes. Plain numpy in, numpy out."""

import math
from collections.abc import Sequence

import numpy as np

from jaxvit.step import metrics

DRAWS = 10_000


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [n, k] of logits [n, k], float64."""
    e = np.exp(np.asarray(logits, np.float64) - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of the images whose label is among the `k` most probable classes; of equal logits the first wins."""
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    return float((order == labels[:, None]).any(axis=-1).mean())


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats."""
    shifted = np.asarray(logits, np.float64) - logits.max(axis=-1, keepdims=True)
    picked = np.take_along_axis(shifted, labels[:, None].astype(np.int64), axis=-1)[:, 0]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=-1)) - picked))


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    p, d = hits / n, 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    middle = (p + z * z / (2 * n)) / d
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
    """Exact test of two classifiers on the same images (McNemar, 1947): bool [n] each, whether they are right.

    Returns (images only a has right, images only b has right, two-sided p).
    """
    from scipy.stats import binom

    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p = 2 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5))
    return only_a, only_b, min(1.0, p)


def bootstrap_difference(
    a: np.ndarray, b: np.ndarray, *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float, float]:
    """Returns (accuracy of b minus that of a, and its 95 % percentile interval) over paired resamples of the images.

    A resample is a draw from a multinomial: each image adds -1, 0 or 1 to the difference.
    """
    n = len(a)
    d = b.astype(int) - a.astype(int)
    shares = np.array([(d < 0).mean(), (d == 0).mean(), (d > 0).mean()])
    counts = np.random.default_rng(seed).multinomial(n, shares / shares.sum(), draws)
    low, high = np.percentile((counts[:, 2] - counts[:, 0]) / n, [2.5, 97.5])
    return float(d.mean()), float(low), float(high)


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, 1979)."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, p[i] * (len(p) - rank)))
        adjusted[i] = largest
    return adjusted


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts [true, predicted], int [classes, classes]."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predictions, labels=np.arange(classes))


def of_classes(matrix: np.ndarray) -> dict[str, float]:
    """`macro_f1` and `balanced_accuracy` of counts [true, predicted], by `step.metrics.of_classes`."""
    return metrics.of_classes(matrix.diagonal().astype(float), matrix.sum(0, dtype=float), matrix.sum(1, dtype=float))


def row_normalised(matrix: np.ndarray) -> np.ndarray:
    """Shares of each true class; a class without images is all zeros."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def similarity_order(matrix: np.ndarray) -> np.ndarray:
    """An order of the classes that puts those which are confused next to each other, int [classes].

    Leaves of an average-linkage tree over 1 - mutual confusion, turned to the shortest walk (Bar-Joseph et al., 2001).
    """
    k = len(matrix)
    if k < 3:
        return np.arange(k)
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    shares = row_normalised(matrix)
    mutual = (shares + shares.T) / 2
    np.fill_diagonal(mutual, 0.0)
    if mutual.max() == 0:
        return np.arange(k)
    distance = 1 - mutual / mutual.max()
    np.fill_diagonal(distance, 0.0)
    return leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))


def confused_pairs(matrix: np.ndarray, most: int = 10) -> list[tuple[int, int, int, int]]:
    """Returns (a, b, times a was taken for b, times b was taken for a), the most confused first, without zeros.

    a is the class that is mistaken more often; of equally confused pairs the first classes come first.
    """
    pairs = []
    for i, j in zip(*np.triu_indices(len(matrix), 1), strict=True):
        forth, back = int(matrix[i, j]), int(matrix[j, i])
        if forth + back:
            pairs.append((int(i), int(j), forth, back) if forth >= back else (int(j), int(i), back, forth))
    return sorted(pairs, key=lambda pair: -(pair[2] + pair[3]))[:most]


def per_class(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Precision, recall, F1 and number of images of each class, [classes, 4]; 0 where nothing was predicted."""
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(labels, predictions, labels=np.arange(classes), zero_division=0)  # type: ignore[arg-type]
    return np.stack([np.asarray(s, np.float64) for s in scores], axis=1)


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, most: int = 12) -> np.ndarray:
    """Positions of the wrong predictions, the most confident first, int [at most `most`]."""
    wrong = np.flatnonzero(probabilities.argmax(axis=-1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=-1), kind="stable")][:most]


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of features [n, p] and [n, q] in [0, 1] (Kornblith et al., 2019, eq. 4)."""
    x, y = (np.asarray(v, np.float64) - v.mean(axis=0) for v in (x, y))
    if len(x) <= min(x.shape[1], y.shape[1]):  # the same by way of [n, n], the smaller matrices
        k, m = x @ x.T, y @ y.T
        cross, own = np.sum(k * m), np.linalg.norm(k) * np.linalg.norm(m)
    else:
        cross, own = np.linalg.norm(y.T @ x) ** 2, np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(cross / own) if own > 0 else 0.0
