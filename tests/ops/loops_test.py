"""Loops whose body holds a model: rolled or written out by the platform, with one result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.ops import loops
from jaxvit.runtime import platform


@pytest.mark.parametrize("kind, rolled", [("cpu", False), ("gpu", True), ("tpu", True)])
def test_a_scan_is_written_out_on_a_cpu_alone(kind, rolled):
    rows = jnp.arange(12.0).reshape(4, 3)

    def run(rows):
        return loops.scan(lambda total, row: (total + row, total[0]), jnp.zeros(3), rows)

    with platform.made_for(kind):
        made = jax.jit(run).lower(rows)
        total, before = jax.jit(run)(rows)
    assert ("stablehlo.while" in made.as_text()) == rolled
    np.testing.assert_array_equal(total, rows.sum(0))
    np.testing.assert_array_equal(before, [0, 0, 3, 9])


def test_a_fold_hands_on_its_carry_in_order():
    assert loops.fold(lambda done, i: [*done, (i, len(done))], [], 3) == [(0, 0), (1, 1), (2, 2)]
    made = jax.jit(lambda x: loops.fold(lambda x, i: jnp.sin(x) + i, x, 3)).lower(1.0).as_text()
    assert "while" not in made and made.count("stablehlo.sine") == 3
