"""The training step of a config, from shapes alone, compiled for devices that need not exist."""

import contextlib
import dataclasses
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.build import parts, recipe
from jaxvit.build.phases import read_phases
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models.macs import count_jaxpr, count_macs
from jaxvit.plan import chips, facts, gpus, teacher, traffic
from jaxvit.runtime import escape, sharding
from jaxvit.train import prepare


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of one step; bytes and FLOPs are those of one device."""

    config: Config  # resolved
    sharp: bool  # whether this is the sharpness-aware step
    devices: int
    batch_size: int
    parameters: int
    state_bytes: int  # parameters, statistics, optimiser, average
    resident_bytes: int  # data that are kept on the device
    memory_bytes: float  # arguments, results and temporaries of the step, less what they share
    fits: bool  # as far as the compiler says: it refuses programs that need too much
    forward_macs: int  # of one image
    counted_flops: float  # of the whole step on all devices: its matmuls and convolutions
    flops: float | None  # as XLA counts
    bytes_accessed: float | None  # to and from the device's memory
    collectives: dict[str, dict[str, float]]
    compile_seconds: float
    notes: tuple[str, ...] = ()


def devices_of(topology: chips.Topology) -> list[Any]:
    """Returns descriptions of the slice's devices, enough to compile for.

    Raises:
      UserError: the compiler is not installed, or does not know the slice.
    """
    if topology.is_cpu:
        return jax.devices("cpu")[: topology.chips]
    from jax.experimental import topologies

    try:
        if topology.is_gpu:
            return gpus.devices(topology)
        with _quiet():
            described = topologies.get_topology_desc(platform="tpu", topology_name=topology.name)
    except Exception as error:
        said = escape.message(error, 200)
        raise UserError(f"the compiler does not know the topology {topology.name}: {said}") from None
    return list(described.devices)


def compile_step(given: Config, known: facts.Facts, topology: chips.Topology) -> Compiled:
    """Builds the step as a run would, with shapes in place of arrays, and compiles it."""
    dataset, notes = facts.dataset(given, known), [known.note] if known.note else []
    config = parts.resolve(given, dataset)
    stored = known.shape or (*config.data.image_size, len(config.data.mean))
    sizes = [len(split) * math.prod(stored) for split in (dataset.train, dataset.val, dataset.test)]  # uint8
    kept = [size <= config.data.resident_mb * 2**20 for size in sizes]  # on the device
    taught, adviser, said = teacher.prepare(config, resident=kept[0])
    notes += [said] if said else []
    batch_size, pieces = recipe.split_batch(config, len(dataset.train))
    mesh = prepare.make_mesh(config, batch_size, pieces, devices=devices_of(topology))
    if mesh.size < topology.chips:
        notes.append(f"a batch of {batch_size} divides over {mesh.size} of the {topology.chips} devices only")
    steps_per_epoch = max(len(dataset.train) // batch_size, 1)
    schedule = recipe.make_schedule(config, steps_per_epoch)
    gradient = recipe.make_gradient(config, batch_size // mesh.size if config.parallel.mode == "pmap" else batch_size)
    model = parts.make_model(config)
    size = (*config.data.image_size, config.model.in_channels)
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *size), jnp.float32))
    if config.dtype == "float64":
        variables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float64), variables)
    phases = read_phases(config.optim.freeze, config.optim.unfreeze, config.num_epochs)
    phase = recipe.make_phases(  # the last one: most of the model trains there
        config, mesh, phases, variables, gradient=gradient, schedule=schedule, model=model,
        pixels=recipe.make_pixels(config), task=recipe.make_task(config, **taught),
    )[-1]  # fmt: skip
    state, made = phase.template, phase.train_steps
    sharp = True in made  # the larger one, where there are two
    split = sharding.batch_sharding(mesh)
    shapes = {"image": ((batch_size, *stored), jnp.uint8), "label": ((batch_size,), jnp.int32),
              "mask": ((batch_size,), jnp.bool_)}  # fmt: skip
    batch = {name: jax.ShapeDtypeStruct(shape, kind, sharding=split) for name, (shape, kind) in shapes.items()}
    if taught and adviser is None:
        answers = (batch_size, config.model.num_classes)
        batch["teacher_logits"] = jax.ShapeDtypeStruct(answers, jnp.float32, sharding=split)
    whole = sharding.replicated(mesh)
    adviser = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), adviser)
    with _described(mesh, topology):
        traced = made[sharp].trace(state, batch, adviser)
    begun = time.monotonic()
    try:
        with _quiet(), _described(mesh, topology):
            compiled = traced.lower().compile()
    except Exception as error:
        used = _used(str(error))
        if used is None:
            raise
        compiled, memory = None, used
    seconds, cost, collectives, moved = time.monotonic() - begun, {}, {}, None
    if compiled is not None:
        cost = compiled.cost_analysis() or {}
        cost = cost[0] if isinstance(cost, list) else cost
        analysis: Any = compiled.memory_analysis()
        memory = (
            analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
            - analysis.alias_size_in_bytes + analysis.generated_code_size_in_bytes
        )  # fmt: skip
        hlo = compiled.as_text() or ""
        collectives, moved = traffic.count(hlo, mesh.size), traffic.memory_bytes(hlo)
    mapped = mesh.size if config.parallel.mode == "pmap" else 1  # its inner shapes are those of one device
    return Compiled(
        config=config,
        sharp=sharp,
        devices=mesh.size,
        batch_size=batch_size,
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"])),
        state_bytes=sharding.bytes_per_device(state, jax.tree.map(lambda x: x.sharding, state)),
        resident_bytes=sum(size for size, keep in zip(sizes, kept, strict=True) if keep),
        memory_bytes=memory,
        fits=compiled is not None,
        forward_macs=count_macs(model, size),
        counted_flops=2.0 * mapped * count_jaxpr(traced.jaxpr.jaxpr),
        flops=cost.get("flops"),
        bytes_accessed=moved,
        collectives=collectives,
        compile_seconds=seconds,
        notes=tuple(notes),
    )


def _described(mesh: Any, topology: chips.Topology) -> Any:
    """Lets a kernel of our own know the GPU that it is compiled for, where none is here to be asked."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh) if topology.is_gpu else contextlib.nullcontext()


def _used(message: str) -> float | None:
    """The bytes that a refused program would need, from the compiler's message; None where that was not its reason."""
    match = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message)
    if match is None:
        return None
    return float(match.group(1)) * 2 ** (10 * (1 + "KMGT".index(match.group(2))))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The compiler's libraries write to stderr that they find no TPU; that is why they are asked."""
    before = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
