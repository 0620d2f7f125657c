"""Ctrl-C and SIGTERM end a run at the next step, after a checkpoint; a second Ctrl-C ends it at once.

SIGTERM is how SLURM, Kubernetes and a machine that shuts down (a preempted TPU or spot VM among them) tell a process
that its time is over. SIGUSR1, which `sbatch --signal=USR1@120` sends some time before the end, is taken as SIGTERM;
so are SIGHUP, of a terminal that was closed, and SIGXCPU, of a limit on processor time.
"""

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn


class Interrupted(Exception):
    """A run was asked to stop and has saved its state; `exit_code` is 130 (Ctrl-C) or 143 (SIGTERM and its like)."""

    def __init__(self, signum: int, message: str):
        """`message` says where the run stands."""
        super().__init__(message)
        self.exit_code = 128 + signum


class Starved(Interrupted):
    """A run was asked to stop while it waited for images, and has yet to save its state."""


class Flag:
    """`signum` is the signal that came, or None."""

    signum: int | None = None


MEANING: dict[int, int] = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM}
for _name in ("SIGUSR1", "SIGHUP", "SIGXCPU"):  # not on Windows
    if hasattr(signal, _name):
        MEANING[getattr(signal, _name)] = signal.SIGTERM

SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar has hidden

before_leaving: list[Callable[[], None]] = []  # called by `leave`
owns_the_process = False  # within `owned`: then a signal may end the process from within a compilation
_nothing_to_save: str | None = None  # what to say then
_came: int | None = None  # the meaning of a signal that has come and has not ended the process
_deferred: Flag | None = None  # of the `deferred` that is open


def leave(code: int) -> NoReturn:
    """Ends the process without an orderly end of the interpreter, which might wait for others or for a compilation."""
    for call in before_leaving:
        call()
    flusher = threading.Thread(target=_flush, daemon=True)  # a pipe that is full and is not read takes nothing
    flusher.start()
    flusher.join(2.0)
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _say(message: str) -> None:
    """A last line, past all buffers, if the console takes it at once."""
    text = (SHOW_CURSOR if os.isatty(2) else b"") + f"{message}\n".encode()
    with suppress(OSError, ValueError):
        if select.select([], [2], [], 1.0)[1]:
            os.write(2, text)


def nothing_to_save(message: str) -> None:
    """From now on a signal ends a process that is our own at once, with `message`; so does one that came just before.

    A compilation runs for minutes outside of Python, where handlers of signals do not get their turn, and an import
    may lose a KeyboardInterrupt.
    """
    global _nothing_to_save
    _nothing_to_save = message
    if owns_the_process and _came is not None:
        _end(_came)


def something_to_save() -> None:
    """From now on a signal sets the flag of `deferred`, or acts as it does without us."""
    global _nothing_to_save
    _nothing_to_save = None


def _end(signum: int) -> NoReturn:
    _say(_nothing_to_save or "stopped")
    leave(128 + signum)


@contextmanager
def owned(message: str) -> Iterator[None]:
    """Makes the process our own, for the command line: until `something_to_save` signals end it, with `message`.

    Where it is our own already, only the message is a new one.
    """
    global owns_the_process, _came
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if owns_the_process:
        nothing_to_save(message)
        yield
        return
    owns_the_process, _came = True, None
    try:
        with _handling(_as_usual), _watched():
            nothing_to_save(message)
            yield
    finally:
        owns_the_process = False
        something_to_save()


def _as_usual(signum: int, frame: Any) -> None:
    if _nothing_to_save is not None:  # the thread that watches is at it; an exception within an import may abort
        return
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    _end(MEANING[signum])


@contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Calls `handler` for the signals of MEANING; a hang-up that `nohup` has switched off stays so."""
    hang_up = getattr(signal, "SIGHUP", None)
    ignored = hang_up is not None and signal.getsignal(hang_up) == signal.SIG_IGN
    before = {s: signal.signal(s, handler) for s in MEANING if not (ignored and s == hang_up)}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, signal.SIG_DFL if old is None else old)  # None: not of Python


@contextmanager
def deferred() -> Iterator[Flag]:
    """Yields a Flag that the first signal of MEANING sets instead of raising. Only the main thread gets signals."""
    global _deferred
    flag = Flag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def remember(signum, frame):
        if flag.signum is None:
            flag.signum = MEANING[signum]
        elif signum == signal.SIGINT:  # schedulers repeat theirs: that must not break off the save
            raise KeyboardInterrupt

    before, _deferred = _deferred, flag
    try:
        with _handling(remember):
            yield flag
    finally:
        _deferred = before


def asked() -> int | None:
    """The meaning of a signal that `deferred` has remembered, for those who wait for something that may never come."""
    return None if _deferred is None else _deferred.signum


@contextmanager
def _watched() -> Iterator[None]:
    """A thread learns of signals through a socket, which the system's own handler writes to, whatever Python does."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def watch() -> None:
        global _came
        while received := ours.recv(1):
            if received[0] in MEANING:
                _came = MEANING[received[0]]  # before the look: `nothing_to_save` looks the other way round
                if _nothing_to_save is not None:
                    _end(_came)

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
