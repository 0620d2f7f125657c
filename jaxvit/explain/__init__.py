"""Why a model decided so: class activation maps, attention, pixel gradients, and whether the maps are right."""

from jaxvit.explain.attention import (
    attention_distance,
    attention_maps,
    attention_rollout,
    attention_weights,
)
from jaxvit.explain.cam import CAM_METHODS, METHODS, grad_cam
from jaxvit.explain.pixels import integrated_gradients, smooth_grad
from jaxvit.explain.taps import default_layer, layers

__all__ = [
    "CAM_METHODS", "METHODS", "attention_distance", "attention_maps", "attention_rollout", "attention_weights",
    "default_layer", "grad_cam", "integrated_gradients", "layers", "smooth_grad",
]  # fmt: skip
