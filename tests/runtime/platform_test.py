"""The platform that a program is traced for."""

import re

import jax
import jax.numpy as jnp
import pytest

from jaxvit import create_model
from jaxvit.errors import UserError
from jaxvit.runtime import platform
from tests.helpers.tiny_swin import tiny


def test_what_is_traced_is_the_same_anywhere_but_for_kernels():
    """Forms of plain XLA are chosen when a program is lowered; a kernel is asked for, and needs a GPU."""
    model = create_model("vit_tiny_patch16_224", image_size=32, depth=1)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def traced(model, variables):
        return re.sub(r" at 0x\w+", "", str(jax.make_jaxpr(model.apply)(variables, images)))

    here = traced(model, variables)
    kernel = tiny(attn_implementation="pallas")
    shapes = jax.eval_shape(kernel.init, jax.random.key(0), images)
    with pytest.raises(UserError, match="needs a GPU, this is a cpu"):
        traced(kernel, shapes)
    with platform.made_for("gpu"):
        assert traced(model, variables) == here
        assert "window_attention_forward" in traced(kernel, shapes)
    assert platform.platform() == "cpu"
