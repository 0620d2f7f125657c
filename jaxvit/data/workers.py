"""Threads that read images for the feeds, each with a process of its own where that is asked for.

Threads suffice where decoders release the interpreter lock for most of an image. A process has its own lock; what it
decodes lies in memory that both share, so that only paths and a byte per image go through a pipe. Processes are started
anew and not forked, which JAX with its threads would not survive, and they import no JAX.
"""

import atexit
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection

import numpy as np

from jaxvit.data.rows import WAITING, Preparation, Row
from jaxvit.data.worker import GONE, Layout, Task, Work
from jaxvit.errors import RunError, UserError
from jaxvit.runtime.interrupt import MEANING

LEAVING = 1.0  # seconds that images have which are being read when the program ends
LAST = 5.0  # seconds that a process has for its last images
SUPPORTED = hasattr(socket, "send_fds")  # processes; not on Windows
MOST = 16  # processes, where nobody has said how many: a container may have fewer cores than it sees
CHUNK = 16  # images of a task, at most
# glibc gives memory back to the system after each image and asks for it again: a fifth of a worker's time
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**26), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
START = "import sys; sys.path[:] = {path!r}; from jaxvit.data.worker import main; main({descriptor})"

_threads: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()
_pools: "weakref.WeakValueDictionary[tuple[bool, int], Pool]" = weakref.WeakValueDictionary()


class Memory:
    """The batches of a feed in the making; without a name in the file system, so that nothing can be left behind."""

    def __init__(self, layout: Layout):
        """Takes the memory that `layout` asks for."""
        self.layout = layout
        self._file = _nameless(layout.num_bytes)
        weakref.finalize(self, os.close, self._file)
        views = layout.views(mmap.mmap(self._file, layout.num_bytes))
        self.images, self.states = [images for images, _ in views], [states for _, states in views]

    def fileno(self) -> int:
        return self._file


def _nameless(num_bytes: int) -> int:
    """A file in memory, by its descriptor."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("jaxvit")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, num_bytes)
    return file


class Process:
    """A process that decodes images (`data.worker`), for one thread of ours."""

    def __init__(self):
        """Starts it without waiting for it."""
        ours, theirs = socket.socketpair()
        with theirs:
            # the child has our mask of signals from its first moment
            before = signal.pthread_sigmask(signal.SIG_BLOCK, MEANING)
            try:
                start = START.format(path=[path or os.getcwd() for path in sys.path], descriptor=theirs.fileno())
                self._child = subprocess.Popen(
                    [sys.executable, "-c", start],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **KEEP_MEMORY},
                )
            except OSError:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._control, self._link = ours, Connection(os.dup(ours.fileno()))
        self._memory: Memory | None = None
        self.pid = self._child.pid

    def fill(self, preparation: Preparation, memory: Memory, task: Task, name: Callable[[int], str]) -> None:
        """Has the rows of a task decoded into `memory`; `name` is that of a row's image, for messages.

        Raises:
          RunError: the process has ended.
        """
        try:
            if self._memory is not memory:
                self._link.send(Work(preparation, memory.layout))
                socket.send_fds(self._control, [b"."], [memory.fileno()])
                self._memory = memory
            self._link.send(task)
            failed = self._link.recv()
        except (*GONE, OSError):
            raise self._ended(memory.states[task.batch], task.rows, name) from None
        if failed is not None:
            raise failed.error()

    def _ended(self, states: np.ndarray, rows: Sequence[Row], name: Callable[[int], str]) -> RunError:
        code = self.close()
        at = next((name(k) for k, *_ in rows if states[k] == WAITING), name(rows[-1][0]))
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        what_now = f"look at that file; data.workers=threads needs no processes{RESUMES}"
        if code == -signal.SIGKILL:
            what_now = f"the system may be out of memory: a smaller data.num_workers needs less{RESUMES}"
        return RunError(f"process {self.pid}, which reads images, {how} at {at}\n{what_now}")

    def close(self) -> int:
        """Ends the process, when it has done its task or after LAST seconds; returns its exit code."""
        self._link.close()
        self._control.close()
        try:
            return self._child.wait(LAST)
        except subprocess.TimeoutExpired:  # the disk that it reads from does not answer
            self._child.kill()
            return self._child.wait()


RESUMES = "; the same command resumes"


class Pool:
    """`count` threads that work through tasks in their order; they end when nobody holds the pool any more."""

    def __init__(self, count: int, *, processes: bool = False):
        """With `processes`, each thread passes its process to the tasks, else None."""
        self._tasks, stop = queue.SimpleQueue(), threading.Event()
        for i in range(count):
            args, name = (self._tasks, stop, processes), f"reads-images-{i}"
            thread = threading.Thread(target=_serve, args=args, name=name, daemon=True)
            _threads.add(thread)
            thread.start()
        self.close = weakref.finalize(self, _end, self._tasks, stop, count)

    def submit(self, task: Callable[[Process | None], None]) -> Future:
        """The task's end, or its exception."""
        future: Future = Future()
        self._tasks.put((future, task))
        return future


def _serve(tasks: queue.SimpleQueue, stop: threading.Event, processes: bool) -> None:
    process = None
    while True:
        refused: RunError | None = None
        if process is None and processes:
            try:
                process = Process()  # before there is work: it takes a second
            except OSError as error:  # no memory, or a limit on processes or open files
                refused = _not_started(error)
        item = tasks.get()
        if stop.is_set():
            break
        future, task = item
        if not future.set_running_or_notify_cancel():
            continue
        try:
            if refused is not None:
                raise refused
            task(process)
            future.set_result(None)
        except RunError as error:  # the process is gone; the next task may have a new one
            process = None
            future.set_exception(error)
        except BaseException as error:
            future.set_exception(error)
        del item, future, task, refused
    if process is not None:
        process.close()


def _not_started(error: OSError) -> RunError:
    return RunError(
        f"a process that reads images cannot be started: {error.strerror}\n"
        f"a smaller data.num_workers needs fewer, data.workers=threads none{RESUMES}"
    )


def _end(tasks: queue.SimpleQueue, stop: threading.Event, count: int) -> None:
    stop.set()
    for _ in range(count):
        tasks.put(None)


@atexit.register
def _leave() -> None:
    """Waits for images that are being read: Python's end would abort the process from within a decoder."""
    for pool in list(_pools.values()):
        pool.close()
    end = time.monotonic() + LEAVING
    for thread in list(_threads):
        thread.join(max(end - time.monotonic(), 0.0))


def shared(count: int, *, processes: bool) -> Pool:
    """The pool of this size, which all feeds use. Raises UserError on systems that do not support such processes."""
    if processes and not SUPPORTED:
        raise UserError("data.workers is processes, which this system does not support; expected threads")
    pool = _pools.get((processes, count))
    if pool is None:
        pool = _pools[processes, count] = Pool(count, processes=processes)
    return pool
