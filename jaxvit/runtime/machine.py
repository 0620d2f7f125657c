"""The machine that a process runs on: its memory, its names and its versions."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from jaxvit import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def memory_limit() -> int | None:
    """Bytes that this process may use on the first device, or None where it does not say (CPU)."""
    return _stats().get("bytes_limit")


def memory_in_use() -> int:
    """Bytes in use on the first device, 0 where it does not say."""
    return _stats().get("bytes_in_use", 0)


def device_peak() -> int | None:
    """The most bytes of a device of this process in use at once so far, or None where none says."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return max((int(peak) for peak in peaks if peak is not None), default=None)


def process_peak() -> int | None:
    """The most bytes of main memory that this process has had, or None where the system does not say."""
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_memory() -> dict[str, Any]:
    """The most memory in use so far and whose it is: the fullest device's, or, on the CPU, the process's."""
    for of, peak in (("device", device_peak()), ("process", process_peak())):
        if peak is not None:
            return {"peak_memory_bytes": peak, "peak_memory_of": of}
    return {}


def planned_memory(compiled: Any) -> int | None:
    """Bytes on the device that a compiled program needs while it runs, or None where XLA does not say."""
    found = compiled.memory_analysis()
    return None if found is None else int(found.argument_size_in_bytes) + scratch_memory(compiled)


def scratch_memory(compiled: Any) -> int:
    """Bytes that a compiled program needs in addition to its arguments: temporaries and new results."""
    found = compiled.memory_analysis()
    return int(found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes)


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record of a run or a measurement."""
    devices = jax.devices()
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # rates need fewer packages than training
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "backend": jax.default_backend(),
        "device": devices[0].device_kind if jax.default_backend() != "cpu" else cpu_name(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "jaxvit": __version__,
        **versions,
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _stats() -> dict[str, int]:
    return jax.local_devices()[0].memory_stats() or {}
