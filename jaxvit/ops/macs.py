"""Multiply-accumulates of matmuls and convolutions in a jaxpr: which primitives are products, and of what size."""

import math
from typing import Any

import jax

# Products of our own: which of their inputs and output are the outgoing map and the kernel.
CONVOLUTIONS = {
    "convolution": (2, 1),
    "convolution_input_gradient": (0, 1),
    "convolution_kernel_gradient": (1, 2),
}
# which are the input [n, c] and the array [c, d] or [n, d] whose last axis multiplies it
LINEAR = {"linear_tangent": (0, 1), "linear_kernel_gradient": (0, 1)}
# cuDNN's attention: products of all queries with all keys; the gradient computes the logits anew. The forward pass
# stands twice in a program that is differentiated, and runs once.
ATTENTION = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 3}


def is_product(primitive: Any) -> bool:
    """Whether it is a matmul or a convolution."""
    return primitive.name in ("dot_general", "conv_general_dilated", *CONVOLUTIONS, *LINEAR)


def is_product_with_weights(primitive: Any, *_: Any, **params: Any) -> bool:
    """Convolutions, and matmuls with weights; not those of attention, whose results are the largest."""
    if primitive.name == "dot_general":
        (_, _), (batch, _) = params["dimension_numbers"]
        return not batch
    return primitive.name in ("conv_general_dilated", "convolution")


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
        elif eqn.primitive.name in CONVOLUTIONS:
            shapes = [v.aval.shape for v in (*eqn.invars, *eqn.outvars)]
            outputs, kernel = (shapes[i] for i in CONVOLUTIONS[eqn.primitive.name])
            total += math.prod(outputs) * math.prod(kernel[:3])
        elif eqn.primitive.name in LINEAR:
            rows, other = (eqn.invars[i].aval.shape for i in LINEAR[eqn.primitive.name])
            total += math.prod(rows) * other[-1]
        elif eqn.primitive.name in ATTENTION:
            q, k = (v.aval.shape for v in eqn.invars[:2])  # [b, n, heads, hd]
            total += ATTENTION[eqn.primitive.name] * math.prod(q) * k[1]
        elif eqn.primitive.name == "cond":  # one of them runs
            total += max(count_jaxpr(branch.jaxpr) for branch in eqn.params["branches"])
        else:
            repeats = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
            for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
                if _is_jaxpr(inner):
                    total += repeats * count_jaxpr(getattr(inner, "jaxpr", inner))
    return total


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")
