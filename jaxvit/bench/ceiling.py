"""What the device can do at best: matmuls measured here, and what its maker says."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.bench.clock import timed
from jaxvit.bench.subjects import DTYPES

SIZES = {"cpu": (1024, 2048), "gpu": (4096, 8192, 16384), "tpu": (4096, 8192)}  # of square matrices
# Dense bfloat16 TFLOP/s on paper, by a part of the device's name (makers' data sheets, without sparsity).
ON_PAPER = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "V100": 125.0,
            "TPU v4": 275.0, "TPU v5 lite": 197.0, "TPU v5p": 459.0, "TPU v6": 918.0}  # fmt: skip


def matmul_ceiling(dtype: str, *, seconds: float = 1.0) -> float:
    """Returns the FLOP/s of the fastest square matmul with inputs of `dtype`, at JAX's default precision."""
    best = 0.0
    for size in SIZES.get(jax.default_backend(), SIZES["cpu"]):
        a = jax.random.normal(jax.random.key(0), (size, size), DTYPES[dtype] or jnp.float32) / size**0.5
        product = jax.jit(lambda x, a: x @ a)
        timing, _ = timed(lambda x, a=a, product=product: product(x, a), a, repeats=5, seconds=seconds)
        best = max(best, 2 * size**3 / timing.least)
    return best


def on_paper(kind: str, dtype: str) -> float | None:
    """The maker's FLOP/s for a device kind, or None where it is not in the table."""
    found: Any = next((v for word, v in ON_PAPER.items() if word in kind), None)
    return 1e12 * found if found and dtype == "bfloat16" else None
