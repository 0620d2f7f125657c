"""A split that is read from files while the device works."""

import collections
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from functools import partial

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxvit.data import workers
from jaxvit.data.crops import Crop, Draws
from jaxvit.data.rows import (
    MAX_UNREADABLE,
    READ,
    UNREADABLE,
    WAITING,
    Preparation,
    Row,
    attempt,
    fill,
    first_readable,
    of_split,
    refuse_many,
)  # fmt: skip
from jaxvit.data.sampling import slots_of
from jaxvit.data.splits import Split
from jaxvit.data.worker import Layout, Task
from jaxvit.runtime import interrupt, waiting
from jaxvit.runtime.sharding import local_rows, put_rows

Batch = dict[str, jax.Array]
NUM_THREADS = 8
MAKING = 2  # batches that are read at a time; one more is on its way to the device
PATIENCE = 0.2  # seconds between looks whether a signal came


def describe(num_workers: int, processes: bool, shape: tuple[int, int, int, int]) -> str:
    """By what batches [b, h, w, c] are read, and in how much memory of the host."""
    kind = ("process" if processes else "thread") + ("es" if processes else "s") * (num_workers > 1)
    own = ", plus about 30 MiB in each process" if processes else ""
    batches = f"{MAKING + 1} batches, {Layout(MAKING + 1, shape).num_bytes / 2**20:,.1f} MiB"
    return f"images are read by {num_workers} {kind}; the host holds {batches}{own}"


class Streamed:
    """A split that is read, decoded and transformed by workers while the device works; same batches as Resident.

    The order of the batches comes from `order` alone, so that a start at any batch continues as if uninterrupted.
    An example that cannot be read is tried once more and then masked; `unreadable` collects their positions. More than
    1 % of them is a RunError, before the batch that they are in: a drive that went away must not train on nothing.
    Where the mesh of `sharding` spans several processes, each reads its own rows of every batch. With `crop`, batches
    that are asked for with draws are cut from the photos themselves; without draws, `transform` is applied.

    The workers are threads or, with `processes`, processes for images that are files. The bits are the same for any
    number and kind of them. The host holds MAKING + 1 batches of uint8 images, the device `prefetch` more.
    """

    kind = "streamed"

    def __init__(
        self,
        split: Split,
        transform: Callable | None = None,
        sharding: NamedSharding | None = None,
        num_workers: int = NUM_THREADS,
        prefetch: int = 2,
        max_unreadable: float = MAX_UNREADABLE,
        crop: Crop | None = None,
        processes: bool = False,
    ):
        self._max_unreadable = max_unreadable
        self._split, self._sharding, self._preparation = split, sharding, Preparation(transform, crop)
        self._prefetch, self._num_workers = prefetch, num_workers
        self._processes = processes and split.file is not None
        self._pool: workers.Pool | None = None
        self.unreadable: set[int] = set()
        self.image_shape = first_readable(split, transform).shape

    def __len__(self) -> int:
        return len(self._split)

    def batches(
        self, order: np.ndarray, batch_size: int, *, start: int = 0, pad: bool = False, draws: Draws | None = None
    ) -> Iterator[Batch]:
        """Yields the same batches as `Resident.batches`, placed on the device `prefetch` batches ahead.

        Where the feed crops, `draws` fix the crops; their positions are those of `order`.
        """
        slots = slots_of(order, batch_size, start, pad)
        if not len(slots):
            return
        places, shape, crop = None, self.image_shape, self._preparation.crop
        if crop is not None and draws is not None:
            places, shape = slots_of(draws.positions, batch_size, start, pad), crop.shape
        if self._sharding is not None:  # what the devices of this process hold
            own = local_rows(self._sharding, batch_size)
            slots, places = slots[:, own], None if places is None else places[:, own]
        self._pool = self._pool or workers.shared(self._num_workers, processes=self._processes)
        h, w, c = shape
        memory = workers.Memory(Layout(MAKING + 1, (slots.shape[1], h, w, c)))
        free, making, copying = collections.deque(range(MAKING + 1)), collections.deque(), collections.deque()
        ahead: collections.deque[Batch] = collections.deque()
        todo = iter(range(len(slots)))

        def begin() -> None:
            """Has the next batch made, in memory that nobody reads any more."""
            i = next(todo, None)
            if i is None:
                return
            if not free:
                buffer, images = copying.popleft()
                jax.block_until_ready(images)
                free.append(buffer)
            buffer, draw = free.popleft(), None if draws is None or places is None else (draws, places[i])
            making.append((buffer, slots[i], self._begin(memory, buffer, slots[i], draw)))

        try:
            for _ in range(MAKING):
                begin()
            while making:
                buffer, at, futures = making.popleft()
                for future in futures:
                    _wait(future, self._split)
                batch = self._batch(memory, buffer, at)
                ahead.append(put_rows(batch, self._sharding, batch_size))
                copying.append((buffer, ahead[-1]["image"]))
                begin()
                if len(ahead) > self._prefetch:
                    yield ahead.popleft()
            yield from ahead
        finally:
            for *_, futures in making:
                for future in futures:
                    future.cancel()

    def _begin(
        self, memory: workers.Memory, buffer: int, slots: np.ndarray, draw: tuple[Draws, np.ndarray] | None
    ) -> list[Future]:
        """Has the images at `slots` int32 [b] read into a buffer of the memory."""
        assert self._pool is not None
        memory.states[buffer][:] = WAITING
        memory.images[buffer][slots < 0] = 0
        drawn = [None] * len(slots) if draw is None else [(draw[0].seed, draw[0].epoch, int(at)) for at in draw[1]]
        rows: list[Row] = [(k, int(slot), drawn[k]) for k, slot in enumerate(slots) if slot >= 0]
        size = max(min(workers.CHUNK, -(-len(rows) // self._num_workers)), 1)
        return [
            self._pool.submit(partial(self._fill, memory, buffer, rows[first : first + size]))
            for first in range(0, len(rows), size)
        ]

    def _fill(self, memory: workers.Memory, buffer: int, rows: list[Row], process: workers.Process | None) -> None:
        """Reads some rows; what a worker does."""
        images, states, split = memory.images[buffer], memory.states[buffer], self._split
        if process is None:
            fill(images, states, rows, self._read)
            return
        contents = [(k, attempt(_content, split, slot), draw) for k, slot, draw in rows]
        for k, content, _ in contents:
            if content is None:
                images[k], states[k] = 0, UNREADABLE
        asked = [row for row in contents if row[1] is not None]
        if asked:
            names = {k: slot for k, slot, _ in rows}
            process.fill(self._preparation, memory, Task(buffer, asked), lambda k: _name(split, names[k]))

    def _read(self, slot: int, draw: tuple[int, int, int] | None) -> np.ndarray | None:
        split, preparation = self._split, self._preparation
        if draw is None:
            return of_split(split, preparation.transform, slot)
        file = split.file
        if file is not None:
            return attempt(lambda: preparation.of_file(file(slot), draw))
        return attempt(lambda: preparation.of_example(split.read(slot), draw))

    def _batch(self, memory: workers.Memory, buffer: int, slots: np.ndarray) -> dict[str, np.ndarray]:
        """What a buffer holds, [b]; notes what could not be read."""
        states, images = memory.states[buffer], memory.images[buffer]
        self.unreadable.update(int(slot) for slot in slots[states == UNREADABLE])
        refuse_many(self._split, self.unreadable, self._max_unreadable)
        if jax.default_backend() == "cpu":  # whose arrays may be this very memory, which is written again
            images = images.copy()
        labels = np.where((slots >= 0).reshape(-1, *(1,) * (self._split.labels.ndim - 1)), self._split.labels[slots], 0)
        return {"image": images, "label": labels.astype(self._split.labels.dtype), "mask": states == READ}


def _content(split: Split, slot: int) -> str | bytes:
    """The path of an image's file, or what the file holds where it lies within another one."""
    assert split.file is not None
    file = split.file(slot)
    return os.fspath(file) if isinstance(file, str | os.PathLike) else file.read()


def _name(split: Split, slot: int) -> str:
    return str(split.image_names([slot])[0])


def _wait(future: Future, split: Split) -> None:
    """Waits for a worker, and raises what it raised.

    Raises:
      Starved: a signal came meanwhile; where several processes stop together, it waits on.
      RunError: a disk does not answer for too long.
    """
    if _is_done(future, PATIENCE):
        return
    what, begun = f"{split.name} images", time.monotonic()
    with waiting.limited(what, end_process=False):
        while time.monotonic() - begun < waiting.LIMIT_SECS:
            signum = interrupt.asked()
            if signum is not None and jax.process_count() == 1:
                raise interrupt.Starved(signum, f"stopped while waiting for {what}")
            if _is_done(future, PATIENCE):
                return
    raise waiting.too_long(what)


def _is_done(future: Future, seconds: float) -> bool:
    try:
        future.result(seconds)
        return True
    except NotYet:
        if future.done():  # the worker's own error
            raise
        return False
