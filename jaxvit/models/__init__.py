"""Image classifiers by timm's names: images [b, h, w, c] -> logits [b, num_classes]."""

from jaxvit.models.registry import (
    check_fields,
    create_model,
    data_config,
    list_models,
    model_fields,
    register_model,
    split_tag,
    tag_info,
)

__all__ = [
    "check_fields",
    "create_model",
    "data_config",
    "list_models",
    "model_fields",
    "register_model",
    "split_tag",
    "tag_info",
]
