"""Random weights of realistic scale, each seeded by its own name: the same on every machine, so nothing is stored."""

import re
import zlib
from collections.abc import Mapping

import numpy as np

from jaxvit.models.registry import FAMILIES


def branch_ends() -> tuple[str, ...]:
    """Patterns of the scales that end a residual branch, in any family."""
    return tuple(family.branch_ends for family in FAMILIES.values() if family.branch_ends)


def draw(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Draws one tensor by its timm name: norm scales near 1, biases and running statistics off their start."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    noise = rng.standard_normal(shape, dtype=np.float32)
    if leaf == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if any(re.search(end, name) for end in branch_ends()):  # damped, or deep networks overflow
        return 0.3 + 0.05 * noise
    if leaf == "weight" and len(shape) == 1:
        return 1.0 + 0.1 * noise
    if leaf == "weight":
        return noise / np.float32(np.sqrt(np.prod(shape[1:])))
    return 0.2 * noise if len(shape) > 1 else 0.1 * noise


def state_dict(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Draws a whole state dict, timm name -> tensor."""
    return {name: draw(name, tuple(shape), seed) for name, shape in shapes.items()}


def images(name: str, count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Draws normalised images [count, height, width, channels] for a case of this name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal((count, height, width, channels), dtype=np.float32)
