"""A directory with two complete checkpoints, and what reads it."""

from pathlib import Path

import jax.numpy as jnp

from jaxvit.workdir.checkpoint import Checkpoints


def tree(value):
    """A state whose arrays tell which it is."""
    return {"params": {"a": {"kernel": jnp.full((4, 3), value, jnp.float32)}}, "step": jnp.int32(value)}


def save_two(directory: Path) -> Path:
    """Saves the steps 1 and 2."""
    checkpoints = Checkpoints(directory)
    for step in (1, 2):
        checkpoints.save("last", step, tree(step), {"seconds": 0.1 * step})
    checkpoints.close()
    return directory


def restore(directory: Path, *, read_only: bool = False):
    """The newest intact state and its record."""
    checkpoints = Checkpoints(directory, read_only=read_only)
    try:
        return checkpoints.restore("last", tree(0))
    finally:
        checkpoints.close()


def files(directory: Path, step: int) -> list[Path]:
    """The files of a step that hold something."""
    return sorted(p for p in (directory / "last" / str(step)).rglob("*") if p.is_file() and p.stat().st_size)
