"""Looking into a model: its features, and why it decided so (activation maps, attention, gradients, hidden parts)."""

from jaxvit.explain.attention import (
    attention_distance,
    attention_maps,
    attention_rollout,
    attention_weights,
)
from jaxvit.explain.cam import CAM_METHODS, METHODS, grad_cam
from jaxvit.explain.components import layer_maps, pca, principal_components
from jaxvit.explain.faithfulness import scores
from jaxvit.explain.intermediates import feature_info, features, forward_intermediates, without_classifier
from jaxvit.explain.perturbation import lime, occlusion
from jaxvit.explain.pixels import completeness, integrated_gradients, smooth_grad
from jaxvit.explain.taps import default_layer, layers

__all__ = [
    "CAM_METHODS", "METHODS", "attention_distance", "attention_maps", "attention_rollout", "attention_weights",
    "completeness", "default_layer", "feature_info", "features", "forward_intermediates", "grad_cam",
    "integrated_gradients", "layer_maps", "layers", "lime", "occlusion", "pca", "principal_components", "scores",
    "smooth_grad", "without_classifier",
]  # fmt: skip
