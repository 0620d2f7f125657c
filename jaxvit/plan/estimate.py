"""From the compiler's figures to what a person asks: does it fit, how long is a step, what would help."""

import math
from collections.abc import Sequence
from typing import Any

from jaxvit import models
from jaxvit.plan.chips import RESERVED, Topology
from jaxvit.plan.step import Compiled
from jaxvit.runtime.console import count

GB = 2**30


def whole(found: Sequence[Compiled], topology: Topology) -> dict[str, Any]:
    """Returns the figures of a run: of the training step that needs most memory, and of all parts with their hours."""
    plans = [estimate(one, topology) for one in found]
    parts = [_part(one, plan) for one, plan in zip(found, plans, strict=True)]
    hours = [part["hours"] for part in parts]
    training = [plan for one, plan in zip(found, plans, strict=True) if one.part == "training"]
    plan = max(training, key=lambda plan: plan["memory_bytes"])
    refused = next((plan for plan in plans if not plan["fits"]), plan)
    shared = {"fits": refused["fits"], "suggestions": refused["suggestions"]}
    return {**plan, **shared, "hours": None if None in hours else sum(hours), "parts": parts}


def _part(found: Compiled, plan: dict[str, Any]) -> dict[str, Any]:
    seconds = plan["step_seconds"]
    kept = {name: plan[name] for name in ("image_size", "batch_size", "memory_bytes", "fits", "step_seconds")}
    hours = None if seconds is None else found.steps * seconds / 3600
    return {"part": found.part, "steps": found.steps, "hours": hours, **kept}


def estimate(found: Compiled, topology: Topology) -> dict[str, Any]:
    """Returns all figures of a step, ready for JSON; times in seconds, the step time is a lower bound (roofline)."""
    chip, config = topology.chip, found.config
    memory = found.memory_bytes + found.resident_bytes
    capacity = None if chip.memory is None else chip.memory - RESERVED
    sent = sum(entry["sent"] for entry in found.collectives.values())
    flops = max(found.flops or 0.0, found.counted_flops / found.devices)  # XLA counts what a loop does once
    limits = {
        "compute": flops / chip.flops if chip.flops else None,
        "memory": found.bytes_accessed / chip.memory_bandwidth
        if chip.memory_bandwidth and found.bytes_accessed
        else None,
        "interconnect": sent / chip.link_bandwidth if chip.link_bandwidth else None,
    }
    known = {name: value for name, value in limits.items() if value is not None}
    seconds = max(known.values()) if known else None
    model_flops = 6.0 * found.forward_macs * found.batch_size
    fits = found.fits and (capacity is None or memory <= capacity)
    plan: dict[str, Any] = {
        "topology": topology.name,
        "chip": chip.kind,
        "devices": found.devices,
        "mesh": {"data": found.devices // (config.parallel.fsdp * config.parallel.tensor),
                 "fsdp": config.parallel.fsdp, "tensor": config.parallel.tensor},
        "mode": config.parallel.mode,
        "model": config.model.name,
        "data": config.data.name,
        "image_size": list(found.image_size),
        "dtype": config.dtype,
        "batch_size": found.batch_size,
        "accum_steps": config.optim.accum_steps,
        "sharpness_aware": found.sharp,
        "parameters": found.parameters,
        "memory_bytes": memory,
        "state_bytes": found.state_bytes,
        "resident_data_bytes": found.resident_bytes,
        "capacity_bytes": chip.memory,
        "fits": fits,
        "step_flops_per_device": flops,
        "step_flops_counted": found.counted_flops,
        "model_flops_per_step": model_flops,
        "forward_gmacs_per_image": found.forward_macs / 1e9,
        "bytes_accessed": found.bytes_accessed,
        "collectives": found.collectives,
        "sent_bytes": sent,
        "limits_seconds": limits,
        "bound_by": max(known, key=lambda name: known[name]) if known else None,
        "step_seconds": seconds,
        "images_per_second": found.batch_size / seconds if seconds else None,
        "mfu": model_flops / (seconds * found.devices * chip.flops) if seconds and chip.flops else None,
        "compile_seconds": found.compile_seconds,
        "notes": list(found.notes),
        "chip_figures": chip.source,
    }  # fmt: skip
    plan["suggestions"] = [] if fits or capacity is None else suggest(found, capacity)
    return plan


def suggest(found: Compiled, capacity: float) -> list[str]:
    """What would make a step fit, by proportion: activations go with the micro-batch, the state with fsdp."""
    config, said = found.config, []
    state = found.state_bytes + found.resident_bytes
    rest = max(found.memory_bytes - found.state_bytes, 1.0)
    parts, free = config.optim.accum_steps, capacity - state
    unit = found.devices * parts
    if found.resident_bytes > capacity / 10:
        said.append("--config.data.resident_mb=1: the data stay on the host")
    if "remat" in models.model_fields(config.model.name) and not config.model.get("remat"):
        said.append("--config.model.remat=true: activations are recomputed instead of stored, about a third more FLOPs")
    most = found.devices // config.parallel.tensor if config.parallel.mode == "jit" else 0  # pmap keeps it whole
    shares = [n for n in range(2, most + 1) if most % n == 0 and n > config.parallel.fsdp]
    whole = found.state_bytes * config.parallel.fsdp
    enough = [n for n in shares if whole / n + found.resident_bytes + rest <= capacity]
    if enough:
        said.append(f"--config.parallel.fsdp={enough[0]}: the state split over {enough[0]} devices")
    elif shares and whole > capacity / 4:
        said.append(
            f"--config.parallel.fsdp={shares[-1]}: the state split over {shares[-1]} devices (not sufficient alone)"
        )
    if free > 0:
        per_device = found.batch_size / found.devices / parts
        times = math.ceil(rest / free)
        while times < per_device and per_device % times:
            times += 1
        if times <= per_device and parts * times < found.batch_size:
            said.append(f"--config.optim.accum_steps={parts * times}: the same batch in smaller micro-batches")
        smaller = int(found.batch_size * free / rest) // unit * unit
        if 0 < smaller < found.batch_size:
            said.append(f"--config.batch_size={smaller}: about the largest batch that fits")
    return said or ["a slice with more chips, or chips with more memory"]


def lines(plan: dict[str, Any]) -> list[str]:
    """Returns the plan as lines of text."""
    out = [
        f"{plan['model']} at {plan['image_size'][0]}x{plan['image_size'][1]}, {count(plan['parameters'])} parameters, "
        f"batch {plan['batch_size']}, {plan['dtype']}, on {plan['devices']} x {plan['chip']} ({plan['topology']})"
    ]
    mesh = ", ".join(f"{axis} {n}" for axis, n in plan["mesh"].items() if n > 1) or "one device"
    out.append(f"mesh      {mesh}; {plan['mode']}; compiled in {plan['compile_seconds']:.0f} s")
    out += [f"note      {note}" for note in plan["notes"]]
    capacity = plan["capacity_bytes"]
    of = f" of {capacity / GB:.0f} GiB per chip ({plan['memory_bytes'] / capacity:.0%})" if capacity else " a device"
    out.append(
        f"memory    {plan['memory_bytes'] / GB:.2f} GiB{of}; state {plan['state_bytes'] / GB:.2f} GiB, "
        f"resident data {plan['resident_data_bytes'] / GB:.2f} GiB"
    )
    out.append(
        f"FLOPs     {count(plan['step_flops_per_device'])} per device and step; {count(plan['step_flops_counted'])} in "
        f"matmuls and convolutions on all; forward {plan['forward_gmacs_per_image']:.3g} GMACs per image"
    )
    for kind, entry in plan["collectives"].items():
        out.append(
            f"traffic   {kind}: {entry['operations']:.0f}, {entry['bytes'] / 1e6:,.1f} MB, "
            f"{entry['sent'] / 1e6:,.1f} MB sent by each device per step"
        )
    if plan["step_seconds"]:
        limits = ", ".join(f"{name} {1e3 * v:.4g} ms" for name, v in plan["limits_seconds"].items() if v is not None)
        out.append(
            f"time      at least {1e3 * plan['step_seconds']:.4g} ms per step (roofline: {limits}), "
            f"at most {plan['images_per_second']:,.0f} images/s and MFU {plan['mfu']:.0%}"
        )
    for part in plan["parts"] if len(plan["parts"]) > 1 else []:
        size, seconds = "x".join(map(str, part["image_size"])), part["step_seconds"]
        out.append(
            f"part      {part['part']} at {size}: {part['memory_bytes'] / GB:.2f} GiB, {part['steps']:,} steps"
            + (f" of at least {1e3 * seconds:.4g} ms" if seconds else "")
            + ("" if part["fits"] else ", does NOT fit")
        )
    if plan["hours"] is not None:
        steps = sum(part["steps"] for part in plan["parts"])
        out.append(f"hours     at least {plan['hours']:.3g} for {steps:,} steps; evaluation is not counted")
    out.append("fits      yes" if plan["fits"] else "fits      NO; estimates of what would help:")
    return out + [f"          {suggestion}" for suggestion in plan["suggestions"]]
