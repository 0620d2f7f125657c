"""Times the gradient of 3x3 kernels on the CPU, XLA's and our own; pin it to a core: `taskset -c 0 python ...`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxvit.models.cpu_grad import NHWC, kernel_gradient  # noqa: E402

SHAPES = ((16, 32, 64), (8, 56, 64), (8, 28, 128), (16, 16, 128), (8, 14, 256), (16, 8, 256), (16, 4, 512), (8, 7, 512))


def least(function: Callable, *args: jax.Array, calls: int = 6) -> float:
    """Milliseconds of the fastest call."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*args))
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - begun)
    return 1e3 * min(times)


def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1, padding 1."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=NHWC)


def main() -> None:
    """Prints one line per shape."""
    rng = np.random.default_rng(0)
    print(f"{'batch, map, channels':<24}{'forward':>10}{'XLA':>10}{'own':>10}   ms")
    for b, size, c in SHAPES:
        x, dy = (jnp.asarray(rng.standard_normal((b, size, size, c)), jnp.float32) for _ in range(2))
        kernel = jnp.asarray(rng.standard_normal((3, 3, c, c)), jnp.float32)

        def xla(x: jax.Array, dy: jax.Array, kernel: jax.Array = kernel) -> jax.Array:
            return jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](dy)[0]

        found = least(conv, x, kernel), least(xla, x, dy), least(kernel_gradient, x, dy)
        print(f"{f'{b}, {size}x{size}, {c}':<24}" + "".join(f"{ms:10.1f}" for ms in found), flush=True)


if __name__ == "__main__":
    main()
