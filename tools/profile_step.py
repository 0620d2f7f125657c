"""Where the time of a training step goes: kernels as the profiler saw them, summed by part of the model and by kind.

    python tools/profile_step.py --model swin_tiny_patch4_window7_224 --batch-size 256 --dtype bfloat16 [--json FILE]

Each kernel carries the name of its instruction in the compiled program, and that the module which asked for it. On a
GPU the kernels of a command buffer carry none (github.com/openxla/xprof/issues/3070), so the step runs without them,
and the exit code is 1 where the kernels that were found take less than 80 % of the step.
"""

import argparse
import ast
import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if "xla_gpu_enable_command_buffer" not in os.environ.get("XLA_FLAGS", ""):  # read when JAX starts; a CPU has none
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer=".strip()

import jax  # noqa: E402

from jaxvit.bench.programs import compile_program  # noqa: E402
from jaxvit.bench.subjects import Settings, make_subject  # noqa: E402
from jaxvit.runtime.console import table  # noqa: E402

LEAST_FOUND = 0.8  # of a step's time
# The first that is found in the path of an instruction's module is its part.
PARTS = (
    ("attention, without its linear layers", r"/attn/(?!.*(qkv|proj)/)"),
    ("linear layers of attention", r"/attn/"),
    ("mlp", r"/mlp/"),
    ("norms", r"norm|/bn|/downsample_1/(?!conv_general)|/downsample_2/"),
    ("convolutions", r"conv|ResNet.*/layer.*downsample"),
    ("embedding and merging", r"patch_embed|downsample|pos_embed"),
    ("head", r"/(head|fc)/"),
)
KINDS = (
    ("own kernel", r"pallas|triton_kernel_call|__gpu\$xla\.gpu\.triton"),
    ("matmul", r"gemm|dot|cublas|matmul"),
    ("convolution", r"conv"),
    ("attention kernel", r"fmha|flash"),
    ("copy or transposition", r"transpose|copy|concatenate|slice|pad"),
    ("reduction", r"reduce"),
)


def first(pairs: tuple[tuple[str, str], ...], text: str, rest: str) -> str:
    """The name of the first pattern that `text` has."""
    return next((name for name, pattern in pairs if re.search(pattern, text)), rest)


def modules(program: str) -> dict[str, str]:
    """Instruction -> the path of what asked for it, of a compiled program."""
    found = {}
    for line in program.splitlines():
        match = re.match(r"\s+(?:ROOT )?%?([\w.-]+) = ", line)
        if match:
            path = re.search(r'op_name="([^"]*)"', line)
            target = re.search(r'custom_call_target="([^"]*)"', line)
            found[match.group(1)] = (path.group(1) if path else "") + (f" {target.group(1)}" if target else "")
    return found


def kernels(directory: Path) -> dict[str, tuple[float, int]]:
    """Instruction -> (seconds, calls) in a trace."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    (path,) = directory.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name and not event.name.startswith("end: "):
                    found[str(name)][0] += event.duration_ns / 1e9
                    found[str(name)][1] += 1
    return {name: (seconds, int(calls)) for name, (seconds, calls) in found.items()}


def shortfall(found: dict[str, Any]) -> str | None:
    """Says what is wrong where the kernels that were found on a GPU do not account for the time of a step."""
    share = found["kernel_seconds"] / found["step_seconds"]
    if share >= LEAST_FOUND or found["platform"] != "gpu":
        return None
    return (
        f"the kernels found take {share:.0%} of a step, expected at least {LEAST_FOUND:.0%}: the profiler did not name "
        "the others (command buffers must be off: XLA_FLAGS=--xla_gpu_enable_command_buffer=), or the device waits"
    )


def profile(settings: Settings, batch_size: int, steps: int) -> dict[str, Any]:
    """Returns what a step's kernels took, by part, direction and kind, and the longest of them."""
    step, state, batch = make_subject(settings).training(batch_size)
    compiled = compile_program(step, state, batch, donate=True, times="none").run
    for _ in range(3):
        state = compiled(state, batch)[0]
    jax.block_until_ready(state)
    begun = time.perf_counter()
    for _ in range(steps):
        state = compiled(state, batch)[0]
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - begun) / steps
    with tempfile.TemporaryDirectory() as name:
        with jax.profiler.trace(name):
            for _ in range(steps):
                state = compiled(state, batch)[0]
            jax.block_until_ready(state)
        seen = kernels(Path(name))
    asked = modules(compiled.as_text() or "")
    sums: dict[str, dict[str, float]] = {"part": defaultdict(float), "kind": defaultdict(float)}
    rows = []
    for name, (spent, calls) in seen.items():
        path = asked.get(name, "")
        part = first(PARTS, path, "rest: loss, optimiser, input") if re.search("Transformer|Net|VGG", path) else "rest"
        kind = first(KINDS, f"{name} {path.rsplit('/', 1)[-1]}", "element by element")  # not by the module's name
        way = "backward" if "transpose(" in path else ""
        sums["part"][f"{part} {way}".strip()] += spent / steps
        sums["kind"][kind] += spent / steps
        rows.append({"kernel": name, "seconds": spent / steps, "calls": calls / steps, "path": path[-160:]})
    rows.sort(key=lambda row: -row["seconds"])
    busy = sum(row["seconds"] for row in rows)
    return {
        "model": settings.name, "fields": dict(settings.fields), "dtype": settings.dtype, "batch_size": batch_size,
        "platform": jax.default_backend(), "device": jax.devices()[0].device_kind, "jax": jax.__version__,
        "step_seconds": seconds, "kernel_seconds": busy, "kernels": len(rows),
        **{f"by_{word}": dict(sorted(found.items(), key=lambda pair: -pair[1])) for word, found in sums.items()},
        "longest": rows[:40],
    }  # fmt: skip


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--field", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    fields = []
    for word in args.field:
        name, _, value = word.partition("=")
        try:
            fields.append((name, ast.literal_eval(value)))
        except (ValueError, SyntaxError):
            fields.append((name, value))
    found = profile(Settings(args.model, args.dtype, args.image_size, tuple(fields)), args.batch_size, args.steps)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    for word in ("part", "kind"):
        sums = found[f"by_{word}"]
        rows = [(name, f"{1e3 * s:.2f}", f"{s / max(found['kernel_seconds'], 1e-9):.0%}") for name, s in sums.items()]
        title = f"{args.model}, batch {args.batch_size}: a step of {1e3 * found['step_seconds']:.1f} ms"
        table(title, (word, "ms", "share"), rows, left=(word,))
    if said := shortfall(found):
        print(f"error: {said}", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    import quiet

    quiet.run(main)
