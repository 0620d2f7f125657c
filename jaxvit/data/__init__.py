"""Names to batches: data sets, their splits, the feed to the device, and the operations on images."""

from jaxvit.data.crops import Crop, Draws
from jaxvit.data.images import open_image, to_rgb
from jaxvit.data.pipeline import MAX_UNREADABLE, Resident, Streamed, epoch_order, make_feed
from jaxvit.data.preprocess import make_transform, preprocess
from jaxvit.data.sources.table import NAMES, load_dataset, register_data
from jaxvit.data.splits import Dataset, Split

__all__ = [
    "MAX_UNREADABLE",
    "NAMES",
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
