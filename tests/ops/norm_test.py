"""Norms in the form for GPUs: the numbers of Flax's, in every mode of differentiation, one array kept."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.models.layers import LayerNorm
from jaxvit.ops.norm import plain_batch_norm, two_sums, two_sums_of_maps


def arrays(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x = jnp.asarray(3 + 2 * rng.standard_normal((2, 5, 24)), dtype)
    params = {"scale": jnp.asarray(1 + rng.standard_normal(24), jnp.float32),
              "bias": jnp.asarray(rng.standard_normal(24), jnp.float32)}  # fmt: skip
    return x, params


def both(*, dtype=None):
    """(the form for GPUs, Flax's own), each of (params, x)."""

    def ours(params, x):
        kind = dtype or jnp.result_type(x, params["scale"])
        return two_sums(x, params["scale"], params["bias"], eps=1e-6, dtype=kind)

    flaxs = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=dtype)
    return ours, lambda params, x: flaxs.apply({"params": params}, x)


def both_of_maps():
    """(the form of BatchNorm for accelerators, the formula), each of (params, x), the statistics in its values."""

    def make(form):
        def norm(params, x):
            y, mean, variance = form(x, params["scale"], params["bias"], eps=1e-5, dtype=jnp.float32)
            return y + jnp.broadcast_to(0.1 * mean * variance, y.shape)

        return norm

    return make(two_sums_of_maps), make(plain_batch_norm)


@pytest.mark.parametrize("pair", [both, both_of_maps])
def test_every_derivative_is_that_of_the_formula(pair):
    x, params = arrays()
    dx, dparams = jnp.cos(x), jax.tree.map(jnp.sin, params)

    def modes(norm):
        def loss(params, x):
            return jnp.sum(jnp.sin(norm(params, x)))

        gradient = jax.grad(loss, (0, 1))
        return {
            "value": norm(params, x),
            "gradient": gradient(params, x),
            "forward": jax.jvp(norm, (params, x), (dparams, dx))[1],
            "forward over reverse": jax.jvp(gradient, (params, x), (dparams, dx))[1],
            "reverse over reverse": jax.grad(lambda x: jnp.sum(gradient(params, x)[1] ** 2))(x),
            "of each": jax.vmap(gradient, (None, 0))(params, x),
            "again": jax.grad(jax.checkpoint(loss), (0, 1))(params, x),
        }

    ours, flaxs = pair()
    found, wanted = jax.jit(lambda: (modes(ours), modes(flaxs)))()
    for mode, expected in wanted.items():
        chex.assert_trees_all_close(found[mode], expected, rtol=2e-5, atol=2e-5, custom_message=mode)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_16_bits_and_constant_rows(dtype):
    x, params = arrays(jnp.bfloat16)
    x = x.at[0, 0].set(1.0)  # its variance is 0
    ours, flaxs = both(dtype=dtype)
    found, wanted = ours(params, x), flaxs(params, x)
    assert found.dtype == wanted.dtype == (dtype or jnp.float32)
    chex.assert_trees_all_close(found.astype(jnp.float32), wanted.astype(jnp.float32), rtol=1e-2, atol=1e-5)
    gradients = [jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(params, x).astype(jnp.float32))))(x) for f in (ours, flaxs)]
    chex.assert_tree_all_finite(gradients[0])
    chex.assert_trees_all_close(gradients[0][0, 1:], gradients[1][0, 1:], rtol=2e-2, atol=2e-2)


def test_the_backward_pass_keeps_the_input_and_two_numbers_a_row():
    x, params = arrays(jnp.bfloat16)
    ours, flaxs = (jax.vjp(norm, params, x)[1] for norm in both(dtype=jnp.bfloat16))

    def kept(pull):
        return sum(leaf.nbytes for leaf in jax.tree.leaves(pull) if leaf.size >= x.size // x.shape[-1])

    assert kept(ours) <= x.nbytes + 2 * 4 * x.size // x.shape[-1] + 3 * 4 * x.shape[-1] < kept(flaxs)


def test_a_program_for_the_cpu_is_flaxs_own():
    x, params = arrays()
    fields = {"epsilon": 1e-6, "use_fast_variance": False}

    def program(norm):
        gradient = jax.grad(lambda params, x: jnp.sum(norm.apply({"params": params}, x) ** 2))
        return jax.jit(gradient).lower(params, x).compile().as_text()

    programs = [program(norm) for norm in (LayerNorm(**fields), nn.LayerNorm(**fields))]
    lines = [[line.split(", metadata=")[0] for line in text.splitlines() if " = " in line] for text in programs]
    bare = [sorted(re.sub(r"%[\w.-]+", "%", line) for line in found) for found in lines]  # names are numbered
    assert bare[0] == bare[1]


def test_the_backward_pass_of_batch_norm_keeps_the_maps_and_sums_them_twice():
    """Left to itself the formula takes a third sum, which waits for the other two, and keeps maps in 32 bits."""
    x, params = arrays(jnp.bfloat16)

    def pulled(form):
        def norm(x, scale, bias):
            return form(x, scale, bias, eps=1e-5, dtype=jnp.bfloat16)[0]

        y, pull = jax.vjp(norm, x, params["scale"], params["bias"])
        lines = jax.jit(pull).lower(y).as_text().splitlines()
        maps = re.compile(r"stablehlo\.reduce\(.*: \(tensor<(10|2x5)x24xf32>")
        return sum(bool(maps.search(line)) for line in lines), sum(
            leaf.nbytes for leaf in jax.tree.leaves(pull) if leaf.size >= x.size
        )

    assert pulled(two_sums_of_maps) == (2, x.nbytes)
    assert min(np.subtract(pulled(plain_batch_norm), (2, x.nbytes))) > 0
