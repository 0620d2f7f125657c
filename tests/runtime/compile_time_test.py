"""Time spent compiling."""

import time

import jax
import jax.numpy as jnp

from jaxvit.runtime import compile_time


def test_compilation_is_counted_once():
    before = compile_time.seconds()
    begun = time.monotonic()
    inner = jax.jit(lambda x: jnp.sort(x) + 1)
    jax.jit(lambda x: inner(x) * inner(x + 1))(jnp.ones(321)).block_until_ready()
    assert 0 < compile_time.seconds() - before <= time.monotonic() - begun
