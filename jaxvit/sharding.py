"""Where arrays live: one mesh of devices with the axis "data"; batches are split over it, the state is replicated."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvit.errors import UserError


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh over the first `num_devices` devices (None: all). Raises UserError when there are fewer."""
    devices = jax.devices()
    if num_devices is not None:
        if num_devices > len(devices):
            raise UserError(f"parallel.num_devices is {num_devices}; this machine has {len(devices)}")
        devices = devices[:num_devices]
    return Mesh(np.asarray(devices), ("data",))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, accum_steps: int, mesh: Mesh) -> None:
    """Raises UserError when a micro-batch does not divide over the devices."""
    if (batch_size // accum_steps) % mesh.size:
        raise UserError(
            f"a micro-batch of {batch_size // accum_steps} images does not divide over {mesh.size} devices; "
            f"expected a batch_size that is a multiple of {mesh.size * accum_steps}, or parallel.num_devices=1"
        )
