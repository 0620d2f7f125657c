"""Names to batches: data sets, their splits, the feed to the device, and the operations on images."""

import importlib
from typing import TYPE_CHECKING, Any

from jaxvit.data.by_size import BySize
from jaxvit.data.crops import Crop, Draws
from jaxvit.data.images import open_image, to_rgb
from jaxvit.data.preprocess import make_transform, preprocess
from jaxvit.data.splits import Dataset, Split

if TYPE_CHECKING:
    from jaxvit.data.pipeline import MAX_UNREADABLE, NUM_THREADS, Resident, Streamed, epoch_order, make_feed
    from jaxvit.data.sources.table import NAMES, load_dataset, register_data

__all__ = [
    "MAX_UNREADABLE",
    "NAMES",
    "BySize",
    "NUM_THREADS",
    "Crop",
    "Dataset",
    "Draws",
    "Resident",
    "Split",
    "Streamed",
    "epoch_order",
    "load_dataset",
    "make_feed",
    "make_transform",
    "open_image",
    "preprocess",
    "register_data",
    "to_rgb",
]

# Loaded on first use: the processes that decode images (`data.worker`) need neither JAX nor the data sets.
_LATE = {
    "jaxvit.data.pipeline": ("MAX_UNREADABLE", "NUM_THREADS", "Resident", "Streamed", "epoch_order", "make_feed"),
    "jaxvit.data.sources.table": ("NAMES", "load_dataset", "register_data"),
}
_MODULES = {name: module for module, names in _LATE.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'jaxvit.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
