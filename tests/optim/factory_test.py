"""Optimisers: one step by hand, decay and clipping, frozen parameters, layer-wise rates, every optax alias."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxvit import optim, tree
from jaxvit.errors import UserError

SHAPES = {
    "patch_embed/proj/kernel": (2, 2, 3, 4),  # a convolution's
    "patch_embed/proj/bias": (4,),
    "cls_token": (1, 1, 4),
    "pos_embed": (1, 5, 4),
    "blocks_0/norm1/scale": (4,),
    "blocks_0/attn/relative_position_bias_table": (9, 2),
    "blocks_0/mlp/fc1/kernel": (4, 4),
    "blocks_1/mlp/fc1/kernel": (4, 4),
    "norm/scale": (4,),
    "head/kernel": (4, 2),
    "head/bias": (2,),
}


def make_params(seed=0):
    rng = np.random.default_rng(seed)
    return tree.unflatten({k: rng.normal(size=s).astype(np.float32) for k, s in SHAPES.items()})


PARAMS, GRADS = make_params(0), make_params(1)


def step(tx, params=PARAMS, grads=GRADS, **extra):
    return jax.jit(lambda g, p: tx.update(g, tx.init(p), p, **extra)[0])(grads, params)


def norm(updates):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(updates)))


def test_one_adamw_step_by_hand():
    tx = optim.make_optimizer(PARAMS, schedule=lambda _: 0.1, weight_decay=0.2, b1=0.8, b2=0.9, eps=1e-3)
    updates = tree.named_leaves(step(tx))
    for path, w in tree.named_leaves(PARAMS).items():
        w, g = np.asarray(w, np.float64), np.asarray(tree.named_leaves(GRADS)[path], np.float64)
        m, v = 0.2 * g / (1 - 0.8), 0.1 * g**2 / (1 - 0.9)  # bias-corrected
        decay = 0.2 * w if path.endswith("kernel") else 0.0
        np.testing.assert_allclose(updates[path], -0.1 * (m / (np.sqrt(v) + 1e-3) + decay), rtol=2e-5)


def test_sgd_has_pytorchs_l2_term_and_momentum():
    tx = optim.make_optimizer(PARAMS, name="sgd", schedule=0.1, weight_decay=0.5)
    state, params, buffer, w = tx.init(PARAMS), PARAMS, 0.0, np.asarray(PARAMS["head"]["kernel"])
    update = jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(GRADS, state, params)
        params = jax.tree.map(np.add, params, updates)
        buffer = 0.9 * buffer + np.asarray(GRADS["head"]["kernel"]) + 0.5 * w
        w = w - 0.1 * buffer
    np.testing.assert_allclose(params["head"]["kernel"], w, rtol=1e-5)
    bias = np.asarray(PARAMS["head"]["bias"] - 0.1 * GRADS["head"]["bias"] * (1 + 1.9 + 2.71))
    np.testing.assert_allclose(params["head"]["bias"], bias, rtol=1e-5)


def test_decay_is_on_kernels_only():
    assert [path for path, on in tree.named_leaves(optim.decay_mask(PARAMS)).items() if on] == [
        "blocks_0/mlp/fc1/kernel",
        "blocks_1/mlp/fc1/kernel",
        "head/kernel",
        "patch_embed/proj/kernel",
    ]
    zeros = jax.tree.map(np.zeros_like, GRADS)
    for name in ("adamw", "lamb", "lion", "muon", "adam", "sgd"):
        tx = optim.make_optimizer(PARAMS, name=name, schedule=0.1, weight_decay=0.5)
        for path, update in tree.named_leaves(step(tx, grads=zeros)).items():
            assert bool(np.any(update != 0)) == path.endswith("kernel"), (name, path)


@pytest.mark.parametrize("name", sorted(optim.optimizers()))
def test_a_warm_up_may_begin_at_a_rate_of_0(name):
    schedule = optim.make_schedule("cosine", learning_rate=0.01, total_steps=9, steps_per_epoch=3, warmup_steps=3)
    options = {"b3": 0.9} if name == "adan" else {}
    tx = optim.make_optimizer(PARAMS, name=name, schedule=schedule, **options)
    state, params, update = tx.init(PARAMS), PARAMS, jax.jit(tx.update)
    for _ in range(3):
        updates, state = update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    chex.assert_tree_all_finite((params, state))


def test_a_decay_of_adafactor_is_times_the_rate():
    """In optax it is the same share of the weights at any rate, 5 % a step with the default."""
    zeros = jax.tree.map(np.zeros_like, GRADS)
    for rate in (0.1, 1e-3):
        updates = step(optim.make_optimizer(PARAMS, name="adafactor", schedule=rate), grads=zeros)
        np.testing.assert_allclose(updates["head"]["kernel"], -rate * 0.05 * PARAMS["head"]["kernel"], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(optim.optimizers()))
def test_without_a_weight_decay_only_a_decoupled_one_is_used(name):
    """The L2 term would make a weight whose gradient is zero move by more than rate x decay, or less."""
    options = {"b3": 0.9} if name == "adan" else {}
    grads = jax.tree.map(np.copy, GRADS)
    grads["head"]["kernel"][:] = 0
    plain, usual = (
        step(optim.make_optimizer(PARAMS, name=name, schedule=0.1, weight_decay=decay, **options), grads=grads)
        for decay in (0.0, None)
    )
    moved = usual["head"]["kernel"] - plain["head"]["kernel"]
    by = moved / PARAMS["head"]["kernel"]
    assert name == "lamb" or not moved.any() or np.allclose(by, -0.1 * 0.05, rtol=1e-4)


def test_clipping_is_by_the_global_norm_before_anything_else():
    tx = optim.make_optimizer(PARAMS, name="sgd", schedule=1.0, momentum=0.0, grad_clip_norm=0.5)
    np.testing.assert_allclose(norm(step(tx)), 0.5, rtol=1e-5)
    loose = optim.make_optimizer(PARAMS, name="sgd", schedule=1.0, momentum=0.0, grad_clip_norm=1e3)
    chex.assert_trees_all_close(step(loose), jax.tree.map(np.negative, GRADS))


def test_the_schedule_and_lr_scale_set_the_rate():
    schedule = optim.make_schedule("linear", learning_rate=1.0, total_steps=4, steps_per_epoch=1)
    tx = optim.make_optimizer(PARAMS, name="sgd", schedule=schedule, momentum=0.0)
    state = tx.init(PARAMS)
    update = jax.jit(tx.update)
    for rate, scale in ((1.0, 1.0), (0.75, 0.1), (0.5, 1.0)):
        updates, state = update(GRADS, state, PARAMS, lr_scale=scale)
        chex.assert_trees_all_close(updates, jax.tree.map(lambda g, r=rate * scale: -r * g, GRADS), rtol=1e-6)


def test_the_first_moment_may_be_bfloat16():
    for name in ("adamw", "sgd", "lion"):
        tx = optim.make_optimizer(PARAMS, name=name, schedule=0.1, mu_dtype="bfloat16")
        types = {str(leaf.dtype) for leaf in jax.tree.leaves(tx.init(PARAMS)) if leaf.ndim}
        assert "bfloat16" in types, name
        chex.assert_trees_all_equal_dtypes(step(tx), PARAMS)


@pytest.mark.parametrize("make", [optax.contrib.momo, lambda learning_rate: optax.lbfgs(learning_rate)])
@pytest.mark.parametrize("trainable", [None, jax.tree.map(lambda _: True, PARAMS)])
def test_an_optimiser_that_needs_the_loss_is_refused_before_anything_is_compiled(monkeypatch, make, trainable):
    monkeypatch.setitem(optim.optimizers(), "mine", make)
    with pytest.raises(UserError, match="'mine' cannot be used here: its update needs 'value'"):
        optim.make_optimizer(PARAMS, name="mine", schedule=0.1, grad_clip_norm=1.0, trainable=trainable)


def test_a_moment_that_changes_its_type_is_refused(monkeypatch):
    """As optax's ademamix does; a compiled step has one type for each part of the state."""

    def maker(learning_rate, mu_dtype=None):
        zeros = lambda params: jax.tree.map(lambda p: jnp.zeros(p.shape, mu_dtype), params)  # noqa: E731
        return optax.GradientTransformation(zeros, lambda grads, mu, params=None: (grads, grads))

    monkeypatch.setattr(optim.factory, "optimizers", lambda: {"drifting": maker})
    with pytest.raises(UserError, match="'drifting' of this optax does not keep its moments in bfloat16"):
        optim.make_optimizer(PARAMS, name="drifting", schedule=0.1, mu_dtype="bfloat16")
    assert optim.make_optimizer(PARAMS, name="drifting", schedule=0.1)


# --- freezing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "muon"])
def test_frozen_parameters_have_no_state_and_stay_bit_identical(name):
    mask = optim.freeze_mask(PARAMS, "head_only")
    words = {"name": name, "schedule": 0.1, "weight_decay": 0.5, "grad_clip_norm": 1.0}
    tx = optim.make_optimizer(PARAMS, trainable=mask, **words)
    state = tx.init(PARAMS)
    allowed = {(), (4, 2), (2,), (3,)}  # the head's shapes, counters, muon's three coefficients
    assert {leaf.shape for leaf in jax.tree.leaves(state)} <= allowed
    updates = step(tx)
    after = jax.jit(optax.apply_updates)(PARAMS, updates)
    for path, trains in tree.named_leaves(mask).items():
        same = bool(np.all(tree.named_leaves(after)[path] == tree.named_leaves(PARAMS)[path]))
        assert same == (not trains), path
    # the same on the trainable part alone: the norm for clipping is the trainable part's in both
    part, _ = optim.split_trainable(PARAMS, mask)
    grads, _ = optim.split_trainable(GRADS, mask)
    chex.assert_trees_all_close(step(tx, part, grads), {"head": updates["head"]}, rtol=1e-6)
    alone = optim.make_optimizer(PARAMS, **words)
    chex.assert_trees_all_close(step(alone, part, grads), {"head": updates["head"]}, rtol=1e-6)


def test_layer_decay_scales_rates_by_depth():
    words = {"schedule": 0.1, "weight_decay": 0.3}
    plain = tree.named_leaves(step(optim.make_optimizer(PARAMS, **words)))
    scaled = tree.named_leaves(step(optim.make_optimizer(PARAMS, layer_decay=0.5, **words)))
    layers = {"patch_embed": 3, "cls_token": 3, "pos_embed": 3, "blocks_0": 2, "blocks_1": 1, "norm": 1, "head": 0}
    for path in plain:
        factor = 0.5 ** layers[path.split("/")[0]]
        np.testing.assert_allclose(scaled[path], factor * plain[path], rtol=1e-6, err_msg=path)


# --- any alias ---------------------------------------------------------------------------------------------------


def test_an_alias_by_its_own_name_and_arguments_equals_optax():
    pairs = [
        (optax.lamb(0.1, eps_root=1e-4, weight_decay=0.0), {"name": "lamb", "eps_root": 1e-4}),
        (optax.rmsprop(0.1, decay=0.5, centered=True), {"name": "rmsprop", "decay": 0.5, "centered": True}),
        (optax.adam(0.1, nesterov=True), {"name": "adam", "nesterov": True}),
        (optax.nadamw(0.1, b1=0.8, weight_decay=0.0), {"name": "nadamw", "b1": 0.8}),
        (optax.contrib.ademamix(0.1, alpha=3.0), {"name": "ademamix", "alpha": 3.0}),
    ]
    for theirs, words in pairs:
        ours = optim.make_optimizer(PARAMS, schedule=0.1, weight_decay=0.0, **words)
        chex.assert_trees_all_close(step(ours), step(theirs), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(optim.optimizers()))
def test_every_alias_takes_schedule_decay_clipping_freezing_and_scale(name):
    mask = optim.freeze_mask(PARAMS, "last_1_blocks")
    schedule = optim.make_schedule("cosine", learning_rate=0.1, total_steps=9, steps_per_epoch=3)
    tx = optim.make_optimizer(
        PARAMS, name=name, schedule=schedule, weight_decay=1e-4, grad_clip_norm=1.0, trainable=mask, layer_decay=0.8
    )
    state = jax.eval_shape(tx.init, PARAMS)
    updates, after = jax.eval_shape(lambda g, s, p: tx.update(g, s, p, lr_scale=0.5), GRADS, state, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "adamv"}, "no optimiser 'adamv'.*Did you mean"),
        ({"name": "adamw", "b3": 0.9}, "'adamw' has no option 'b3'; it takes b1, b2"),
        ({"name": "sgd", "b1": 0.9}, "'sgd' has no option 'b1'"),
        ({"name": "lbfgs"}, "line search"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"grad_clip_norm": -1.0}, "grad_clip_norm is -1.0"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"b2": 1.5}, "b2 is 1.5"),
        ({"name": "sgd", "momentum": 0.0, "nesterov": True}, "expected a momentum above 0"),
        ({"mu_dtype": "bf16"}, "mu_dtype is 'bf16'"),
        ({"name": "adan", "b3": "abc"}, "option 'b3' of 'adan' is 'abc'; expected a number"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        optim.make_optimizer(PARAMS, **{"schedule": 0.1, **words})
