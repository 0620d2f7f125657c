"""Ctrl-C and SIGTERM end a run at the next step, after a checkpoint; a second one ends it at once."""

import signal
import threading
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


@contextmanager
def deferred():
    """Yields a Flag that the first SIGINT or SIGTERM sets instead of raising. Only the main thread gets signals."""
    flag = Flag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def remember(signum, frame):
        if flag.signum is not None:
            raise KeyboardInterrupt
        flag.signum = signum

    before = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
