"""Timing of compiled programs: repeats of many calls, the median and the spread."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

WARM_CALLS = 2


class Timing(NamedTuple):
    """Seconds per call: median, least and most over `repeats` repeats of `calls` calls each."""

    median: float
    least: float
    most: float
    repeats: int
    calls: int

    @property
    def spread(self) -> float:
        """(most - least) / median."""
        return (self.most - self.least) / self.median

    def rate(self, units: int) -> dict[str, float]:
        """Units per second: the median and its range."""
        return {"median": units / self.median, "least": units / self.most, "most": units / self.least}


def timed(call: Callable[[Any], Any], carry: Any, *, repeats: int = 5, seconds: float = 2.0) -> tuple[Timing, Any]:
    """Times `carry = call(carry)`: calls are queued, and each repeat waits once, for its last one.

    Args:
      call: a compiled program; it may donate what it is given.
      carry: what goes into the first call.
      repeats: how often the clock is read.
      seconds: about what all repeats take together; a slow call is made once a repeat all the same.

    Returns:
      The timing, and the last call's result.
    """
    for _ in range(WARM_CALLS):
        carry = jax.block_until_ready(call(carry))
    begun = time.perf_counter()
    carry = jax.block_until_ready(call(carry))
    once = time.perf_counter() - begun
    calls = max(1, round(seconds / repeats / max(once, 1e-7)))
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        for _ in range(calls):
            carry = call(carry)
        jax.block_until_ready(carry)
        found.append((time.perf_counter() - begun) / calls)
    return Timing(statistics.median(found), min(found), max(found), repeats, calls), carry
