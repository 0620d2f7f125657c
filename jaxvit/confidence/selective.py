"""Selective prediction: risk against coverage (El-Yaniv & Wiener, 2010; Geifman & El-Yaniv, 2017)."""

import dataclasses

import numpy as np

from jaxvit.errors import UserError


@dataclasses.dataclass(frozen=True)
class RiskCoverage:
    """What is wrong among the most confident answers, for each different confidence, the highest first."""

    confidence: np.ndarray  # the least that is answered, [m]
    coverage: np.ndarray  # share of the images that are answered, [m]
    risk: np.ndarray  # share of wrong answers among these, [m]
    aurc: float  # area under risk against coverage: the mean risk over the n coverages i/n
    best_aurc: float  # of confidences that rank all right answers above all wrong ones

    def coverage_at(self, accuracy: float) -> tuple[float, float]:
        """Returns (largest coverage with at least this accuracy, the least confidence then); (0, NaN) where none."""
        good = np.flatnonzero(self.risk <= 1 - accuracy + 1e-12)
        return (float(self.coverage[good[-1]]), float(self.confidence[good[-1]])) if len(good) else (0.0, float("nan"))


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> RiskCoverage:
    """Returns risk against coverage of answers with a confidence [n] that are right or wrong, bool [n].

    Equally confident answers are given or held back together; within them the area counts the mean over their orders.
    """
    confidence, correct = np.asarray(confidence), np.asarray(correct) > 0  # 0 and 1 will do
    if confidence.ndim != 1 or confidence.shape != correct.shape or not confidence.size:
        raise UserError(f"confidence has shape {confidence.shape}, correct {correct.shape}; expected [n] both, n >= 1")
    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), n - 1)
    errors, answered = np.cumsum(~correct[order])[ends], ends + 1
    steps = np.arange(1, n + 1)
    # between two confidences errors come evenly: that is their mean over the orders of the equal ones
    area = np.interp(steps, np.append(0, answered), np.append(0, errors)) / steps
    wrong = int(np.sum(~correct))
    best = np.maximum(steps - (n - wrong), 0) / steps
    return RiskCoverage(
        confidence[order][ends], answered / n, errors / answered, float(area.mean()), float(best.mean())
    )


def held_back(probabilities: np.ndarray, min_confidence: float) -> np.ndarray:
    """Which predictions are abstentions: the largest of the probabilities [n, k] is below `min_confidence`; bool [n].

    Raises UserError for a `min_confidence` outside of [0, 1].
    """
    if isinstance(min_confidence, bool) or not 0 <= min_confidence <= 1:
        raise UserError(f"min_confidence is {min_confidence}; expected a probability from 0 to 1, for example 0.9")
    return np.max(probabilities, axis=-1) < min_confidence
