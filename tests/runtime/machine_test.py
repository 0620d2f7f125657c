"""The machine: its memory, its names, and errors of memory."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit.runtime import machine


def test_peak_memory_is_that_of_the_process_on_the_cpu():
    before = machine.peak_memory()
    assert before["peak_memory_of"] == "process"
    block = np.ones(64 * 2**20 // 8)  # 64 MiB that are really written
    assert block.sum() > 0
    assert before["peak_memory_bytes"] <= machine.peak_memory()["peak_memory_bytes"] < 2**40


def test_memory_of_a_program_is_its_arguments_results_and_scratch():
    compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((64, 64))).compile()
    assert machine.planned_memory(compiled) >= 2 * 64 * 64 * 4
    assert machine.planned_memory(compiled) == 64 * 64 * 4 + machine.scratch_memory(compiled)


def test_a_cpu_does_not_say_how_much_it_has():
    assert machine.memory_limit() is None and machine.device_peak() is None
    found = machine.environment()
    assert found["device"] == found["cpu"] and found["jax"] == jax.__version__ and found["numpy"] == np.__version__
