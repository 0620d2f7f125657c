"""A process that decodes images for a feed; `data.workers` starts it, and it ends when its parent does.

It imports no JAX: it is there within a second and takes about 30 MB of its own. Signals that ask a run to stop
do not reach it, because the run still needs it for its last steps.
"""

import contextlib
import mmap
import os
import socket
import traceback
import warnings
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from jaxvit.data.rows import Preparation, Row, fill
from jaxvit.errors import UserError

GONE = (EOFError, ConnectionError, BrokenPipeError)  # the process at the other end


class Layout(NamedTuple):
    """Where the batches of a feed lie in the memory that processes share, each followed by the states of its rows."""

    count: int  # of batches
    shape: tuple[int, int, int, int]  # of one: [b, h, w, c], uint8

    @property
    def stride(self) -> int:
        """Bytes from one batch to the next, in whole cache lines."""
        return -(-(int(np.prod(self.shape)) + self.shape[0]) // 64) * 64

    @property
    def num_bytes(self) -> int:
        return self.count * self.stride

    def views(self, memory: mmap.mmap) -> list[tuple[np.ndarray, np.ndarray]]:
        """(images uint8 [b, h, w, c], states uint8 [b]) of each batch."""
        b, size = self.shape[0], int(np.prod(self.shape))
        images = (np.frombuffer(memory, np.uint8, size, i * self.stride) for i in range(self.count))
        states = (np.frombuffer(memory, np.uint8, b, i * self.stride + size) for i in range(self.count))
        return [(image.reshape(self.shape), state) for image, state in zip(images, states, strict=True)]


class Work(NamedTuple):
    """What a feed wants of its workers; the descriptor of the memory follows it."""

    preparation: Preparation
    layout: Layout


class Task(NamedTuple):
    """Some rows of the batch number `batch`; images are paths, or what the files hold."""

    batch: int
    rows: list[Row]


class Failure(NamedTuple):
    """An exception in the other process, as text: those of libraries may not survive the way."""

    kind: str
    message: str
    place: str

    def error(self) -> Exception:
        """The exception to raise here, with its place as a note."""
        known = {"UserError": UserError, "MemoryError": MemoryError}
        kind = known.get(self.kind)
        error = RuntimeError(f"{self.kind}: {self.message}") if kind is None else kind(self.message)
        error.add_note(self.place)
        return error


def main(descriptor: int) -> None:
    """Answers each task that comes through the socket `descriptor`: None, or a Failure."""
    warnings.simplefilter("ignore")
    control = socket.socket(fileno=descriptor)
    link = Connection(os.dup(descriptor))
    preparation, views = None, []
    with contextlib.suppress(*GONE):
        while True:
            message = link.recv()
            if isinstance(message, Work):
                _, (memory, *_), *_ = socket.recv_fds(control, 1, 1)
                with os.fdopen(memory, "rb") as file:
                    mapped = mmap.mmap(file.fileno(), message.layout.num_bytes)
                preparation, views = message.preparation, message.layout.views(mapped)
                continue
            link.send(_done(preparation, views, message))
    os._exit(0)  # at once: there is nothing to write or to give back


def _done(preparation: Preparation | None, views: list, task: Task) -> Failure | None:
    try:
        assert preparation is not None
        images, states = views[task.batch]
        fill(images, states, task.rows, preparation.of_content)
    except Exception as error:
        return Failure(type(error).__name__, str(error), traceback.format_exc())
    return None
