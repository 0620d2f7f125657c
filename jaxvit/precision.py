"""Which float a value is computed in: float32 at least, and float64 where that is switched on (`jax_enable_x64`)."""

from typing import Any

import jax
import jax.numpy as jnp


def at_least_float32(x: Any) -> jax.Array:
    """Returns bfloat16 and float16 as float32, wider types as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def full_float() -> Any:
    """The type of images, targets and sums: float32, or float64 under `jax_enable_x64`."""
    return jnp.result_type(float)
