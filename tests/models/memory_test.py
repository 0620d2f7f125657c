"""Rematerialisation and the loop over blocks: the same numbers, less memory, one parameter layout."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit import create_model
from jaxvit.errors import UserError
from tests.helpers.tiny_steps import MODELS, products

VIT = {**MODELS["vit"][1], "num_classes": 3, "image_size": 16, "depth": 2}
CASES = {
    "vit": ("vit_tiny_patch16_224", VIT),
    "swin": (MODELS["swin"][0], {**MODELS["swin"][1], "num_classes": 3, "image_size": 16}),
    "resnet": ("resnet18", {"layers": (1, 1), "channels": (8, 8), "stem": "cifar", "num_classes": 3}),
}


def loss_of(family, make=jax.jit, **fields):
    """A loss with its gradient, and parameters; with `make=abstract` zeros, which cost nothing."""
    name, usual = CASES[family]
    model = create_model(name, **{**usual, **fields})
    images = jnp.asarray(np.random.default_rng(0).standard_normal((4, 16, 16, 3)), jnp.float32)
    variables = make(model.init)(jax.random.key(0), images)

    def loss(params, key):
        out = model.apply({**variables, "params": params}, images, train=True, rngs={"dropout": key}, mutable=True)
        return jnp.sum(out[0] ** 2)

    return jax.jit(jax.value_and_grad(loss)), variables["params"]


def abstract(function):
    """In the place of `jax.jit` where nothing is run: zeros of the right shapes."""
    return lambda *args: jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(function, *args))


@pytest.mark.parametrize("family", CASES)
def test_policies_compute_again_what_they_do_not_keep(family):
    def count(**fields):
        fn, params = loss_of(family, make=abstract, **fields)
        return products(jax.make_jaxpr(fn)(params, jax.random.key(1)).jaxpr)

    plain, dots, block = count(), count(remat="dots"), count(remat="block")
    assert count(remat="none") == count(remat=False) == plain and count(remat=True) == block
    assert plain <= dots < block  # "dots" computes only the products of attention again
    assert (plain < dots) == (family != "resnet")


@pytest.mark.slow
@pytest.mark.parametrize("family", CASES)
def test_policies_do_not_change_the_gradient(family):
    fields = {"drop_path_rate": 0.3}
    plain, params = loss_of(family, **fields)
    want = plain(params, jax.random.key(1))
    for policy in ("dots", "block", True):
        fn, same = loss_of(family, remat=policy, **fields)
        chex.assert_trees_all_equal(same, params)
        chex.assert_trees_all_close(fn(params, jax.random.key(1)), want, rtol=2e-4, atol=2e-4)


def test_the_loop_over_blocks_is_the_blocks_one_by_one():
    plain, params = loss_of("vit")
    looped, same = loss_of("vit", scan=True)
    chex.assert_trees_all_equal(same, params)
    want, got = plain(params, jax.random.key(1)), looped(params, jax.random.key(1))
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)
    remat, _ = loss_of("vit", scan=True, remat="dots", drop_path_rate=0.3, proj_drop_rate=0.1)
    values = [float(remat(params, jax.random.key(k))[0]) for k in (1, 1, 2)]
    assert values[0] == values[1] != values[2]  # random, and by the key alone


def test_the_loop_shows_intermediates_and_refuses_unequal_blocks():
    model = create_model("vit_tiny_patch16_224", **VIT, scan=True)
    images = jnp.zeros((1, 16, 16, 3))
    variables = model.init(jax.random.key(0), images)
    _, seen = model.apply(variables, images, mutable="intermediates")
    assert set(seen["intermediates"]) == {"blocks_0", "blocks_1"}
    with pytest.raises(UserError, match="needs equal blocks"):
        create_model("vit_tiny_patch16_224", **VIT, scan=True, attn_layer="diff")
    with pytest.raises(UserError, match="remat='dot' is unknown.*dots"):
        create_model("resnet18", remat="dot")
