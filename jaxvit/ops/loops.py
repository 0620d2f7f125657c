"""Loops whose body holds a model: written out where XLA is slow with a rolled one.

XLA on the CPU runs a convolution inside a rolled loop about forty times slower than outside (5.7 s against 0.15 s a
step was measured); matmuls do not suffer, and no other platform does.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from jaxvit.runtime.platform import platform

Carry = TypeVar("Carry")


def scan(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` over the leading axis of `xs`: rolled, but written out on a CPU."""
    length = len(jax.tree.leaves(xs)[0])
    return jax.lax.scan(body, carry, xs, unroll=length if platform() == "cpu" else 1)


def fold(body: Callable[[Carry, int], Carry], carry: Carry, length: int) -> Carry:
    """body(... body(body(carry, 0), 1) ..., length - 1), written out on every platform: for few turns."""
    for i in range(length):
        carry = body(carry, i)
    return carry
