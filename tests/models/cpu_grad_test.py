"""Products with gradients of their own on the CPU: values, derivatives of any order and mode, where they are used."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import create_model
from jaxvit.models import cpu_grad

RNG = np.random.default_rng(0)
X, KERNEL = (jnp.asarray(RNG.standard_normal(s), jnp.float32) for s in ((5, 7), (7, 3)))
MAP, WINDOW = (jnp.asarray(RNG.standard_normal(s), jnp.float32) for s in ((2, 6, 5, 4), (3, 3, 4, 3)))


def plain_conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=cpu_grad.NHWC)


@pytest.mark.parametrize(
    ("ours", "theirs", "args"),
    [(cpu_grad.linear, jnp.matmul, (X, KERNEL)), (cpu_grad.conv3x3, plain_conv, (MAP, WINDOW))],
    ids=["linear", "conv3x3"],
)
def test_every_derivative_is_the_usual_one(ours, theirs, args):
    def all_of(product):
        def f(x, kernel):
            return jnp.sum(jnp.sin(product(x, kernel)))

        return {
            "value": f(*args),
            "both": jax.grad(f, (0, 1))(*args),
            "x alone": jax.grad(f, 0)(*args),
            "kernel alone": jax.grad(f, 1)(*args),
            "forward": jax.jvp(f, args, args)[1],
            "forward over reverse": jax.jvp(jax.grad(f, (0, 1)), args, args)[1],
            "reverse over reverse": jax.grad(lambda x, k: jnp.sum(jax.grad(f, 1)(x, k) ** 2), (0, 1))(*args),
        }

    chex.assert_trees_all_close(all_of(ours), all_of(theirs), rtol=1e-3, atol=1e-3)


def test_linear_layers_use_it_with_any_number_of_axes():
    x = jnp.asarray(RNG.standard_normal((2, 3, 4, 7)), jnp.float32)
    np.testing.assert_allclose(cpu_grad.matmul(x, KERNEL), x @ KERNEL, rtol=1e-5)
    assert "name=linear" in str(jax.make_jaxpr(cpu_grad.matmul)(x, KERNEL))


@pytest.mark.parametrize("shape", [(2, 25, 27, 16), (1, 24, 24, 20)])
def test_own_gradient_of_the_convolution_equals_xlas(shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, shape[3], 24)), jnp.float32)
    weights = jnp.asarray(rng.standard_normal((*shape[:3], 24)), jnp.float32)
    padding = ((1, 1), (1, 1))
    assert cpu_grad.suits(x, kernel, (1, 1), padding)

    def grads(conv):
        return jax.jit(jax.value_and_grad(lambda x, k: jnp.sum(conv(x, k) * weights), (0, 1)))(x, kernel)

    want = grads(lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), padding, dimension_numbers=cpu_grad.NHWC))
    chex.assert_trees_all_close(grads(cpu_grad.conv3x3), want, rtol=1e-4, atol=2e-3)


def test_where_the_own_gradient_is_used():
    x, kernel, padding = jnp.zeros((1, 32, 32, 16)), jnp.zeros((3, 3, 16, 4)), ((1, 1), (1, 1))
    assert cpu_grad.suits(x, kernel, (1, 1), padding)
    assert not cpu_grad.suits(x, kernel, (2, 2), padding)
    assert not cpu_grad.suits(x, kernel, (1, 1), "SAME")
    assert not cpu_grad.suits(x, kernel, (1, 1), padding, rhs_dilation=(2, 2))
    assert not cpu_grad.suits(x, kernel[:, :, :8], (1, 1), padding, feature_group_count=2)
    assert not cpu_grad.suits(x[:, :8, :8], kernel, (1, 1), padding)
    assert not cpu_grad.suits(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), (1, 1), padding)
    jaxpr = jax.make_jaxpr(lambda x: create_model("resnet18", stem="cifar", image_size=32).init(jax.random.key(0), x))
    assert str(jaxpr(jnp.zeros((1, 32, 32, 3)))).count("name=conv3x3") == 4
