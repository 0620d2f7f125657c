"""Which images batches are made of; where classes differ in size, drawn with replacement, rare classes more often."""

import math

import numpy as np

from jaxvit.errors import UserError

POWERS = {"balanced": 0.0, "sqrt": 0.5}  # data.sampling -> a class is drawn as often as its size to this power


def class_shares(counts: np.ndarray, sampling: str | None) -> np.ndarray:
    """The share of each class in an epoch, float64 [k], from its training images [k]; one without images has none."""
    counts = np.asarray(counts, np.float64)
    drawn = counts if sampling is None else np.where(counts > 0, counts ** POWERS[sampling], 0.0)
    return drawn / drawn.sum()


def draw_images(labels: np.ndarray, sampling: str, seed: int, epoch: int) -> np.ndarray:
    """Returns as many images of an epoch as there are labels [n], positions int64 [n], from (seed, epoch) alone.

    Each draw takes a class by its share and an image of it, all alike. Raw 64-bit draws, as of `splits.shuffled`.
    """
    counts = np.bincount(labels)
    chances = (class_shares(counts, sampling) / np.maximum(counts, 1))[labels]
    ends = np.cumsum(chances)
    bits = np.random.PCG64(np.random.SeedSequence([int(seed) % 2**64, int(epoch), 4])).random_raw(len(labels))
    return np.searchsorted(ends, (bits >> np.uint64(11)) * 2.0**-53 * ends[-1], side="right")


def num_batches(n: int, batch_size: int, *, pad: bool) -> int:
    """Returns how many batches `n` examples give: the last partial one is padded, or dropped."""
    return math.ceil(n / batch_size) if pad else n // batch_size


def slots_of(order: np.ndarray, batch_size: int, start: int, pad: bool) -> np.ndarray:
    """Returns positions [batches, batch_size] from batch `start` on; -1 marks padding."""
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected a whole number of at least 1.")
    count = num_batches(len(order), batch_size, pad=pad)
    slots = np.full(count * batch_size, -1, np.int32)
    used = min(len(order), len(slots))
    slots[:used] = order[:used]
    return slots.reshape(count, batch_size)[start:]
