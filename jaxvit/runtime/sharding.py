"""Where arrays live: a mesh of devices with the axes "data", "fsdp" and "tensor".

A batch is split over data and fsdp; the state is replicated over data and split over fsdp and tensor by the rules of
the model's family (`state_shardings`). The mesh may span several processes: `put` and `fetch` cross between a process
and the mesh.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvit import tree
from jaxvit.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
MAPPED = "data"  # the axis of a mapped step ("pmap")

# Pattern of paths -> axis for each dimension; the first match holds where the shape divides, and the same names end
# the paths of an optimiser's moments and of the average. Every other leaf is cut along its longest dimension that
# divides by fsdp.
Rules = Sequence[tuple[str, tuple[str | None, ...]]]
SMALLEST = 4096  # scalars; what is smaller stays whole on every device: sending it costs more than keeping it


def make_mesh(
    num_devices: int | None = None, *, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
    """Returns a mesh over the first `num_devices` devices (None: all) of `devices` (None: those of all processes).

    Raises:
      UserError: there are fewer, they do not divide into groups of fsdp * tensor, or some process would have none.
    """
    devices = list(jax.devices() if devices is None else devices)
    count = len(devices) if num_devices is None else num_devices
    if count > len(devices):
        raise UserError(f"parallel.num_devices is {count}; there are {len(devices)}")
    if count % (fsdp * tensor):
        raise UserError(
            f"{count} devices do not divide into groups of parallel.fsdp {fsdp} x parallel.tensor {tensor}; "
            f"expected a multiple of {fsdp * tensor}"
        )
    if count < len(devices) and len({d.process_index for d in devices}) > 1:
        raise UserError(f"parallel.num_devices is {count}; several processes use all of their {len(devices)} devices")
    grid = mesh_utils.create_device_mesh((count // (fsdp * tensor), fsdp, tensor), devices[:count])
    return Mesh(grid, AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_parts(mesh: Mesh) -> int:
    """In how many parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def check_batch_size(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Raises UserError when a micro-batch, one of `parts`, does not divide over the devices."""
    split = batch_parts(mesh)
    if (batch_size // parts) % split:
        raise UserError(
            f"a micro-batch of {batch_size // parts} images does not divide over {split} devices; "
            f"expected a batch_size that is a multiple of {split * parts}, or another parallel.num_devices"
        )


def most_devices(micro_batch: int, available: int, *, fsdp: int = 1, tensor: int = 1) -> int:
    """Returns the greatest number of devices that form whole groups and that a micro-batch divides over.

    Raises:
      UserError: there is no such number.
    """
    group = fsdp * tensor
    fits = [n for n in range(group, available + 1, group) if micro_batch % (n // tensor) == 0]
    if not fits:
        raise UserError(
            f"parallel.fsdp {fsdp} x parallel.tensor {tensor} needs {group} devices and micro-batches that divide by "
            f"{fsdp}; devices: {available}, images: {micro_batch}"
        )
    return fits[-1]


def spec_of(path: str, shape: Sequence[int], mesh: Mesh, rules: Rules = ()) -> PartitionSpec:
    """Returns how a leaf of the state is split, by the rules of its family (`models.family.Family.sharding`)."""
    if math.prod(shape) < SMALLEST:
        return PartitionSpec()
    for pattern, axes in rules:
        if len(axes) == len(shape) and re.search(pattern, path):
            if all(n % mesh.shape[axis] == 0 for n, axis in zip(shape, axes, strict=True) if axis):
                return PartitionSpec(*(axis if axis and mesh.shape[axis] > 1 else None for axis in axes))
            break
    fsdp = mesh.shape["fsdp"]
    fits = [i for i, n in enumerate(shape) if n % fsdp == 0]
    if fsdp == 1 or not fits:
        return PartitionSpec()
    longest = max(fits, key=lambda i: shape[i])
    return PartitionSpec(*("fsdp" if i == longest else None for i in range(longest + 1)))


def state_shardings(state: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """Returns a tree of NamedShardings for a state, or for its shapes."""
    return tree.map_with_path(lambda path, leaf: NamedSharding(mesh, spec_of(path, leaf.shape, mesh, rules)), state)


def bytes_per_device(state: Any, shardings: Any) -> int:
    """Returns what one device holds of a state (arrays or shapes) placed by `shardings`; the parts are equal."""

    def size(leaf: Any, sharding: NamedSharding) -> int:
        return math.prod(sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize

    return sum(jax.tree.leaves(jax.tree.map(size, state, shardings)))


def put(values: Any, shardings: Any) -> Any:
    """Places arrays that every process has whole; each device takes its part of its own process's copy."""

    def place(value: Any, sharding: Any) -> Any:
        if sharding is None or sharding.is_fully_addressable:
            return jax.device_put(value, sharding)
        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    if shardings is None or isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda value: place(value, shardings), values)
    return jax.tree.map(place, values, shardings)


def put_rows(batch: Any, sharding: NamedSharding | None, num_rows: int) -> Any:
    """Places a batch of `num_rows` rows of which this process has its own, `local_rows`."""
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x, (num_rows, *x.shape[1:])), batch)


def fetch(values: Any) -> Any:
    """Returns arrays as numpy, whole, in every process; all processes call it at the same point."""

    def whole(value: Any) -> Any:
        if not isinstance(value, jax.Array) or value.is_fully_addressable or value.is_fully_replicated:
            return value
        mesh: Any = value.sharding
        return jax.jit(lambda x: x, out_shardings=replicated(mesh.mesh))(value)

    return jax.device_get(jax.tree.map(whole, values))


def map_over_devices(step: Any, mesh: Mesh) -> Any:
    """Returns (state, batch, teacher) -> (state, metrics) that runs `step` once per device, on its part of the batch.

    What `jax.pmap` does and, in recent versions, is: a jitted `shard_map`. Here without pmap's additional device axis
    on every array, so that the state is the same as without mapping. `step` must return the same on every device.
    """
    whole = PartitionSpec()
    return jax.shard_map(
        step, mesh=mesh, in_specs=(whole, PartitionSpec(MAPPED), whole), out_specs=whole, check_vma=False
    )


def dealt(order: np.ndarray, batch_size: int, mesh: Mesh) -> np.ndarray:
    """Returns the order with each batch dealt to the devices like cards: the i-th of n gets examples i, i + n, ...

    So a device of a mapped step has the examples that `gradients.accumulated` takes as one of n parts.
    """
    n = batch_parts(mesh)
    return order.reshape(-1, batch_size // n, n).swapaxes(1, 2).ravel()


def local_rows(sharding: NamedSharding, num_rows: int) -> np.ndarray:
    """Returns the rows of a batch of `num_rows` that this process's devices hold, in order."""
    parts = sharding.addressable_devices_indices_map((num_rows,)).values()
    return np.unique(np.concatenate([np.arange(num_rows)[index] for index in parts]))
