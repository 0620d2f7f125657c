"""Convolutions with products of their own on the CPU: derivatives, precision, where and in which form they are used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxvit import create_model
from jaxvit.models.macs import count_macs
from jaxvit.ops import conv as conv_op
from jaxvit.ops import conv_products
from jaxvit.ops.macs import count_jaxpr
from tests.helpers.conv_cases import CASES, case
from tests.helpers.derivatives import derivatives

ONES = ((1, 1), (1, 1))


@pytest.mark.parametrize("name", CASES)
def test_every_derivative_is_the_usual_one(name, monkeypatch):
    x, kernel, how = case(name)
    if "at a time" in name:
        monkeypatch.setattr(conv_products, "PART", 2 * x[0].size)
        assert conv_products.images_a_part(x) == (1 if len(x) == 3 else 2)
    ours = derivatives(lambda x, k: conv_op.conv(x, k, **how), x, kernel)
    usual = derivatives(functools.partial(conv_products.plain, **how), x, kernel)
    for word, value in usual.items():
        for a, b in zip(jax.tree.leaves(ours[word]), jax.tree.leaves(value), strict=True):
            assert jnp.max(jnp.abs(a - b)) <= 1e-5 * jnp.max(jnp.abs(b)), word


def test_forms_in_the_program_for_the_cpu_and_for_others():
    x, kernel, how = case("winograd")
    traced = jax.jit(lambda x, k: conv_op.conv(x, k, **how)).trace(x, kernel)
    here, there = (traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu"))
    assert here.count("dot_general") == 4 and "stablehlo.convolution" not in here
    assert there.count("stablehlo.convolution") == 1 and "dot_general" not in there


@pytest.mark.parametrize("platform, argument, constrained", [("cuda", 1, True), ("cuda", 0, False), ("tpu", 1, False)])
def test_on_a_gpu_the_gradient_of_a_kernel_lies_as_the_kernel_does(platform, argument, constrained):
    """So the optimiser's update can write in place."""
    x, kernel, how = case("winograd")
    gradient = jax.grad(lambda x, k: jnp.sum(conv_op.conv(x, k, **how) ** 2), argument)
    text = jax.jit(gradient).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert ("LayoutConstraint" in text) is constrained


def test_over_several_devices_only_gradients_are_sent():
    """Products of some images at a time would gather the batch."""
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x, kernel = jax.ShapeDtypeStruct((8, 32, 32, 64), jnp.float32), jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)
    _, _, how = case("winograd")

    def loss(kernel, x):
        return jnp.sum(conv_op.conv(x, kernel, **how) ** 2)

    program = jax.jit(jax.grad(loss), in_shardings=(whole, split), out_shardings=whole).lower(kernel, x)
    text = program.compile().as_text()
    assert "all-reduce" in text
    assert not [word for word in ("all-gather", "all-to-all", "collective-permute") if word in text]


def test_a_convolution_is_one_primitive_in_every_model():
    model = create_model("resnet18", stem="cifar", image_size=32)
    jaxpr = jax.make_jaxpr(lambda x: model.init(jax.random.key(0), x))(jnp.zeros((1, 32, 32, 3)))
    assert str(jaxpr).count("convolution[") == 20 and "conv_general_dilated" not in str(jaxpr)
    assert count_jaxpr(jaxpr.jaxpr) == count_macs(model, (32, 32, 3))


def test_others_are_laxs_own():
    x, kernel, how = case("strided")
    given = {"dimension_numbers": jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}
    for padding, more in (("SAME", {}), (ONES, {"rhs_dilation": (2, 2)}), (ONES, {"lhs_dilation": (2, 2)})):
        run = functools.partial(conv_op.conv_general_dilated, window_strides=how["strides"], padding=padding)
        assert "conv_general_dilated" in str(
            jax.make_jaxpr(lambda x, k, run=run, more=more: run(x, k, **given, **more))(x, kernel)
        )


def test_sixteen_bits_are_computed_in_float32():
    x, kernel, how = case("winograd")
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    given = {"dimension_numbers": jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}
    y = conv_op.conv_general_dilated(x, kernel, how["strides"], how["padding"], **given)
    exact = conv_products.plain(x.astype(jnp.float32), kernel.astype(jnp.float32), **how)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-8, atol=1e-5)
    run = jax.jit(lambda x, k: conv_op.conv_general_dilated(x, k, (1, 1), ONES, **given)).trace(x, kernel)
    assert "f32" not in run.lower(lowering_platforms=("tpu",)).as_text()


def test_mapped_over_images():
    x, kernel, how = case("winograd")
    stack = jnp.stack([x, 2 * x])
    gradients = jax.vmap(jax.grad(lambda x, k: jnp.sum(conv_op.conv(x, k, **how) ** 2)), (0, None))(stack, kernel)
    np.testing.assert_allclose(gradients[1], 2 * gradients[0], rtol=1e-4, atol=1e-4)
