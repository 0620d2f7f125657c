"""Widths of floats."""

import jax
import jax.numpy as jnp
import pytest

from jaxvit import precision


@pytest.mark.parametrize(("given", "expected"), [("bfloat16", "float32"), ("float16", "float32"), ("float32",) * 2])
def test_narrow_floats_are_widened(given, expected):
    assert precision.at_least_float32(jnp.ones(2, given)).dtype == expected


def test_float64_is_kept_where_it_is_switched_on():
    assert precision.full_float() == jnp.float32
    with jax.enable_x64(True):
        assert precision.full_float() == jnp.float64
        assert precision.at_least_float32(jnp.ones(2, "float64")).dtype == "float64"
