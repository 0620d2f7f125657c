"""Marks of tests that need what not every machine has."""

import pytest

from jaxvit.commands import plan
from jaxvit.plan import gpus

needs_cuda = pytest.mark.skipif(
    not any(plan._has(name) for name in gpus.PLUGINS), reason="needs JAX's CUDA packages"
)  # fmt: skip
