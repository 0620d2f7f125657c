"""jaxvit: train, fine-tune, compare and explain image classifiers in pure functional JAX.

The names are timm's; the weights are converted, and the numbers are the same. Start with `create_model`,
`load_pretrained` and `train.train_and_evaluate`, or with `python main.py --help`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that `import jaxvit` costs nothing.
_NAMES = {
    "create_model": "jaxvit.models",
    "register_model": "jaxvit.models",
    "register_data": "jaxvit.data",
    "register_augmentation": "jaxvit.data.augment",
    "register_optimizer": "jaxvit.optim",
    "register_schedule": "jaxvit.optim",
    "register_loss": "jaxvit.step.losses",
    "register_metric": "jaxvit.step.metrics",
    "list_models": "jaxvit.models",
    "data_config": "jaxvit.models",
    "load_pretrained": "jaxvit.pretrained",
    "feature_info": "jaxvit.explain",
    "features": "jaxvit.explain",
    "forward_intermediates": "jaxvit.explain",
    "preprocess": "jaxvit.data",
    "load_run": "jaxvit.inference",
    "train_and_evaluate": "jaxvit.train",
    "UserError": "jaxvit.errors",
}
_MODULES = ("confidence", "config", "data", "explain", "models", "optim", "pretrained", "train")

__all__ = ["__version__", *_NAMES, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"jaxvit.{name}")
    raise AttributeError(f"module 'jaxvit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
