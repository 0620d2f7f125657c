"""Splits to batches on the device: small sets live there, large ones are read while the device works."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxvit.data.crops import Crop, Draws
from jaxvit.data.images import in_threads
from jaxvit.data.preprocess import make_transform
from jaxvit.data.rows import MAX_UNREADABLE, first_readable, of_split, refuse_many
from jaxvit.data.sampling import draw_images, slots_of
from jaxvit.data.splits import Split, shuffled
from jaxvit.data.streamed import NUM_THREADS, Streamed
from jaxvit.errors import UserError
from jaxvit.runtime.sharding import put

__all__ = ["MAX_UNREADABLE", "NUM_THREADS", "Resident", "Streamed", "epoch_order", "make_feed", "make_transform"]

Batch = dict[str, jax.Array]


def epoch_order(
    seed: int, epoch: int, n: int, repeats: int = 1, *, labels: np.ndarray | None = None, sampling: str | None = None
) -> np.ndarray:
    """Returns a permutation [n] from (seed, epoch) alone; with `sampling` draws of `labels` [n] with replacement.

    With `repeats` above 1 each of the first n / repeats examples of the order stands `repeats` times in a row:
    repeated augmentation (Hoffer et al. 2020), as timm's sampler on one device. The epoch keeps its length.
    """
    if sampling is None or labels is None:
        order = shuffled(n, seed, epoch, 3)
    else:
        order = draw_images(labels, sampling, seed, epoch)
    return np.repeat(order[: math.ceil(n / repeats)], repeats)[:n]


@partial(jax.jit, static_argnames="out")
def gather(images: jax.Array, labels: jax.Array, usable: jax.Array, slots: jax.Array, out: Any = None) -> Batch:
    """Returns the batch at `slots` int32 [b]; -1 gives zeros with mask False."""
    real = slots >= 0
    at = jnp.maximum(slots, 0)
    mask = real & usable[at]
    batch = {
        "image": jnp.where(real[:, None, None, None], images[at], jnp.zeros((), images.dtype)),
        "label": jnp.where(real.reshape(-1, *(1,) * (labels.ndim - 1)), labels[at], 0),
        "mask": mask,
    }
    return batch if out is None else jax.lax.with_sharding_constraint(batch, out)


class Resident:
    """A split that lies on the device as uint8 [n, h, w, c] and is gathered there.

    `transform` maps a read example to uint8 [h, w, c]; it is needed where the split is not an array. With `sharding`
    (a NamedSharding over the batch axis) the examples are replicated over its mesh and the batches split by it.
    `unreadable` lists the examples that could not be decoded: they are masked in every batch.
    """

    kind = "resident"

    def __init__(
        self,
        split: Split,
        transform: Callable | None = None,
        sharding: NamedSharding | None = None,
        max_unreadable: float = MAX_UNREADABLE,
    ):
        images, self.unreadable = _decode_all(split, transform, max_unreadable)
        usable = np.ones(len(split), bool)
        usable[self.unreadable] = False
        whole = None if sharding is None else NamedSharding(sharding.mesh, PartitionSpec())
        self._sharding, self._whole = sharding, whole
        self.images, self.labels, self.usable = put((images, split.labels, usable), whole)
        self.image_shape = images.shape[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, order: np.ndarray, batch_size: int, *, start: int = 0, pad: bool = False, draws: Draws | None = None
    ) -> Iterator[Batch]:
        """Yields {"image": uint8 [b, h, w, c], "label", "mask": bool [b]} from batch `start` on.

        "label" is int32 [b], or of several labels per image uint8 [b, num_classes], 0 or 1.
        `pad=True` fills the last batch up with mask False; `pad=False` drops it. `draws` are not needed: what lies on
        the device is cropped there.
        """
        del draws
        for slots in self.slots(order, batch_size, start=start, pad=pad):
            yield self.batch(slots)

    def slots(self, order: np.ndarray, batch_size: int, *, start: int = 0, pad: bool = False) -> np.ndarray:
        """Positions int32 [batches, b] of the examples of each batch from batch `start` on; -1 is padding."""
        return slots_of(order, batch_size, start, pad)

    def batch(self, slots: np.ndarray) -> Batch:
        """The batch at `slots` int32 [b], which alone are sent to the device."""
        return gather(*self.arrays, self.place(slots), out=self._sharding)

    def place(self, slots: np.ndarray) -> jax.Array:
        """Positions as the device reads them."""
        return put(slots, self._whole)

    @property
    def arrays(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(images, labels, usable) on the device, as `gather` takes them."""
        return self.images, self.labels, self.usable


def make_feed(
    split: Split,
    *,
    transform: Callable | None = None,
    sharding: NamedSharding | None = None,
    resident_bytes: int = 2**30,
    num_workers: int = NUM_THREADS,
    max_unreadable: float = MAX_UNREADABLE,
    crop: Crop | None = None,
    processes: bool = False,
) -> Resident | Streamed:
    """Returns a feed over the split: Resident up to `resident_bytes` of uint8 images, else Streamed.

    `transform` is applied only if the split is not yet an array. `feed.kind` says which was chosen. A larger share
    of images than `max_unreadable` that cannot be read is a RunError. A split that `crop` cuts anew in every epoch is
    Streamed, by threads or `processes`.
    """
    if split.images is not None:
        transform = None
        size = split.images.nbytes
    else:
        size = len(split) * math.prod(first_readable(split, transform).shape) if len(split) else 0
    if size <= resident_bytes and (crop is None or split.images is not None):
        return Resident(split, transform, sharding, max_unreadable)
    return Streamed(
        split,
        transform,
        sharding,
        num_workers=num_workers,
        max_unreadable=max_unreadable,
        crop=crop,
        processes=processes,
    )


def _decode_all(split: Split, transform: Callable | None, max_unreadable: float) -> tuple[np.ndarray, list[int]]:
    """Returns (uint8 [n, h, w, c], positions that could not be decoded and are zero)."""
    if split.images is not None and transform is None:
        return split.images, []
    if not len(split):
        return np.zeros((0, 1, 1, 1), np.uint8), []
    shape = first_readable(split, transform).shape
    images = np.zeros((len(split), *shape), np.uint8)
    unreadable: list[int] = []

    def decode(i: int) -> None:
        example = of_split(split, transform, i)
        if example is None:
            unreadable.append(i)
        elif example.shape != shape:
            raise UserError(
                f"images of the {split.name} split differ in size ({shape}, {example.shape}); set data.image_size."
            )
        else:
            images[i] = example

    in_threads(decode, len(split), f"decoding {split.name} images")
    refuse_many(split, unreadable, max_unreadable)
    return images, sorted(unreadable)
