"""Times the three products of convolutions on the CPU: XLA's, our own and, where torch is installed, PyTorch's.

Processor time, least of six calls taken in turns; pin it to a core:

    OMP_NUM_THREADS=1 taskset -c 0 python tools/measure_conv.py
"""

import functools
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxvit.ops import conv as conv_op  # noqa: E402
from jaxvit.ops import conv_products  # noqa: E402
from jaxvit.runtime.allocator import keep_freed_memory  # noqa: E402

SHAPES = (  # batch, map, channels, features, kernel, stride, groups
    (16, 32, 64, 64, 3, 1, 1), (64, 32, 64, 64, 3, 1, 1), (16, 8, 256, 256, 3, 1, 1), (16, 4, 512, 512, 3, 1, 1),
    (16, 16, 128, 256, 3, 2, 1), (4, 56, 64, 64, 3, 1, 1), (32, 56, 64, 64, 3, 1, 1), (4, 56, 64, 256, 1, 1, 1),
    (4, 224, 3, 64, 7, 2, 1), (1, 4, 512, 512, 3, 1, 1), (2, 56, 128, 128, 3, 1, 32), (2, 56, 256, 256, 3, 2, 32),
)  # fmt: skip
PRODUCTS = ("outputs", "input's gradient", "kernel's gradient")


def least(calls: dict[str, Callable[[], Any]], turns: int = 6) -> dict[str, float]:
    """Milliseconds of processor time of the fastest call of each, after one to warm up."""
    found: dict[str, float] = {}
    for turn in range(turns + 1):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            if turn:
                found[name] = min(found.get(name, 1e9), 1e3 * (time.process_time() - begun))
    return found


def ours(x: jax.Array, kernel: jax.Array, stride: int, pad: int, groups: int) -> jax.Array:
    """The convolution as the models call it."""
    pads = ((pad, pad), (pad, pad))
    return conv_op.conv_general_dilated(x, kernel, (stride, stride), pads, feature_group_count=groups)


def compiled(conv: Callable, x: jax.Array, kernel: jax.Array, dy: jax.Array) -> list[Callable[[], Any]]:
    """One call for each product."""
    functions = (
        (conv, (x, kernel)),
        (lambda dy, kernel: jax.linear_transpose(lambda x: conv(x, kernel), x)(dy), (dy, kernel)),
        (lambda x, dy: jax.linear_transpose(lambda kernel: conv(x, kernel), kernel)(dy), (x, dy)),
    )
    return [functools.partial(lambda run, args: jax.block_until_ready(run(*args)), jax.jit(f), a) for f, a in functions]


def torchs(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int, pad: int, groups: int
) -> list[Callable[[], Any]]:
    """The same in PyTorch, channels last."""
    import torch

    torch.set_num_threads(1)
    maps = [torch.tensor(np.asarray(a).transpose(0, 3, 1, 2)) for a in (x, dy)]
    tx, tdy = (a.contiguous(memory_format=torch.channels_last) for a in maps)
    weight = torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1)).contiguous(memory_format=torch.channels_last)
    steps, pads = [stride, stride], [pad, pad]

    def back(mask: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            tdy, tx, weight, None, steps, pads, [1, 1], False, [0, 0], groups, mask
        )  # fmt: skip

    forward = functools.partial(torch.nn.functional.conv2d, tx, weight, None, steps, pads, 1, groups)
    return [forward, lambda: back([True, False, False]), lambda: back([False, True, False])]


def main() -> None:
    """Prints three lines per shape."""
    keep_freed_memory()
    rng = np.random.default_rng(0)
    columns = "batch, map, channels, features, kernel, stride, groups"
    print(f"{columns:<56}{'product':<20}{'XLA':>9}{'ours':>9}{'torch':>9}   ms")
    for b, size, c, d, k, stride, groups in SHAPES:
        pad = k // 2
        x, kernel = (
            jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((b, size, size, c), (k, k, c // groups, d))
        )
        how: dict[str, Any] = {"strides": (stride, stride), "padding": ((pad, pad), (pad, pad)), "groups": groups}
        usual = functools.partial(conv_products.plain, **how)
        dy = usual(x, kernel)
        sides = {
            "XLA": compiled(usual, x, kernel, dy),
            "ours": compiled(functools.partial(ours, stride=stride, pad=pad, groups=groups), x, kernel, dy),
        }
        if importlib.util.find_spec("torch"):
            sides["torch"] = torchs(x, kernel, dy, stride, pad, groups)
        for i, product in enumerate(PRODUCTS):
            found = least({side: calls[i] for side, calls in sides.items()})
            shape = f"{b}, {size}x{size}, {c}, {d}, {k}x{k}, {stride}, {groups}"
            print(f"{shape:<56}{product:<20}" + "".join(f"{ms:9.1f}" for ms in found.values()), flush=True)


if __name__ == "__main__":
    import quiet

    quiet.run(main)
