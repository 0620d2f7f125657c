"""The clock of the bench."""

import jax.numpy as jnp

from jaxvit.bench.clock import timed


def test_the_clock_counts_calls():
    seen = []

    def call(carry):
        seen.append(carry)
        return carry + 1

    timing, carry = timed(call, jnp.float32(0), repeats=3, seconds=0.01)
    assert len(seen) == 3 + 3 * timing.calls == int(carry)
    assert timing.least <= timing.median <= timing.most
