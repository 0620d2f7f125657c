"""Multiply-accumulates of a model, counted from its jaxpr: matmuls and convolutions, as timm's tables do."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvit.ops.macs import count_jaxpr


def by_formula(model: Any) -> Any:
    """The same model without attention kernels: they exist on one platform only, and hide their products."""
    return model.clone(attn_implementation="xla") if hasattr(model, "attn_implementation") else model


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the multiply-accumulates of one forward pass on one image [h, w, c]. 1 MAC is 2 FLOPs."""
    model, images = by_formula(model), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(model.apply)(variables, images)
    return count_jaxpr(jaxpr.jaxpr)
