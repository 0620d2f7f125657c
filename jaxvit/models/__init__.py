"""Images to logits: the model families and the registry of timm's names."""

from jaxvit.models.registry import create_model, list_models, model_fields
from jaxvit.models.tags import data_config, split_tag

__all__ = ["create_model", "data_config", "list_models", "model_fields", "split_tag"]
