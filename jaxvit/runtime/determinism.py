"""The same bits on every run, also on GPUs, where some of XLA's fastest kernels add up in an order that varies.

CPUs and TPUs give the same bits on every run with the same number of cores or chips. On GPUs the flag below excludes
such kernels and the choice of kernels by timing them. Operations that have no other kernel then do not compile; of the
models' operations that was the gradient of max-pooling, which is therefore written with shifted slices.
"""

import os
import re

from jaxvit.errors import UserError

FLAG = "--xla_gpu_deterministic_ops"


def switch_on() -> None:
    """Sets XLA's flag; it must come before JAX's first computation in this process."""
    if not _is_on():
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}=true".strip()


def check() -> None:
    """Raises UserError on a GPU whose computations are not deterministic: it is too late to switch."""
    import jax

    if jax.default_backend() == "gpu" and not _is_on():
        raise UserError(
            f"config.deterministic needs XLA_FLAGS={FLAG}=true before JAX starts\n"
            "the command line sets it; in Python call jaxvit.runtime.determinism.switch_on() first"
        )


def _is_on() -> bool:
    found = re.findall(rf"{FLAG}(?:=(\w+))?(?:\s|$)", os.environ.get("XLA_FLAGS", ""))
    return bool(found) and found[-1].lower() in ("", "true", "1")
