"""What a run must know of its data: how many images of what size in how many classes. No image."""

import dataclasses

import numpy as np

from jaxvit.data.splits import Dataset


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of a data set after its splits are drawn and its limits are set."""

    num_classes: int
    num_train: int
    num_val: int
    num_test: int
    shape: tuple[int, int, int] | None  # (h, w, c) of stored arrays; None: images that are brought to a size when read
    in_channels: int
    image_size: tuple[int, int] | None  # None where the images differ in size
    mean: tuple[float, ...]  # per channel, in [0, 1] pixel units
    std: tuple[float, ...]
    note: str | None = None  # what is assumed
    class_counts: tuple[int, ...] | None = None  # training images of each class, where that is known
    several: bool = False  # whether an image may have several labels, or none

    def sizes(self) -> dict[str, int]:
        """The splits that have images, and how many."""
        sizes = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        return {name: size for name, size in sizes.items() if size}


def _class_counts(dataset: Dataset) -> tuple[int, ...]:
    labels = dataset.train.labels
    counts = (
        labels.sum(axis=0, dtype=np.int64) if dataset.several else np.bincount(labels, minlength=dataset.num_classes)
    )
    return tuple(counts.tolist())


def of_dataset(dataset: Dataset) -> Facts:
    """Returns the facts of a data set that is there."""
    images = dataset.train.images
    return Facts(
        num_classes=len(dataset.class_names),
        num_train=len(dataset.train),
        num_val=len(dataset.val),
        num_test=len(dataset.test),
        shape=None if images is None else tuple(images.shape[1:]),
        in_channels=dataset.in_channels,
        image_size=dataset.image_size,
        mean=dataset.mean,
        std=dataset.std,
        class_counts=_class_counts(dataset),
        several=dataset.several,
    )
