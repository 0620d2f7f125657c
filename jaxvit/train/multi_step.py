"""How the steps of an epoch go to the device: one at a time, or several in one program."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def plan(first: int, last: int, most: int, every: int | None, kind_at: Callable[[int], bool]) -> Iterator[int]:
    """Yields how many steps each dispatch takes from step `first` to `last`: `most`, or 1 where that does not fit.

    A dispatch crosses no multiple of `every` (checkpoints) and mixes no kinds of step; with two sizes, two programs
    are all that is compiled.
    """
    step = first
    while step < last:
        room = min(last - step, every - step % every if every else last)
        alike = room >= most and len({kind_at(s) for s in range(step, step + most)}) == 1
        taken = most if alike else 1
        yield taken
        step += taken


def batches(feed: Any, order: np.ndarray, batch_size: int, start: int, counts: Iterator[int]) -> Iterator[tuple]:
    """Yields (number of steps, batch or slots [n, b]) for each dispatch, from batch `start` of the order on."""
    slots = feed.slots(order, batch_size, start=start)
    at = 0
    for count in counts:
        yield count, feed.place(slots[at : at + count]) if count > 1 else feed.batch(slots[at])
        at += count
