"""The measurement of one model: batch size, compilation, rates, latency, memory."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxvit.bench.clock import timed
from jaxvit.bench.programs import Program, compile_program
from jaxvit.bench.subjects import Subject
from jaxvit.errors import UserError, is_out_of_memory
from jaxvit.runtime import machine

MODES = ("train", "infer")
FLOPS_PER_MAC = {"train": 6, "infer": 2}  # the backward pass costs twice the forward pass
FIRST_BATCH = {"cpu": 4, "gpu": 64, "tpu": 64}
MOST_IMAGES = {"cpu": 64, "gpu": 8192, "tpu": 8192}
WORTHWHILE = 1.03  # a doubled batch must be so much faster to be kept
LATENCY_CALLS = 50


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure."""

    repeats: int = 5
    seconds: float = 2.0  # all repeats of one rate together
    compile_times: str = "both"  # as `compile_program` takes it


def measure(
    subject: Subject,
    mode: str,
    batch_size: int | None,
    effort: Effort,
    ceiling: float | None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Returns one row of results: rates in images/s, times in seconds, memory in bytes.

    Args:
      subject: the model.
      mode: "train" (one optimiser step) or "infer" (forward pass).
      batch_size: images a call; None doubles it while that pays and fits.
      effort: how long to measure.
      ceiling: FLOP/s of the device, for the share used; None leaves it out.
      say: called with lines on the progress.

    Raises:
      UserError: the batch does not fit the device's memory.
    """
    tried: list[dict[str, float]] = []
    if batch_size is None:
        batch_size, tried = find_batch_size(subject, mode, effort, say)
    say(f"compiling {mode}, batch {batch_size}")
    before = machine.device_peak()
    try:
        program, call, carry = prepared(subject, mode, batch_size, effort.compile_times)
        say(f"timing {mode}, batch {batch_size}")
        timing, carry = timed(call, carry, repeats=effort.repeats, seconds=effort.seconds)
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(
                f"{subject.settings.name} {mode} does not fit the device at batch {batch_size}; choose a smaller one"
            ) from None
        raise
    after = machine.device_peak()
    del call, carry
    row = {
        "mode": mode,
        "batch_size": batch_size,
        "images_per_second": timing.rate(batch_size),
        "step_seconds": timing.median,
        "spread": timing.spread,
        "repeats": timing.repeats,
        "calls": timing.calls,
        "compile_seconds": {"cold": program.cold, "warm": program.warm},
        "memory_planned_bytes": program.memory,
        "memory_peak_bytes": after if after and (before is None or after > before) else None,
        "model_flops_per_image": FLOPS_PER_MAC[mode] * subject.macs,
    }
    if ceiling:
        row["mfu"] = batch_size / timing.median * row["model_flops_per_image"] / ceiling
    if tried:
        row["batch_sizes_tried"] = tried
    if mode == "infer":
        say("latency at batch 1")
        row["latency_seconds"] = latency(subject, effort)
    return row


def prepared(
    subject: Subject, mode: str, batch_size: int, times: str = "none"
) -> tuple[Program, Callable[[Any], Any], Any]:
    """(program, carry -> carry, first carry) of one mode at one batch size."""
    if mode == "train":
        step, state, batch = subject.training(batch_size)
        program = compile_program(step, state, batch, donate=True, times=times)
        return program, lambda state: program.run(state, batch)[0], state
    apply, variables, images = subject.inference(batch_size)
    program = compile_program(apply, variables, images, times=times)
    return program, lambda _: program.run(variables, images), None


def latency(subject: Subject, effort: Effort) -> dict[str, float]:
    """Seconds from one image on the device to its logits there, each call waited for: median and range."""
    _, call, _ = prepared(subject, "infer", 1)

    def waited(_: Any) -> Any:
        return jax.block_until_ready(call(None))

    once, _ = timed(waited, None, repeats=1, seconds=0.0)
    repeats = max(5, min(LATENCY_CALLS, int(effort.seconds / once.median)))
    timing, _ = timed(waited, None, repeats=repeats, seconds=0.0)
    return {"median": timing.median, "least": timing.least, "most": timing.most}


def find_batch_size(
    subject: Subject, mode: str, effort: Effort, say: Callable[[str], None]
) -> tuple[int, list[dict[str, float]]]:
    """Doubles the batch until the rate stops rising, memory is out or the limit for the device is reached."""
    backend = jax.default_backend()
    batch_size, limit = FIRST_BATCH.get(backend, 4), machine.memory_limit()
    tried: list[dict[str, float]] = []
    best: tuple[float, int] | None = None
    while batch_size <= MOST_IMAGES.get(backend, 64):
        say(f"trying {mode}, batch {batch_size}")
        try:
            program, call, carry = prepared(subject, mode, batch_size)
            if limit and program.memory and program.memory > limit:
                break
            timing, carry = timed(call, carry, repeats=3, seconds=effort.seconds / 4)
            del call, carry
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        rate = batch_size / timing.median
        tried.append({"batch_size": batch_size, "images_per_second": rate})
        if best and rate < WORTHWHILE * best[0]:
            break
        best = (rate, batch_size)
        batch_size *= 2
    if best is None:
        raise UserError(f"{subject.settings.name} {mode} does not fit the device even at batch {batch_size}")
    return best[1], tried
