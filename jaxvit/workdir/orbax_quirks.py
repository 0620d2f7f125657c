"""What orbax needs from us to save in the background and to fail in silence: its own errors are told in two lines."""

import gc
import sys
import warnings
from contextlib import contextmanager
from typing import Any

import orbax.checkpoint as ocp


def saver(kind: str) -> ocp.AsyncCheckpointer:
    """Returns what saves in the background; `kind` keeps the barriers of several processes apart."""
    options = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind)
    return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), multiprocessing_options=options)


def ignore_closed_loops() -> None:
    """When a save or a restore fails, TensorStore's threads still call on the event loop that orbax has closed."""
    before = sys.unraisablehook
    if getattr(before, "ignores_closed_loops", False):
        return

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    hook.ignores_closed_loops = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


@contextmanager
def silence():
    """Orbax leaves coroutines behind when a restore fails, of which Python complains once they are collected."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*never awaited", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=ResourceWarning)
        try:
            yield
        except BaseException:
            gc.collect()
            raise
        finally:
            sys.unraisablehook = hook
