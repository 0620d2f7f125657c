"""What one prediction gains over another on the same images, with its interval."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxvit.reports import numbers
from jaxvit.step import calibration, metrics, multi_label

SCORED = 4096  # images scored at a time
DRAWS = 1000  # of the images, for mean average precision


class Gain(NamedTuple):
    """Of two predictions of the same images, the second minus the first."""

    figure: str  # "top-1" or "mAP"
    difference: float
    low: float  # of the 95 % interval over resamples of the images
    high: float
    gained: int | None = None  # images that only the second has right
    lost: int | None = None
    p: float | None = None  # McNemar's exact test; none of mAP

    @property
    def text(self) -> str:
        """One line, in percentage points."""
        line = f"{100 * self.difference:+.2f} points of {self.figure}, 95 % interval "
        line += f"{100 * self.low:+.2f} to {100 * self.high:+.2f}"
        if self.p is None:
            return line
        shown = "< 0.0001" if self.p < 1e-4 else f"= {self.p:.4f}"
        return f"{line}; {self.gained:,} images gained, {self.lost:,} lost, McNemar's p {shown}"


def measure_gain(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> Gain:
    """The gain of logits `after` over `before`, [n, num_classes] both; labels int [n], or 0 and 1 [n, num_classes]."""
    if labels.ndim == 2:
        return Gain("mAP", *average_precision_gain(before, after, labels))
    a, b = (logits.argmax(axis=-1) == labels for logits in (before, after))
    lost, gained, p = numbers.mcnemar(a, b)
    return Gain("top-1", *numbers.bootstrap_difference(a, b), gained, lost, p)


def average_precision_gain(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float, float]:
    """(mAP of `after` minus that of `before`, and its 95 % percentile interval) over paired resamples of the images.

    A resample gives each image the number of times that it was drawn as its weight.
    """
    n, rng = len(labels), np.random.default_rng(seed)
    whole = [np.nanmean(multi_label.average_precisions(logits, labels)) for logits in (before, after)]
    found = []
    for size in [100] * (draws // 100) + [draws % 100] * bool(draws % 100):
        weights = rng.multinomial(n, np.full(n, 1 / n), size).astype(np.float64)
        a, b = (weighted_map(logits, labels, weights) for logits in (before, after))
        found.append(b - a)
    low, high = np.nanpercentile(np.concatenate(found), [2.5, 97.5])
    return float(whole[1] - whole[0]), float(low), float(high)


def weighted_map(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean average precision [d] over the classes with images, of weights [d, n] of the images."""
    total, there = np.zeros(len(weights)), np.zeros(len(weights))
    for k in range(logits.shape[1]):
        order = np.argsort(-logits[:, k], kind="stable")
        ends = np.append(np.flatnonzero(np.diff(logits[order, k])), len(order) - 1)  # equal scores are said together
        drawn = weights[:, order]
        hits = np.cumsum(drawn * (labels[order, k] > 0), axis=1)[:, ends]
        said = np.maximum(np.cumsum(drawn, axis=1)[:, ends], 1)
        precisions = (np.diff(hits, prepend=0, axis=1) * hits / said).sum(axis=1) / np.maximum(hits[:, -1], 1)
        total, there = total + precisions, there + (hits[:, -1] > 0)
    return total / np.maximum(there, 1)


def scores(logits: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | float = multi_label.USUAL) -> dict:
    """The metrics of evaluation, of logits [n, num_classes] that are there; see `step.evaluate`."""
    sums: dict[str, np.ndarray] = {}
    module = multi_label if labels.ndim == 2 else metrics
    for start in range(0, len(labels), SCORED):
        part = slice(start, start + SCORED)
        mask = np.ones(len(labels[part]), bool)
        given = map(jnp.asarray, (logits[part], labels[part], mask))
        for name, value in module.batch_sums(*given).items():
            sums[name] = sums.get(name, np.float64(0)) + np.asarray(value, np.float64)
    found = metrics.divide(sums) | {"ece": calibration.ece(logits, labels)}
    return found | multi_label.scores(logits, labels, thresholds) if labels.ndim == 2 else found
