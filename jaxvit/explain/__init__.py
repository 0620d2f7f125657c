"""Looking into a model: its features, and why it decided so (class activation maps, attention, pixel gradients)."""

from jaxvit.explain.attention import (
    attention_distance,
    attention_maps,
    attention_rollout,
    attention_weights,
)
from jaxvit.explain.cam import CAM_METHODS, METHODS, grad_cam
from jaxvit.explain.intermediates import feature_info, features, forward_intermediates, without_classifier
from jaxvit.explain.pixels import integrated_gradients, smooth_grad
from jaxvit.explain.taps import default_layer, layers

__all__ = [
    "CAM_METHODS", "METHODS", "attention_distance", "attention_maps", "attention_rollout", "attention_weights",
    "default_layer", "feature_info", "features", "forward_intermediates", "grad_cam", "integrated_gradients", "layers",
    "smooth_grad", "without_classifier",
]  # fmt: skip
