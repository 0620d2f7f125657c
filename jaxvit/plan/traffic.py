"""What the chips send each other in one step, read from the compiled program's text (HLO)."""

import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s16": 16, "u16": 16,
        "f32": 32, "s32": 32, "u32": 32, "f64": 64, "s64": 64, "u64": 64, "f8e4m3fn": 8, "f8e5m2": 8}  # fmt: skip
_OPERATION = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]\d?[a-z0-9]*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")


def count(hlo: str, devices: int) -> dict[str, dict[str, float]]:
    """Returns {kind: {"operations", "bytes" (of the results), "sent" (by each chip, on a ring)}}.

    A collective inside a loop of the program counts once: JAX's unrolled models have none.
    """
    found: dict[str, dict[str, float]] = {}
    for kind, size, group in _collectives(hlo, devices):
        entry = found.setdefault(kind, {"operations": 0, "bytes": 0.0, "sent": 0.0})
        entry["operations"] += 1
        entry["bytes"] += size
        entry["sent"] += size * _share_sent(kind, group)
    return found


def _collectives(hlo: str, devices: int) -> Iterator[tuple[str, float, int]]:
    inside = ""
    for line in hlo.splitlines():
        begins = _COMPUTATION.match(line)
        if begins:
            inside = begins.group(1)
        operation = _OPERATION.search(line)
        if not operation:
            continue
        kind, group = operation.group(2), _group_size(line, devices)
        arrays = [_bytes(*array) for array in _ARRAY.findall(operation.group(1))]
        if not arrays or group < 2:
            continue
        size = sum(arrays)
        if operation.group(3):  # (operands, results) of an asynchronous one
            size = max(arrays) if kind in ("all-gather", "collective-permute") else size / 2
        if kind == "all-reduce" and inside.startswith("all-reduce-scatter"):  # how the TPU compiler fuses the two
            kind, size = "reduce-scatter", size / group
        yield kind, size, group


def _bytes(kind: str, shape: str) -> float:
    return math.prod(int(n) for n in shape.split(",") if n) * BITS.get(kind, 0) / 8


def _group_size(line: str, devices: int) -> int:
    """From the three ways in which XLA writes groups of devices."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(match.group(1).split(","))
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(match.group(2))
    if match := re.search(r"replica_groups=mesh\[(.*?)\].*?\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match.group(1)))
        return math.prod(int(sizes.get(axis, 1)) for axis in re.findall(r"'(\w+)'", match.group(2)))
    return devices


def _share_sent(kind: str, group: int) -> float:
    """Bytes that a chip sends on a ring, per byte of the result."""
    rest = (group - 1) / group
    return {"all-reduce": 2 * rest, "all-gather": rest, "reduce-scatter": group - 1, "all-to-all": rest}.get(kind, 1.0)
