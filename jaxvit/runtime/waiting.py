"""Waits that end: for calls into a library that hang when a disk or its server does not answer."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from jaxvit.errors import RunError
from jaxvit.runtime import interrupt
from jaxvit.runtime.console import duration, warn

NOTICE_SECS = 60.0  # after which, and every so often, a line says what is waited for
LIMIT_SECS = 1800.0  # a large state takes minutes to a slow network disk, but not half an hour

stuck = False  # whether a wait was given up: then what it waited for would hold up the end of the process too


def begin(call: Callable[..., Any], *args: Any) -> Future:
    """Runs `call(*args)` in a separate thread, for which the process does not wait at its end."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def result(future: Future, what: str) -> Any:
    """Returns what the call of `begin` returns, or raises what it raises.

    Raises:
      RunError: LIMIT_SECS have passed.
    """
    with limited(what, end_process=False):
        try:
            return future.result(LIMIT_SECS)
        except NotYet:
            if future.done():  # the call's own error
                raise
            global stuck
            stuck = True
            raise too_long(what) from None


@contextlib.contextmanager
def limited(what: str, *, end_process: bool = True) -> Iterator[None]:
    """Says each NOTICE_SECS that `what` is still running; after LIMIT_SECS ends a process that is our own, with code 1.

    For calls that have to be made in the calling thread, from which nothing can bring them back.
    """
    done = threading.Event()

    def watch() -> None:
        waited = 0.0
        while not done.wait(min(NOTICE_SECS, LIMIT_SECS - waited)):
            waited += min(NOTICE_SECS, LIMIT_SECS - waited)
            if waited < LIMIT_SECS:
                warn(f"{what}: no answer from the disk for {duration(waited)}")
                continue
            if end_process and interrupt.owns_the_process:
                warn(f"error: {too_long(what)}")
                interrupt.leave(1)
            return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def too_long(what: str) -> RunError:
    """That a wait is given up."""
    return RunError(
        f"{what}: no answer from the disk for {duration(LIMIT_SECS)}\n"
        "check that the disk or its server responds; the same command then resumes"
    )
