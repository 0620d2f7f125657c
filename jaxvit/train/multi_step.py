"""How many training steps go to the device at once: several in one program where launching them would cost most."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxvit.build import parts
from jaxvit.config.default import Config
from jaxvit.data.pipeline import Resident, gather
from jaxvit.errors import UserError
from jaxvit.models.macs import count_macs
from jaxvit.runtime.platform import platform

SHORT = 2e12  # FLOPs: a step of more keeps the device busy for longer than its launches take
LONG = 32e12  # FLOPs of a dispatch: metrics and signals wait for its end
MOST = 32  # steps of one
SMALL = 64 * 64  # pixels of images that are evaluated
EVALUATED = 1024  # of those at once, where there are as many
WORTHWHILE = 8  # steps; fewer are not taken for the sake of dividing an epoch


def steps_per_dispatch(config: Config, feed: Any, steps_per_epoch: int) -> int:
    """The config's number, or what suits the device: 1 on a CPU, where nothing is gained, and for long steps.

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
    if not able or config.fast_dev_run or platform() == "cpu":
        return 1
    flops = flops_per_step(config)
    if flops > SHORT:
        return 1
    most = min(MOST, int(LONG // flops))
    # where they divide the epoch no second program is compiled
    dividing = [n for n in range(WORTHWHILE, most + 1) if steps_per_epoch % n == 0]
    return max(1, dividing[-1] if dividing else min(most, steps_per_epoch))


def flops_per_step(config: Config) -> float:
    """FLOPs of a training step, about: forward, and twice as many backward; all of it twice with SAM."""
    size = (*config.data.image_size, config.model.in_channels)
    forward = 2 * count_macs(parts.make_model(config), size) * config.batch_size
    return 3 * forward * (2 if config.optim.sam.rho else 1)


def eval_batch_size(config: Config, batch_size: int, feeds: Mapping[str, Any]) -> int:
    """Images that are evaluated at once: small ones on a GPU or TPU are more than a step trains on."""
    height, width = config.data.image_size
    if platform() == "cpu" or height * width > SMALL:
        return batch_size
    held_out = max(len(feed) for name, feed in feeds.items() if name != "train" or len(feeds) == 1)
    return max(batch_size, min(EVALUATED, held_out))


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
