"""What one chip can do, as published, and the names of slices."""

import dataclasses
import math
import re

from jaxvit.errors import UserError, suggest

# Google's pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e" under https://cloud.google.com/tpu/docs: peak compute (bf16),
# HBM capacity and bandwidth, inter-chip interconnect bandwidth, all per chip. HBM as XLA's compiler counts it is less:
# what it keeps for itself is not in the table, and is counted against the plan by `RESERVED`.
SOURCE = "https://cloud.google.com/tpu/docs/system-architecture-tpu-vm"
# NVIDIA's data sheets "H100 Tensor Core GPU" and "H200 Tensor Core GPU", SXM: bf16 without sparsity, one way of NVLink.
# JAX takes three quarters of a GPU's memory when it starts, unless XLA_PYTHON_CLIENT_MEM_FRACTION says more.
GPU_SOURCE = "https://www.nvidia.com/en-us/data-center/h200/"
RESERVED = 2**28  # bytes


@dataclasses.dataclass(frozen=True)
class Chip:
    """FLOP/s in bf16 (float32 matmuls run in bf16 passes at JAX's default precision), bytes, bytes/s."""

    kind: str
    flops: float | None = None
    memory: float | None = None
    memory_bandwidth: float | None = None
    link_bandwidth: float | None = None  # all links of a chip together
    dimensions: int = 2  # of the slices: 2 or 3
    devices: int = 1  # that JAX sees on a chip
    platform: str = "tpu"
    source: str | None = SOURCE


_GB = 2**30
CHIPS = {
    "v4": Chip("TPU v4", 275e12, 32 * _GB, 1228e9, 2400e9 / 8, 3),
    "v5e": Chip("TPU v5e", 197e12, 16 * _GB, 819e9, 1600e9 / 8, 2),
    "v5p": Chip("TPU v5p", 459e12, 95 * _GB, 2765e9, 4800e9 / 8, 3),
    "v6e": Chip("TPU v6e", 918e12, 32 * _GB, 1640e9, 3584e9 / 8, 2),
    "h100": Chip("NVIDIA H100", 989e12, 80e9, 3350e9, 450e9, 1, platform="gpu", source=GPU_SOURCE),
    "h200": Chip("NVIDIA H200", 989e12, 141e9, 4800e9, 450e9, 1, platform="gpu", source=GPU_SOURCE),
    "cpu": Chip("cpu", platform="cpu", source=None),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of chips: "v5e:4x4", "h200:8", or "cpu:8" for eight virtual devices of this machine's processor."""

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def is_cpu(self) -> bool:
        """Whether no accelerator is meant."""
        return self.chip.platform == "cpu"

    @property
    def is_gpu(self) -> bool:
        """Whether it is a node of GPUs."""
        return self.chip.platform == "gpu"

    @property
    def chips(self) -> int:
        """How many there are."""
        return math.prod(self.shape)


def parse(name: str) -> Topology:
    """Reads "v5e:4x4", "v5p:4x4x4" or "cpu:8"; raises UserError if there is no such slice."""
    kind, _, sizes = name.strip().lower().partition(":")
    if kind not in CHIPS:
        known = ", ".join(CHIPS)
        raise UserError(
            f"no chip {kind!r}; expected {known}, for example v5e:4x4, h200:8 or cpu:8.{suggest(kind, CHIPS)}"
        )
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})*", sizes):
        raise UserError(f"topology {name!r} does not name a slice; expected for example v5e:4x4, v5p:4x4x4 or cpu:8")
    shape, chip = [int(size) for size in sizes.split("x")], CHIPS[kind]
    if kind == "cpu":
        if len(shape) > 1 or shape[0] > 256:
            raise UserError(f"topology {name!r}: expected a number of processors of at most 256, such as cpu:8")
    elif chip.platform == "gpu":
        if len(shape) > 1 or shape[0] > 8:
            raise UserError(f"topology {name!r}: expected a number of GPUs of at most 8, such as {kind}:8")
    elif len(shape) != chip.dimensions:
        example = "x".join(["4"] * chip.dimensions)
        raise UserError(
            f"topology {name!r}: slices of {chip.kind} have {chip.dimensions} sides, such as {kind}:{example}"
        )
    return Topology(f"{kind}:{sizes}", chip, tuple(shape))
