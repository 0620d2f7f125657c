"""Shared by all tests: eight virtual CPU devices, quick compilation, strict rank promotion, a compile cache."""

import os
import tempfile

# Must be set before jax starts its backend.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: without LLVM's optimisation they take half the time.
for flag, value in (("xla_force_host_platform_device_count", 8), ("xla_backend_optimization_level", 0)):
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{flag}={value}".strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "jaxvit-test-cache"))

import jax  # noqa: E402
import pytest  # noqa: E402

from jaxvit.data import index_file  # noqa: E402

jax.devices()  # starts the backend with these flags, whatever a test does to them later
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(autouse=True, scope="session")
def no_index():
    """Data sets of tests leave nothing in the user's cache directory, however long a busy machine reads them."""
    index_file.WORTH_SECS = float("inf")
