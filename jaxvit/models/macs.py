"""Multiply-accumulates of a model, counted from its jaxpr: matmuls and convolutions, as timm's tables do."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Convolutions of jaxvit/models/cpu_conv.py: which of their inputs and output are the outgoing map and the kernel.
OWN = {
    "cpu_convolution": (2, 1),
    "cpu_convolution_input_gradient": (0, 1),
    "cpu_convolution_kernel_gradient": (1, 2),
}

# cuDNN's attention: products of all queries with all keys; the gradient computes the logits anew. The forward pass
# stands twice in a program that is differentiated, and runs once.
ATTENTION = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 3}


def by_formula(model: Any) -> Any:
    """The same model without attention kernels: they exist on one platform only, and hide their products."""
    return model.clone(attn_implementation=None) if hasattr(model, "attn_implementation") else model


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the multiply-accumulates of one forward pass on one image [h, w, c]. 1 MAC is 2 FLOPs."""
    model, images = by_formula(model), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(model.apply)(variables, images)
    return count_jaxpr(jaxpr.jaxpr)


def count_jaxpr(jaxpr: Any) -> int:
    """Returns the multiply-accumulates of matmuls and convolutions in a jaxpr and those inside it."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            lhs = eqn.invars[0].aval.shape
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[i] for i in contract)
        elif eqn.primitive.name == "conv_general_dilated":
            out = eqn.outvars[0].aval.shape
            kernel = eqn.invars[1].aval.shape
            spec = eqn.params["dimension_numbers"].rhs_spec  # (out features, in features, *spatial)
            total += math.prod(out) * math.prod(kernel) // kernel[spec[0]]
        elif eqn.primitive.name in OWN:
            shapes = [v.aval.shape for v in (*eqn.invars, *eqn.outvars)]
            outputs, kernel = (shapes[i] for i in OWN[eqn.primitive.name])
            total += math.prod(outputs) * math.prod(kernel[:3])
        elif eqn.primitive.name in ATTENTION:
            q, k = (v.aval.shape for v in eqn.invars[:2])  # [b, n, heads, hd]
            total += ATTENTION[eqn.primitive.name] * math.prod(q) * k[1]
        else:
            repeats = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
            for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
                if _is_jaxpr(inner):
                    total += repeats * count_jaxpr(getattr(inner, "jaxpr", inner))
    return total


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")
