"""What a step moves, read from the compiled program's text (HLO): between chips, and to and from a chip's memory.

XLA's own count of bytes charges a gather with its whole operand for each element, which for warped images is a
thousand times too much; here an operation reads each operand once and writes its result once.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s16": 16, "u16": 16,
        "f32": 32, "s32": 32, "u32": 32, "f64": 64, "s64": 64, "u64": 64, "f8e4m3fn": 8, "f8e5m2": 8}  # fmt: skip
# These name or rearrange values without moving them, or are counted where their work is done.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "iota",
         "partition-id", "replica-id", "after-all", "opt-barrier")  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]\d?[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)")  # a memory space other than HBM


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    kind: str
    rest: str  # operands and attributes


def count(hlo: str, devices: int) -> dict[str, dict[str, float]]:
    """Returns {kind: {"operations", "bytes" (of the results), "sent" (by each chip, on a ring)}} of one step."""
    program, times = _parse(hlo)
    found: dict[str, dict[str, float]] = {}
    for inside, instructions in program.items():
        for kind, size, group in _collectives(inside, instructions, devices):
            entry = found.setdefault(kind, {"operations": 0, "bytes": 0.0, "sent": 0.0})
            entry["operations"] += times.get(inside, 0)
            entry["bytes"] += size * times.get(inside, 0)
            entry["sent"] += size * _share_sent(kind, group) * times.get(inside, 0)
    return found


def memory_bytes(hlo: str) -> float:
    """Returns the bytes that one step reads from and writes to a chip's memory."""
    program, times = _parse(hlo)
    fused = {name for body in program.values() for i in body if i.kind == "fusion" for name in _called(i)}
    total = 0.0
    for inside, instructions in program.items():
        if inside in fused or inside not in times:
            continue
        sizes = {i.name: _in_memory(_without_scratch(i)) for i in instructions}
        moved = 0.0
        for i in instructions:
            if i.kind in _FREE or i.kind.endswith("-done"):
                continue
            read, written = _part_moved(i, program)
            operands = dict(enumerate(_operands(i)))
            moved += sizes[i.name] if written is None else min(written, sizes[i.name])
            whole = {name for at, name in operands.items() if at not in read}  # each once
            moved += sum(sizes.get(name, 0.0) for name in whole)
            moved += sum(min(read[at], sizes.get(name, 0.0)) for at, name in operands.items() if at in read)
        total += moved * times[inside]
    return total


def _part_moved(i: _Instruction, program: dict[str, list[_Instruction]]) -> tuple[dict[int, float], float | None]:
    """Returns ({number of an operand: bytes read of it}, bytes written), where it is not all of them.

    A loop over blocks takes a slice of each stacked array and writes one into another, in place.
    """
    if i.kind == "dynamic-slice":
        return {0: _in_memory(i.type)}, None
    if i.kind != "fusion" or not _called(i):
        return {}, None
    body = program.get(_called(i)[0], [])
    by_name = {inner.name: inner for inner in body}

    def origin(name: str) -> str:
        while name in by_name and by_name[name].kind == "bitcast":
            name = (_operands(by_name[name]) or [""])[0]
        return name

    whole: set[str] = set()
    parts: dict[str, float] = {}
    updates: list[float] = []
    for inner in body:
        names = [origin(name) for name in _operands(inner)]
        if inner.kind == "dynamic-slice":
            parts[names[0]] = parts.get(names[0], 0.0) + _in_memory(inner.type)
        elif inner.kind == "dynamic-update-slice":
            parts.setdefault(names[0], 0.0)
            updates.append(_in_memory(by_name[names[1]].type) if names[1] in by_name else 0.0)
            whole |= set(names[1:2])
        elif inner.kind == "fusion":
            within = _part_moved(inner, program)[0]
            for at, name in enumerate(names):
                if at in within:
                    parts[name] = parts.get(name, 0.0) + within[at]
                else:
                    whole.add(name)
        elif inner.kind != "bitcast":
            whole |= set(names)
    numbers = {inner.name: int(inner.rest.partition(")")[0]) for inner in body if inner.kind == "parameter"}
    read = {number: parts[name] for name, number in numbers.items() if name in parts and name not in whole}
    root = body[-1].name if body else ""  # XLA writes the root last
    ends = by_name.get(origin(root))
    return read, updates[0] if ends is not None and ends.kind == "dynamic-update-slice" and len(updates) == 1 else None


def _parse(hlo: str) -> tuple[dict[str, list[_Instruction]], dict[str, int]]:
    """Returns the instructions by computation, and how often each computation runs in a step."""
    program: dict[str, list[_Instruction]] = {}
    inside, entry = "", ""
    for line in hlo.splitlines():
        begins = _COMPUTATION.match(line)
        if begins:
            inside = begins.group(2)
            program[inside] = []
            entry = inside if begins.group(1) else entry
        elif inside and (match := _INSTRUCTION.match(line)):
            program[inside].append(_Instruction(*match.groups()))
    times: dict[str, int] = {}

    def visit(name: str, often: int) -> None:
        times[name] = times.get(name, 0) + often
        for i in program.get(name, ()):
            trips = _trips(i, program) if i.kind == "while" else 1
            for called in _called(i):
                if called in program:
                    visit(called, often * trips)

    visit(entry, 1)
    return program, times


def _trips(loop: _Instruction, program: dict[str, list[_Instruction]]) -> int:
    """How often a loop runs: as XLA notes it, or, for TPUs, from its condition, a counter below a constant."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(noted.group(1))
    condition = re.search(r"\bcondition=%?([\w.-]+)", loop.rest)
    body = program.get(condition.group(1), []) if condition else []
    constants = {i.name: i.rest for i in body if i.kind == "constant"}
    for i in body:
        if i.kind == "compare" and "direction=LT" in i.rest:
            for name in _operands(i):
                if found := re.match(r"(\d+)\)", constants.get(name, "")):
                    return int(found.group(1))
    return 1


def _operands(i: _Instruction) -> list[str]:
    """The names of what an instruction takes, in order."""
    return re.findall(r"%([\w.-]+)", re.split(r"\)(?:, \w+=|$)", i.rest)[0])


def _called(i: _Instruction) -> list[str]:
    """The computations that an instruction runs; those that reduce two numbers to one aside."""
    return re.findall(r"\b(?:calls|body|branch_computations|called_computations)=\{?%?([\w.-]+)", i.rest)


def _collectives(inside: str, instructions: list[_Instruction], devices: int) -> Iterator[tuple[str, float, int]]:
    for i in instructions:
        kind = i.kind.removesuffix("-start")
        group = _group_size(i.rest, devices)
        if kind not in KINDS or group < 2:
            continue
        arrays = [_bytes(kind_of, shape) for kind_of, shape, _ in _ARRAY.findall(i.type)]
        size = sum(arrays)
        if i.kind.endswith("-start") and i.type.startswith("("):  # (operands, results) of an asynchronous one
            size = max(arrays) if kind in ("all-gather", "collective-permute") else size / 2
        if kind == "all-reduce" and inside.startswith("all-reduce-scatter"):  # how the TPU compiler fuses the two
            kind, size = "reduce-scatter", size / group
        yield kind, size, group


def _without_scratch(i: _Instruction) -> str:
    """The type of the results of an instruction; cuBLASLt and cuDNN return their scratch, a row of bytes, as the last.

    cuBLASLt asks for 32 MiB and uses little of it or nothing.
    """
    return re.sub(r", [su]8\[\d+\](\{[^}]*\})?\)$", ")", i.type) if i.kind == "custom-call" else i.type


def _in_memory(text: str) -> float:
    return sum(_bytes(kind, shape) for kind, shape, layout in _ARRAY.findall(text) if not _ON_CHIP.search(layout))


def _bytes(kind: str, shape: str) -> float:
    return math.prod(int(n) for n in shape.split(",") if n) * BITS.get(kind, 0) / 8


def _group_size(rest: str, devices: int) -> int:
    """From the three ways in which XLA writes groups of devices."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(match.group(1).split(","))
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest):
        return int(match.group(2))
    if match := re.search(r"replica_groups=mesh\[(.*?)\].*?\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match.group(1)))
        return math.prod(int(sizes.get(axis, 1)) for axis in re.findall(r"'(\w+)'", match.group(2)))
    return devices


def _share_sent(kind: str, group: int) -> float:
    """Bytes that a chip sends on a ring, per byte of the result."""
    rest = (group - 1) / group
    return {"all-reduce": 2 * rest, "all-gather": rest, "reduce-scatter": group - 1, "all-to-all": rest}.get(kind, 1.0)
