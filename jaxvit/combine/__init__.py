"""Several predictions of one image as one: views of it, models of it, models averaged; and the gain from it."""

from jaxvit.combine.ensemble import Member, check_classes, ensemble_of, evaluate, evaluate_views, predict
from jaxvit.combine.gain import Gain, measure_gain
from jaxvit.combine.mean import log_mean
from jaxvit.combine.views import FORMS, with_views

__all__ = ["FORMS", "Gain", "Member", "check_classes", "ensemble_of", "evaluate", "evaluate_views", "log_mean",
           "measure_gain", "predict", "with_views"]  # fmt: skip
