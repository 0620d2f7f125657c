"""How large a part of a batch fits the device: chosen from XLA's memory analysis, before the first step."""

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvit.build.blueprint import Blueprint
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.runtime import machine, sharding
from jaxvit.runtime.console import err, working
from jaxvit.workdir import resume, run_files

SHARE = 0.92  # of the device's memory that a step may plan for: the data set and fragmentation need the rest


def device_limit() -> int | None:
    """Bytes of the first device that are still free for a step, or None where it does not say (CPU)."""
    limit = machine.memory_limit()
    return None if limit is None else int(SHARE * limit) - machine.memory_in_use()


def planned_bytes(step: Callable, args: tuple[Any, ...]) -> int:
    """Bytes that a compiled step needs in addition to its arguments."""
    return machine.scratch_memory(step.lower(*args).compile())


def kept(config: Config, workdir: Path) -> Config:
    """The config with the `micro_batch` that a run in `workdir` was begun with, where it is left open here."""
    before = workdir / "config.json"
    if config.micro_batch is None and before.exists() and resume.has_work(workdir):
        found: dict[str, Any] = {}
        with contextlib.suppress(UserError):  # a damaged one is dealt with where the run begins
            found = run_files.read_json(before)
        if found.get("micro_batch") and found.get("batch_size") == config.batch_size:
            config = copy.deepcopy(config)
            config.micro_batch = found["micro_batch"]
    return config


def is_left_to_us(config: Config) -> bool:
    """Whether the config leaves the size of the parts open."""
    cut = config.optim.accum_steps > 1 or config.micro_batch or config.optim.sam.m
    return config.auto_micro_batch != "off" and config.parallel.mode == "jit" and not cut


def sizes(batch_size: int, parts_of_mesh: int) -> list[int]:
    """Numbers of equal parts to try: each at least twice the one before, as every try is a compilation."""
    found: list[int] = []
    for parts in range(1, batch_size // parts_of_mesh + 1):
        if batch_size % (parts * parts_of_mesh) == 0 and (not found or parts >= 2 * found[-1]):
            found.append(parts)
    return found


def fit(
    blueprint: Blueprint,
    redraw: Callable[[int], Blueprint],
    program: Callable[[Blueprint], tuple[Callable, tuple[Any, ...]]],
    *,
    always: bool,
) -> Blueprint:
    """Returns the blueprint whose step computes its batch in enough micro-batches to fit.

    Args:
      blueprint: of a run that computes it whole.
      redraw: number of parts -> the blueprint of a run that computes a batch in them.
      program: blueprint -> (the jitted step, its arguments or their shapes).
      always: whether BatchNorm, whose result the size of the parts changes, may be cut as well.

    Raises:
      UserError: it does not fit and may not be cut, or does not fit even image by image.
    """
    limit, batch_size = device_limit(), blueprint.batches.size
    if limit is None:
        return blueprint
    need, tried = 0, blueprint
    for parts in sizes(batch_size, sharding.batch_parts(blueprint.mesh)):
        tried = blueprint if parts == 1 else redraw(parts)
        with working("compiling the training step, which takes a minute or two the first time"):
            need = planned_bytes(*program(tried))
        if need <= limit:
            break
        if blueprint.variables.get("batch_stats") and not always:
            raise UserError(
                f"batch_size {batch_size} needs {_gib(need)}, {_gib(limit)} are free; BatchNorm forbids micro-batches\n"
                "choose a smaller batch_size, or auto_micro_batch=always to use micro-batches anyway"
            )
    else:
        raise UserError(
            f"one image per device needs {_gib(need)}, but {_gib(limit)} are free; use a smaller model or image"
        )
    if parts > 1:
        err.print(
            f"train  batch {batch_size} in {parts} parts of {batch_size // parts}, which need {_gib(need)} of the "
            f"{_gib(limit)} that are free"
        )
    return tried


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
