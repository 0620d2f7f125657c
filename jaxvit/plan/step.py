"""The training steps of a config, from shapes alone, compiled for devices that need not be present."""

import contextlib
import dataclasses
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from jaxvit.build import pretraining
from jaxvit.build.blueprint import Blueprint, draw
from jaxvit.build.facts import Facts
from jaxvit.build.phases import Phase
from jaxvit.build.sizes import at_any_size
from jaxvit.build.teacher import LEFT_OUT, describe, outline
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models.macs import count_macs
from jaxvit.ops.macs import count_jaxpr
from jaxvit.plan import chips, gpus, traffic
from jaxvit.runtime import escape, sharding


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of one step; bytes and FLOPs are those of one device."""

    config: Config  # resolved
    part: str  # of the run: "training" or the name of its pretraining
    image_size: tuple[int, int]
    steps: int  # of the run that are such
    sharp: bool  # whether this is the sharpness-aware step
    devices: int
    batch_size: int
    parameters: int
    state_bytes: int  # parameters, statistics, optimiser, average
    resident_bytes: int  # data that are kept on the device
    memory_bytes: float  # arguments, results and temporaries of the step, minus what they share
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


def compile_steps(given: Config, known: Facts, topology: chips.Topology) -> list[Compiled]:
    """Compiles the steps of a run, in their order: of its pretraining, and of training at each size of its images.

    At each size it is the step of the last phase, in which most of the model trains.
    """
    d, teacher, devices, found = given.distill, None, devices_of(topology), []
    if d.teacher is not None:
        teacher = outline(d.teacher, d.model, known.num_classes)
    blueprint = draw(given, known, devices=devices, teacher=teacher)
    if given.pretrain.name is not None:
        first = pretraining.outline(given, known, devices=devices)
        found.append(_compile(first.blueprint, first.blueprint.largest, topology, given.pretrain.name))
    notes = [known.note] if known.note else []
    if found:
        notes.append(f"pretrain {first.describe()}")
    if d.teacher is not None:
        notes.append(LEFT_OUT if teacher is None else f"teacher {describe(teacher, blueprint.teacher_cached)}")
    notes += idle_devices(given.parallel.num_devices, blueprint.batches.size, blueprint.mesh.size, topology.chips)
    for phase in {phase.image_size: phase for phase in blueprint.phases}.values():
        found.append(_compile(blueprint, phase, topology, "training", notes))
    return found


def idle_devices(asked: int | None, batch_size: int, used: int, there: int) -> list[str]:
    """Why not all devices are used, if so: fewer were `asked` for, or the batch does not divide over all."""
    if used == there:
        return []
    if asked == used:
        return [f"parallel.num_devices={asked} leaves {there - used} of the {there} devices unused"]
    return [f"a batch of {batch_size} divides over only {used} of the {there} devices"]


def _steps_at(blueprint: Blueprint, size: tuple[int, int]) -> int:
    """How many steps of the run are taken on images of a size."""
    ends = [first for first, _ in blueprint.sizes[1:]] + [blueprint.batches.num_epochs]
    epochs = sum(end - first for (first, at), end in zip(blueprint.sizes, ends, strict=True) if at == size)
    return epochs * blueprint.batches.steps_per_epoch


def _compile(
    blueprint: Blueprint, phase: Phase, topology: chips.Topology, part: str, notes: Sequence[str] = ()
) -> Compiled:
    config, mesh, teacher = blueprint.config, blueprint.mesh, blueprint.teacher
    image_shape = (*phase.image_size, config.model.in_channels)
    macs = count_macs(at_any_size(blueprint.model), image_shape)
    state, sharp = phase.template, True in phase.train_steps  # the larger step if there are two
    asked = None
    if teacher is not None and not blueprint.teacher_cached:
        whole = sharding.replicated(mesh)
        asked = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), teacher.variables)
    with _described(mesh, topology):
        traced = phase.train_steps[sharp].trace(state, blueprint.batch(phase), asked)
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
    mapped = mesh.size if blueprint.mapped else 1  # its inner shapes are those of one device
    return Compiled(
        config=config,
        part=part,
        image_size=phase.image_size,
        steps=_steps_at(blueprint, phase.image_size),
        sharp=sharp,
        devices=mesh.size,
        batch_size=blueprint.batches.size,
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(blueprint.variables["params"])),
        state_bytes=sharding.bytes_per_device(state, jax.tree.map(lambda x: x.sharding, state)),
        resident_bytes=blueprint.resident_bytes(),
        memory_bytes=memory,
        fits=compiled is not None,
        forward_macs=macs,
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
