"""A streamed split whose crops change their size with the epoch: a feed for each size."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxvit.data.crops import Draws


class BySize:
    """As `Streamed`; its batches are those of the feed whose epochs the draws are of.

    Without draws they are those of the first feed, whose transform all have in common.
    """

    def __init__(self, feeds: Sequence[tuple[int, Any]]):
        """`feeds` are (first epoch, counted from 0, feed), in order; a feed may stand there more than once."""
        self._feeds = list(feeds)
        first = self._feeds[0][1]
        self.kind, self.image_shape = first.kind, first.image_shape

    def __len__(self) -> int:
        return len(self._feeds[0][1])

    @property
    def unreadable(self) -> set[int]:
        """The examples that could not be read, at any size."""
        return set().union(*(feed.unreadable for _, feed in self._feeds))

    def batches(
        self, order: np.ndarray, batch_size: int, *, start: int = 0, pad: bool = False, draws: Draws | None = None
    ) -> Iterator[Any]:
        """Yields the batches of `Streamed.batches` at the size of the draws' epoch."""
        epoch = 0 if draws is None else draws.epoch
        feed = [feed for first, feed in self._feeds if first <= epoch][-1]
        return feed.batches(order, batch_size, start=start, pad=pad, draws=draws)
