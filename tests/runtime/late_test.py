"""Results are fetched one step late, in order and whole."""

import jax.numpy as jnp
import numpy as np

from jaxvit.runtime.late import Late, fetched


def test_a_result_is_fetched_when_the_next_has_been_dispatched():
    dispatched = []

    def results():
        for i in range(4):
            dispatched.append(i)
            yield {"names": [f"file {i}"], "value": jnp.full(2, i)}

    for i, found in enumerate(fetched(results())):
        assert dispatched[-1] == min(i + 1, 3)
        assert found["names"] == [f"file {i}"] and isinstance(found["value"], np.ndarray)
        np.testing.assert_array_equal(found["value"], [i, i])
    assert i == 3 and list(fetched([])) == []


def test_what_is_left_is_given_once():
    late = Late()
    assert late.put(jnp.float32(1)) == [] and late.put(jnp.float32(2)) == [1]
    assert late.rest() == [2] and late.rest() == []
