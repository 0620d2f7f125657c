"""Splits to batches on the device: small sets live there, large ones stream through grain."""

import collections
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxvit.data.crops import Crop, Draws, generator
from jaxvit.data.images import DECODE_ERRORS, in_threads
from jaxvit.data.preprocess import make_transform
from jaxvit.data.sampling import draw_images
from jaxvit.data.splits import Split, shuffled
from jaxvit.errors import RunError, UserError
from jaxvit.runtime.sharding import local_rows, put, put_rows

__all__ = ["Resident", "Streamed", "epoch_order", "make_feed", "make_transform"]

Batch = dict[str, jax.Array]
MAX_UNREADABLE = 0.01  # share of a split, and
FEW = 10  # this many are never too many


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


def num_batches(n: int, batch_size: int, *, pad: bool) -> int:
    """Returns how many batches `n` examples give: the last partial one is padded, or dropped."""
    return math.ceil(n / batch_size) if pad else n // batch_size


def _slots(order: np.ndarray, batch_size: int, start: int, pad: bool) -> np.ndarray:
    """Returns positions [batches, batch_size] from batch `start` on; -1 marks padding."""
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected a whole number of at least 1.")
    count = num_batches(len(order), batch_size, pad=pad)
    slots = np.full(count * batch_size, -1, np.int32)
    used = min(len(order), len(slots))
    slots[:used] = order[:used]
    return slots.reshape(count, batch_size)[start:]


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
        return _slots(order, batch_size, start, pad)

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


class Streamed:
    """A split that is read, decoded and transformed by threads while the device works; same batches as Resident.

    The order of the batches comes from `order` alone, so that a start at any batch continues as if uninterrupted.
    An example that cannot be read is tried once more and then masked; `unreadable` collects their positions. More than
    1 % of them is a RunError, before the batch that they are in: a drive that went away must not train on nothing.
    Where the mesh of `sharding` spans several processes, each reads its own rows of every batch. With `crop`, batches
    that are asked for with draws are cut from the photos themselves; without draws, `transform` is applied.
    """

    kind = "streamed"

    def __init__(
        self,
        split: Split,
        transform: Callable | None = None,
        sharding: NamedSharding | None = None,
        num_threads: int = 8,
        prefetch: int = 2,
        max_unreadable: float = MAX_UNREADABLE,
        crop: Crop | None = None,
    ):
        self._max_unreadable = max_unreadable
        self._split, self._transform, self._sharding, self._crop = split, transform, sharding, crop
        self._num_threads, self._prefetch = num_threads, prefetch
        self.unreadable: set[int] = set()
        self.image_shape = _first_readable(split, transform).shape

    def __len__(self) -> int:
        return len(self._split)

    def batches(
        self, order: np.ndarray, batch_size: int, *, start: int = 0, pad: bool = False, draws: Draws | None = None
    ) -> Iterator[Batch]:
        """Yields the same batches as `Resident.batches`, placed on the device `prefetch` batches ahead.

        Where the feed crops, `draws` fix the crops; their positions are those of `order`.
        """
        import grain.python as grain

        slots = _slots(order, batch_size, start, pad)
        if not len(slots):
            return
        places, drawn = slots, None
        if self._crop is not None and draws is not None:
            places, drawn = _slots(draws.positions, batch_size, start, pad), (draws.seed, draws.epoch)
        if self._sharding is not None:  # what the devices of this process hold
            own = local_rows(self._sharding, batch_size)
            slots, places = slots[:, own], places[:, own]
        options = grain.ReadOptions(num_threads=self._num_threads, prefetch_buffer_size=4 * slots.shape[1])
        source: Any = _Rows(slots.ravel(), places.ravel())
        examples = grain.MapDataset.source(source).map(partial(self._example, drawn=drawn))
        host = iter(examples.to_iter_dataset(options).batch(slots.shape[1], drop_remainder=True))
        ahead = collections.deque()
        for batch in host:
            _refuse_many(self._split, self.unreadable, self._max_unreadable)
            ahead.append(put_rows(batch, self._sharding, batch_size))
            if len(ahead) > self._prefetch:
                yield ahead.popleft()
        yield from ahead

    def _example(self, row: tuple[int, int], drawn: tuple[int, int] | None) -> dict[str, Any]:
        slot, place = row
        image = np.zeros(self.image_shape, np.uint8)
        if slot < 0:
            return {"image": image, "label": np.zeros_like(self._split.labels[0]), "mask": np.bool_(False)}
        if drawn is None or self._crop is None:
            read = _read(self._split, self._transform, slot)
        else:
            read = _cropped(self._split, self._crop, slot, (*drawn, place))
        if read is None:
            self.unreadable.add(slot)
        else:
            image = read
        return {"image": image, "label": self._split.labels[slot], "mask": np.bool_(read is not None)}


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The slots, and their places in the epoch, as a source that grain can index."""

    slots: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, i: int) -> tuple[int, int]:
        return int(self.slots[i]), int(self.places[i])


def make_feed(
    split: Split,
    *,
    transform: Callable | None = None,
    sharding: NamedSharding | None = None,
    resident_bytes: int = 2**30,
    num_threads: int = 8,
    max_unreadable: float = MAX_UNREADABLE,
    crop: Crop | None = None,
) -> Resident | Streamed:
    """Returns a feed over the split: Resident up to `resident_bytes` of uint8 images, else Streamed.

    `transform` is applied only if the split is not yet an array. `feed.kind` says which was chosen. A larger share
    of images than `max_unreadable` that cannot be read is a RunError. A split that `crop` cuts anew in every epoch is
    Streamed.
    """
    if split.images is not None:
        transform = None
        size = split.images.nbytes
    else:
        size = len(split) * math.prod(_first_readable(split, transform).shape) if len(split) else 0
    if size <= resident_bytes and (crop is None or split.images is not None):
        return Resident(split, transform, sharding, max_unreadable)
    return Streamed(split, transform, sharding, num_threads=num_threads, max_unreadable=max_unreadable, crop=crop)


def _read(split: Split, transform: Callable | None, i: int) -> np.ndarray | None:
    """Reads one example, uint8 [h, w, c], or None where that fails twice (a network drive may stumble once)."""
    for _ in range(2):
        try:
            example = split.read(i)
        except DECODE_ERRORS:
            continue
        return np.asarray(example if transform is None else transform(example), np.uint8)
    return None


def _cropped(split: Split, crop: Crop, i: int, draw: tuple[int, int, int]) -> np.ndarray | None:
    """As `_read`, a crop uint8 [h, w, c] that is fixed by (seed, epoch, position)."""
    for _ in range(2):
        try:
            if split.file is not None:
                return crop.of_file(generator(*draw), split.file(i))
            return crop(generator(*draw), split.read(i))
        except DECODE_ERRORS:
            continue
    return None


def _first_readable(split: Split, transform: Callable | None) -> np.ndarray:
    for i in range(len(split)):
        example = _read(split, transform, i)
        if example is not None:
            return example
    raise UserError(f"the {split.name} split has no readable image.")


def _decode_all(split: Split, transform: Callable | None, max_unreadable: float) -> tuple[np.ndarray, list[int]]:
    """Returns (uint8 [n, h, w, c], positions that could not be decoded and are zero)."""
    if split.images is not None and transform is None:
        return split.images, []
    if not len(split):
        return np.zeros((0, 1, 1, 1), np.uint8), []
    shape = _first_readable(split, transform).shape
    images = np.zeros((len(split), *shape), np.uint8)
    unreadable: list[int] = []

    def decode(i: int) -> None:
        example = _read(split, transform, i)
        if example is None:
            unreadable.append(i)
        elif example.shape != shape:
            raise UserError(
                f"images of the {split.name} split differ in size ({shape}, {example.shape}); set data.image_size."
            )
        else:
            images[i] = example

    in_threads(decode, len(split), f"decoding {split.name} images")
    _refuse_many(split, unreadable, max_unreadable)
    return images, sorted(unreadable)


def _refuse_many(split: Split, unreadable: Collection[int], max_unreadable: float) -> None:
    n = len(unreadable)
    if n > max(FEW, max_unreadable * len(split)):
        names = ", ".join(str(split.names[i] if split.names else i) for i in sorted(unreadable)[:3])
        raise RunError(
            f"{n} of {len(split)} {split.name} images can no longer be read, for example {names}\n"
            "check that the data are still there; the checkpoints are intact, and the same command resumes"
        )
