"""Data sets by name: `digits`, `cifar10`, `cifar100`, `tfds:NAME`, `folder:PATH`, `csv:FILE`, `hf:NAME`, ..."""

from jaxvit.data.sources.table import NAMES, load_dataset

__all__ = ["NAMES", "load_dataset"]
