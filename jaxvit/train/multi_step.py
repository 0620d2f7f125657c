"""How many training steps go to the device at once: several in one program where launching them would cost most."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxvit.config.default import Config
from jaxvit.data.pipeline import Resident, gather
from jaxvit.errors import UserError
from jaxvit.runtime.platform import platform

SMALL = 64 * 64  # pixels: larger images keep the device busy for longer than a launch takes
MOST = 32  # steps; metrics and signals wait for the end of a dispatch
WORTHWHILE = 8  # steps; fewer are not taken for the sake of dividing an epoch


def steps_per_dispatch(config: Config, feed: Any, steps_per_epoch: int) -> int:
    """The config's number, or what suits the device: 1 on a CPU, where nothing is gained, and for large images.

    Raises UserError where several were asked for and the data are not on the device.
    """
    wanted = config.steps_per_dispatch
    able = isinstance(feed, Resident) and config.parallel.mode == "jit"
    if wanted is not None:
        if wanted > 1 and not able:
            needs = (
                "images on the device, parallel.mode=jit and no teacher whose answers are kept (one without augment.*)"
            )
            raise UserError(f"steps_per_dispatch {wanted} needs {needs}")
        return wanted
    height, width = config.data.image_size
    if not able or config.fast_dev_run or platform() == "cpu" or height * width > SMALL:
        return 1
    dividing = [
        n for n in range(WORTHWHILE, MOST + 1) if steps_per_epoch % n == 0
    ]  # then no second program is compiled
    return max(1, dividing[-1] if dividing else min(MOST, steps_per_epoch))


def make_many(step: Callable, sharding: Any) -> Callable:
    """Returns (state, data, slots int32 [n, b], teacher) -> (state, metrics [n] each): `step` n times in one program.

    `data` are a resident feed's arrays. On a CPU the loop is unrolled: convolutions in a rolled one crawl there.
    """

    def many(state: Any, data: Any, slots: jax.Array, teacher: Any = None) -> tuple[Any, dict[str, jax.Array]]:
        def one(state: Any, slots: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
            return step(state, gather(*data, slots, out=sharding), teacher)

        unroll = len(slots) if platform() == "cpu" else 1
        return jax.lax.scan(one, state, slots, unroll=unroll)

    return many


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
