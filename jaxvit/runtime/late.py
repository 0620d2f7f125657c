"""Results of a device, fetched one step late: the host waits for what is done, not for what it has just asked for."""

from collections.abc import Iterable, Iterator
from typing import Any

from jaxvit.runtime import sharding


class Late:
    """Holds the results of the step that was dispatched last."""

    def __init__(self):
        """Holds nothing."""
        self._waiting: list[Any] = []

    def put(self, results: Any) -> list[Any]:
        """Takes the results of a step that was just dispatched; returns those of the step before, as numpy, if any."""
        before, self._waiting = self._waiting, [results]
        return [sharding.fetch(found) for found in before]

    def rest(self) -> list[Any]:
        """Returns what is left, as numpy; the device has nothing to do meanwhile."""
        before, self._waiting = self._waiting, []
        return [sharding.fetch(found) for found in before]


def fetched(results: Iterable[Any]) -> Iterator[Any]:
    """Yields results as numpy; each is fetched when the next has been dispatched."""
    late = Late()
    for found in results:
        yield from late.put(found)
    yield from late.rest()
