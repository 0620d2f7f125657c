"""Kinds of errors."""

import pytest

from jaxvit.errors import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), True),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), True),
        (RuntimeError("XLA:TPU compile permanent error. Ran out of memory in memory space hbm."), True),
        (RuntimeError("no ROOM"), False),
    ],
)
def test_errors_of_memory_are_known(error, is_it):
    assert is_out_of_memory(error) == is_it
