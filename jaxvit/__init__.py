"""jaxvit: train, fine-tune, compare and explain image classifiers in pure functional JAX.

The names are timm's; the weights are converted, and the numbers are the same. Start with `create_model`,
`load_pretrained` and `train.train_and_evaluate`, or with `python main.py --help`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that `import jaxvit` costs nothing.
_WHERE = {
    "models": ("create_model", "list_models", "data_config", "register_model"),
    "pretrained": ("load_pretrained",),
    "data": ("preprocess", "register_data"),
    "data.augment": ("register_augmentation",),
    "explain": ("feature_info", "features", "forward_intermediates"),
    "optim": ("register_optimizer", "register_schedule"),
    "step.losses": ("register_loss",),
    "step.metrics": ("register_metric",),
    "train": ("train_and_evaluate",),
    "inference": ("load_run",),
    "errors": ("UserError",),
}
_NAMES = {name: f"jaxvit.{module}" for module, names in _WHERE.items() for name in names}
_MODULES = ("confidence", "config", "data", "explain", "inference", "models", "optim", "pretrained", "train")

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
