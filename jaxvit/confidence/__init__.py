"""Probabilities to trust: a temperature, abstention, scores that detect unknown images."""

from jaxvit.confidence.selective import RiskCoverage, held_back, risk_coverage
from jaxvit.confidence.temperature import calibrate, divide_logits, read_temperature, requested, with_temperature
from jaxvit.confidence.unknown import Detection, detect, energy, knn, max_probability
from jaxvit.confidence.unknown_images import compare
from jaxvit.step.calibration import ece, fit_temperature, nll, reliability

__all__ = ["Detection", "RiskCoverage", "calibrate", "compare", "detect", "divide_logits", "ece", "energy",
           "fit_temperature", "held_back", "knn", "max_probability", "nll", "read_temperature", "reliability",
           "requested", "risk_coverage", "with_temperature"]  # fmt: skip
