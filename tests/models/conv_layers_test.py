"""Pooling, attention and initialisation of the convolutional families, each against an independent form."""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.models import conv_layers
from jaxvit.ops import norm as norm_op
from jaxvit.ops import pooling


def feature_map(h, w, c=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, h, w, c)), jnp.float32)


@pytest.mark.parametrize(("name", "width"), [("avg", 3), ("max", 3), ("avgmax", 3), ("catavgmax", 6)])
def test_global_pools(name, width):
    x = feature_map(4, 5)
    got = pooling.GLOBAL_POOLS[name](x)
    chex.assert_shape(got, (2, width))
    mean, top = np.asarray(x).mean((1, 2)), np.asarray(x).max((1, 2))
    want = {"avg": mean, "max": top, "avgmax": (mean + top) / 2, "catavgmax": np.concatenate([mean, top], 1)}
    np.testing.assert_allclose(got, want[name], rtol=1e-5, atol=1e-6)


def test_squeeze_excite_by_hand():
    x = feature_map(3, 4, 16)
    module = conv_layers.SqueezeExcite(rd_ratio=0.25)
    variables = module.init(jax.random.key(0), x)
    p = jax.tree.map(np.asarray, variables["params"])
    chex.assert_shape(p["fc1"]["kernel"], (1, 1, 16, 8))  # 16 / 4 rounded up to the least width, 8
    s = np.maximum(np.asarray(x).mean((1, 2)) @ p["fc1"]["kernel"][0, 0] + p["fc1"]["bias"][None], 0)
    s = s @ p["fc2"]["kernel"][0, 0] + p["fc2"]["bias"][None]
    want = np.asarray(x) / (1 + np.exp(-s))[:, None, None]
    np.testing.assert_allclose(module.apply(variables, x), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("channels", "size"), [(64, 3), (256, 5), (512, 5), (2048, 7)])
def test_eca_by_hand(channels, size):
    x = feature_map(3, 4, 12)  # a pruned block: fewer channels than the kernel size was chosen for
    module = conv_layers.EfficientChannelAttention(channels)
    variables = module.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    chex.assert_shape(kernel, (size, 1, 1))
    means = np.asarray(x).mean((1, 2))
    s = np.stack([np.correlate(np.pad(row, size // 2), kernel[:, 0, 0], "valid") for row in means])
    want = np.asarray(x) / (1 + np.exp(-s))[:, None, None]
    np.testing.assert_allclose(module.apply(variables, x), want, rtol=1e-4, atol=1e-6)


def test_initial_values_have_the_spread_of_torch():
    bias = conv_layers.torch_bias(25)(jax.random.key(0), (4000,))
    assert 0.199 < float(jnp.abs(bias).max()) <= 0.2
    grouped = conv_layers.conv(64, 3, name="x", feature_group_count=4).kernel_init(jax.random.key(0), (3, 3, 16, 64))
    np.testing.assert_allclose(grouped.std(), math.sqrt(2 / (64 * 9)), rtol=0.03)  # fan-out counts all groups


def test_mistakes_are_answered():
    with pytest.raises(UserError, match=r"aa_layer='blurr' is not known; expected one of 'avg', 'blur'.*'blur'"):
        conv_layers.anti_alias(feature_map(4, 4), "blurr")
    with pytest.raises(UserError, match="1x4 cannot be halved"):
        conv_layers.anti_alias(feature_map(1, 4), "blur")
    with pytest.raises(UserError, match="1 channels; the model expects in_channels=3"):
        conv_layers.check_images(feature_map(4, 4, 1), in_channels=3, least=1, family="ResNet")
    with pytest.raises(UserError, match=r"expected \[batch, height, width, channels\]"):
        conv_layers.check_images(jnp.zeros((4, 4, 3)), in_channels=3, least=1, family="ResNet")


def test_batch_norm_equals_flax_but_for_the_unbiased_average_and_keeps_it_in_float32():
    x = jax.random.normal(jax.random.key(0), (6, 5, 4, 3)) * 3 + 2
    for dtype in (jnp.float32, jnp.bfloat16):
        ours = conv_layers.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=dtype)
        flax = nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=dtype, use_fast_variance=False)
        variables = flax.init(jax.random.key(1), x, use_running_average=False)
        chex.assert_trees_all_equal(variables, ours.init(jax.random.key(1), x, use_running_average=False))
        for at_rest in (False, True):
            given, wanted = (
                layer.apply(variables, x.astype(dtype), use_running_average=at_rest, mutable=["batch_stats"])
                for layer in (ours, flax)
            )
            stats, flaxs = (side[1]["batch_stats"] for side in (given, wanted))
            chex.assert_trees_all_equal((given[0], stats["mean"]), (wanted[0], flaxs["mean"]))
            n = x.size // 3  # values of a channel
            unbiased = 0.9 + (flaxs["var"] - 0.9) * n / (n - 1)
            chex.assert_trees_all_close(stats["var"], flaxs["var"] if at_rest else unbiased, rtol=1e-6)
            assert stats["var"].dtype == jnp.float32


@pytest.mark.parametrize("shape", [(2, 2, 2, 3), (8, 1, 1, 3), (1, 1, 1, 3)])
def test_the_running_variance_is_the_unbiased_estimate(shape):
    norm = conv_layers.BatchNorm(momentum=0.9, epsilon=1e-5)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    variables = norm.init(jax.random.key(0), x, use_running_average=False)
    _, moved = norm.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    rows = np.float64(x).reshape(-1, 3)
    wanted = 0.9 + 0.1 * (rows.var(0, ddof=1) if len(rows) > 1 else 0.0)
    np.testing.assert_allclose(moved["batch_stats"]["var"], wanted, rtol=1e-6)


def test_batch_norm_reads_the_maps_once_on_accelerators_alone():
    """The form is chosen when the program is lowered: in one pass nothing is subtracted before it is squared."""
    norm = conv_layers.BatchNorm(momentum=0.9, epsilon=1e-5)
    x = jnp.ones((4, 3, 3, 2))
    variables = norm.init(jax.random.key(0), x, use_running_average=False)

    def loss(x):
        y, _ = norm.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        return jnp.sum(y**3)

    traced = jax.jit(jax.value_and_grad(loss)).trace(x)
    maximum = {p: traced.lower(lowering_platforms=(p,)).as_text().count("stablehlo.maximum") for p in ("cpu", "cuda")}
    assert maximum["cpu"] == 0 < maximum["cuda"]  # the clip of the variance


@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (5.0, 0.5), (3.0, 0.0)])
def test_the_variance_in_one_pass(mean, std):
    x = np.random.default_rng(0).normal(mean, std, (64, 8, 8, 3)).astype(np.float32)
    wide, ones = x.astype(np.float64), jnp.ones(3)
    for form, eps in (("two_sums", 4e-6), ("plain", 1e-6)):
        _, _, found = norm_op.BATCH_FORMS[form](jnp.asarray(x), ones, ones, eps=1e-5, dtype=jnp.float32)
        np.testing.assert_allclose(found, wide.var((0, 1, 2)), atol=eps * (mean**2 + std**2))
        assert (np.asarray(found) >= 0).all()
