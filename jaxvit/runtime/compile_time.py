"""How long this process has compiled, by JAX's own clocks: traced, lowered, and compiled or read from the cache."""

import threading
import time
from typing import Any

_PREFIX = "/jax/core/compile/"
_lock = threading.Lock()
_spans: list[tuple[float, float]] = []  # (begin, seconds), none within another
_listening = False


def seconds() -> float:
    """Seconds since the first call, which begins to count. What is compiled within another program counts once."""
    global _listening
    with _lock:
        if not _listening:
            import jax

            jax.monitoring.register_event_duration_secs_listener(_count)
            _listening = True
        return sum(length for _, length in _spans)


def _count(event: str, duration_secs: float, **kwargs: Any) -> None:
    del kwargs
    if not event.startswith(_PREFIX):
        return
    begin = time.monotonic() - duration_secs
    with _lock:
        while _spans and _spans[-1][0] >= begin:  # it is part of this one
            _spans.pop()
        _spans.append((begin, duration_secs))
