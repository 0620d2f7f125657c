"""Ctrl-C and SIGTERM end a run at the next step, after a checkpoint; a second Ctrl-C ends it at once.

SIGTERM is how SLURM, Kubernetes and a machine that shuts down (a preempted TPU or spot VM among them) tell a process
that its time is over. SIGUSR1, which `sbatch --signal=USR1@120` sends some time before the end, is taken as SIGTERM.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """A run was asked to stop and has saved its state; `exit_code` is 130 (Ctrl-C) or 143 (SIGTERM)."""

    def __init__(self, signum: int, message: str):
        """`message` says where the run stands."""
        super().__init__(message)
        self.exit_code = 128 + signum


class Flag:
    """`signum` is the signal that came, or None."""

    signum: int | None = None


MEANING: dict[int, int] = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    MEANING[signal.SIGUSR1] = signal.SIGTERM

before_leaving: list[Callable[[], None]] = []  # called by `leave`
owns_the_process = False  # set by the command line: then a signal may end the process from within a compilation
_nothing_to_save: str | None = None  # what to say then


def leave(code: int) -> None:
    """Ends the process without an orderly end of the interpreter, which might wait for others or for a compilation."""
    for call in before_leaving:
        call()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def at_once(message: str) -> Iterator[None]:
    """Within it nothing is to be saved, so that a signal ends a process that is our own at once, with `message`.

    A compilation runs for minutes outside of Python, where handlers of signals do not get their turn.
    """
    global _nothing_to_save
    _nothing_to_save = message
    try:
        yield
    finally:
        _nothing_to_save = None


@contextmanager
def deferred() -> Iterator[Flag]:
    """Yields a Flag that the first signal of MEANING sets instead of raising. Only the main thread gets signals."""
    flag = Flag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def remember(signum, frame):
        if flag.signum is None:
            flag.signum = MEANING[signum]
        elif signum == signal.SIGINT:  # schedulers repeat theirs: that must not break off the save
            raise KeyboardInterrupt

    before = {s: signal.signal(s, remember) for s in MEANING}
    try:
        with _watched():
            yield flag
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def _watched() -> Iterator[None]:
    """A thread learns of signals through a socket, which the system's own handler writes to, whatever Python does."""
    if not owns_the_process:
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def watch() -> None:
        while received := ours.recv(1):
            message = _nothing_to_save
            if message is not None and received[0] in MEANING:
                print(message, file=sys.stderr, flush=True)
                leave(128 + MEANING[received[0]])

    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()  # ends the thread
        watcher.join()
        ours.close()
