"""Data-parallel scaling on paper: bytes sent between devices against arithmetic, from the compiled training step.

    python tools/scaling.py [--model NAME] [--batch 32] [--devices 1,2,4,8] [--json FILE]

Compiles the step for 1 to 8 virtual CPU devices, weak (`batch` images a device) and strong (`batch` images together),
and reads the collectives from XLA's program. An all-reduce of n bytes over d devices sends 2 n (d - 1) / d bytes from
each. `pays` is the link speed, in GB/s for each TFLOP/s of a device, below which sending takes longer than computing.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from jaxvit.bench.subjects import Settings, make_subject  # noqa: E402
from jaxvit.runtime import sharding  # noqa: E402
from jaxvit.runtime.console import table  # noqa: E402

BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "f16": 2, "pred": 1, "u8": 1}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def collective_bytes(program: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in a compiled program."""
    found: dict[str, int] = dict.fromkeys(KINDS, 0)
    for line in program.splitlines():
        match = re.search(rf"= (\(?.*?\)?) ({'|'.join(KINDS)})(-start)?\(", line)
        if match:
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match.group(1))
            found[match.group(2)] += sum(
                BYTES.get(kind, 4) * int(np.prod([int(n) for n in dims.split(",") if n], dtype=np.int64))
                for kind, dims in shapes
            )
    return {kind: size for kind, size in found.items() if size}


def measure(subject: Any, batch_size: int, devices: int) -> dict[str, Any]:
    """One row: what a device computes and sends in a step."""
    mesh = sharding.make_mesh(devices)
    step, state, batch = subject.training(batch_size)
    whole, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    args = (jax.device_put(state, whole), jax.device_put(batch, split))
    compiled = jax.jit(step, donate_argnums=0, out_shardings=(whole, whole)).lower(*args).compile()
    sizes = collective_bytes(compiled.as_text() or "")
    sent = sum(2 * size * (devices - 1) / devices for size in sizes.values())
    flops = 6 * subject.macs * batch_size / devices
    return {
        "devices": devices,
        "batch_size": batch_size,
        "collectives": sizes,
        "sent_bytes": sent,
        "flops": flops,
        "gb_per_s_per_tflops": sent / flops * 1e3,
    }


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--devices", default="1,2,4,8")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    subject = make_subject(Settings(args.model, image_size=args.image_size))
    rows = []
    for n in map(int, args.devices.split(",")):
        for kind, batch_size in (("weak", args.batch * n), ("strong", args.batch)):
            rows.append({"kind": kind, **measure(subject, batch_size, n)})
    shown = [
        (r["kind"], r["devices"], r["batch_size"], f"{r['sent_bytes'] / 2**20:.1f}", f"{r['flops'] / 1e12:.3f}",
         f"{r['gb_per_s_per_tflops']:.2f}") for r in rows
    ]  # fmt: skip
    columns = ("", "devices", "batch", "MiB sent", "TFLOP", "pays: GB/s per TFLOP/s")
    table(f"{args.model}, one training step, for each device", columns, shown)
    if args.json:
        args.json.write_text(json.dumps({"model": args.model, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    import quiet

    quiet.run(main)
