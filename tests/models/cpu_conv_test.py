"""Convolutions with products of their own on the CPU: derivatives, precision, where and in which form they are used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxvit import create_model
from jaxvit.models import cpu_conv
from jaxvit.models.macs import count_jaxpr, count_macs
from jaxvit.runtime.platform import made_for
from tests.models.cpu_grad_test import derivatives

ONES = ((1, 1), (1, 1))
CASES = {  # batch, height, width, channels, features, side of the kernel, stride, padding, groups
    "winograd": (2, 10, 9, 16, 24, 3, 1, 1, 1),
    "few pixels": (1, 5, 4, 16, 16, 3, 1, 1, 1),
    "few channels": (2, 9, 9, 3, 16, 3, 1, 1, 1),
    "strided": (2, 11, 10, 16, 16, 3, 2, 1, 1),
    "stem": (2, 23, 20, 3, 16, 7, 2, 3, 1),
    "5x5": (2, 12, 12, 16, 16, 5, 1, 2, 1),
    "no padding": (2, 12, 12, 16, 16, 3, 1, 0, 1),
    "grouped": (2, 9, 10, 64, 96, 3, 1, 1, 16),
    "grouped, strided": (2, 9, 10, 48, 24, 3, 2, 1, 6),
    "each channel alone": (2, 9, 10, 20, 20, 3, 1, 1, 20),
    "winograd, some images at a time": (6, 10, 9, 16, 24, 3, 1, 1, 1),
    "stem, some images at a time": (3, 23, 20, 3, 16, 7, 2, 3, 1),
    "grouped, some images at a time": (4, 9, 10, 64, 96, 3, 1, 1, 16),
}


def case(name):
    b, h, w, c, d, size, stride, pad, groups = CASES[name]
    rng, c_in = np.random.default_rng(0), c // groups
    x, kernel = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((b, h, w, c), (size, size, c_in, d)))
    how = {"strides": (stride, stride), "padding": ((pad, pad), (pad, pad)), "groups": groups}
    return x, kernel / (size * c_in**0.5), how


@pytest.mark.parametrize("name", CASES)
def test_every_derivative_is_the_usual_one(name, monkeypatch):
    x, kernel, how = case(name)
    if "at a time" in name:
        monkeypatch.setattr(cpu_conv, "PART", 2 * x[0].size)
        assert cpu_conv.images_a_part(x) == (1 if len(x) == 3 else 2)
    ours = derivatives(lambda x, k: cpu_conv.convolution(x, k, **how), x, kernel)
    usual = derivatives(functools.partial(cpu_conv.plain, **how), x, kernel)
    for word, value in usual.items():
        for a, b in zip(jax.tree.leaves(ours[word]), jax.tree.leaves(value), strict=True):
            assert jnp.max(jnp.abs(a - b)) <= 1e-5 * jnp.max(jnp.abs(b)), word


@pytest.mark.parametrize("shape", [(2, 16, 16, 64), (2, 7, 7, 256)])
def test_winograd_rounds_no_worse_than_the_usual_form(shape):
    """Against float64: values and both gradients."""
    rng, c = np.random.default_rng(0), shape[-1]
    x, kernel, dy = (rng.standard_normal(s) for s in (shape, (3, 3, c, c), shape))

    def all_of(conv, *arrays):
        y, back = jax.vjp(conv, *arrays[:2])
        return y, *back(arrays[2])

    plain = functools.partial(cpu_conv.plain, strides=(1, 1), padding=ONES)
    short = [jnp.asarray(a, jnp.float32) for a in (x, kernel, dy)]
    ours = all_of(lambda x, k: cpu_conv.convolution(x, k, (1, 1), ONES), *short)
    usual = all_of(plain, *short)
    with jax.enable_x64(True):
        exact = [np.asarray(a) for a in all_of(plain, *(jnp.asarray(np.asarray(a), jnp.float64) for a in short))]
    for a, b, true in zip(ours, usual, exact, strict=True):
        assert np.std(a - true) < 2 * np.std(b - true) and np.std(a - true) < 1e-6 * np.std(true)


def test_forms_in_the_program_for_the_cpu_and_for_others():
    x, kernel, how = case("winograd")
    traced = jax.jit(lambda x, k: cpu_conv.convolution(x, k, **how)).trace(x, kernel)
    here, there = (traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu"))
    assert here.count("dot_general") == 4 and "stablehlo.convolution" not in here
    assert there.count("stablehlo.convolution") == 1 and "dot_general" not in there


def test_over_several_devices_only_gradients_are_sent():
    """Products of some images at a time would gather the batch."""
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x, kernel = jax.ShapeDtypeStruct((8, 32, 32, 64), jnp.float32), jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)
    _, _, how = case("winograd")

    def loss(kernel, x):
        return jnp.sum(cpu_conv.convolution(x, kernel, **how) ** 2)

    program = jax.jit(jax.grad(loss), in_shardings=(whole, split), out_shardings=whole).lower(kernel, x)
    text = program.compile().as_text()
    assert "all-reduce" in text
    assert not [word for word in ("all-gather", "all-to-all", "collective-permute") if word in text]


def test_images_a_part(monkeypatch):
    monkeypatch.setattr(cpu_conv, "PART", 400)
    for images, wanted in {1: 1, 2: 2, 4: 4, 8: 4, 12: 4, 6: 3, 10: 5, 9: 3, 7: 7, 14: 2, 26: 2, 25: 5}.items():
        assert cpu_conv.images_a_part(jnp.zeros((images, 5, 5, 4)), jnp.zeros((images, 1))) == wanted, images


def test_where_they_are_used():
    x, kernel = jnp.zeros((1, 32, 32, 16)), jnp.zeros((3, 3, 16, 16))
    assert cpu_conv.suits(x, kernel, ONES)
    assert not cpu_conv.suits(x, kernel, "SAME")
    assert not cpu_conv.suits(x, kernel, ONES, rhs_dilation=(2, 2))
    assert cpu_conv.suits(x, kernel[:, :, :8], ONES, feature_group_count=2)
    assert not cpu_conv.suits(x, kernel[..., :8], ONES)
    assert not cpu_conv.suits(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), ONES)
    model = create_model("resnet18", stem="cifar", image_size=32)

    def count():
        jaxpr = jax.make_jaxpr(lambda x: model.init(jax.random.key(0), x))(jnp.zeros((1, 32, 32, 3)))
        return str(jaxpr).count("cpu_convolution["), count_jaxpr(jaxpr.jaxpr)

    own, macs = count()
    with made_for("tpu"):
        none, usual = count()
    assert (own, none) == (17, 0)  # but for three 1x1 shortcuts, which are matmuls
    assert macs == usual == count_macs(model, (32, 32, 3))


def test_sixteen_bits_are_computed_in_float32():
    x, kernel, how = case("winograd")
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    given = {"dimension_numbers": jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}
    y = cpu_conv.conv_general_dilated(x, kernel, how["strides"], how["padding"], **given)
    exact = cpu_conv.plain(x.astype(jnp.float32), kernel.astype(jnp.float32), **how)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-8, atol=1e-5)
    with made_for("tpu"):
        jaxpr = jax.make_jaxpr(lambda x, k: cpu_conv.conv_general_dilated(x, k, (1, 1), ONES, **given))(x, kernel)
    assert "f32" not in str(jaxpr)


def test_both_gradients_count_the_products_of_the_convolution():
    x, kernel, how = case("strided")
    y = cpu_conv.plain(x, kernel, **how)

    def gradient(x, kernel):
        return jax.vjp(lambda x, k: cpu_conv.convolution(x, k, **how), x, kernel)[1](y)

    assert count_jaxpr(jax.make_jaxpr(gradient)(x, kernel).jaxpr) == 3 * y.size * 9 * 16


def test_mapped_over_images():
    x, kernel, how = case("winograd")
    stack = jnp.stack([x, 2 * x])
    gradients = jax.vmap(jax.grad(lambda x, k: jnp.sum(cpu_conv.convolution(x, k, **how) ** 2)), (0, None))(
        stack, kernel
    )
    np.testing.assert_allclose(gradients[1], 2 * gradients[0], rtol=1e-4, atol=1e-4)
