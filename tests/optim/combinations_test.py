"""Combinations drawn from the whole menu train a small net: the loss falls, frozen parameters keep their bits."""

import random

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvit import optim

MENU = {
    "optimizer": [
        {"name": "adamw"},
        {"name": "sgd", "nesterov": True},
        {"name": "lamb", "layer_decay": 0.8},
        {"name": "lion", "mu_dtype": "bfloat16"},
        {"name": "muon"},
        {"name": "rmsprop"},
    ],
    "schedule": [{"name": "cosine", "warmup_steps": 3}, {"name": "wsd"}, {"name": "step", "step_size": 2}],
    "sam": [
        {"rho": 0.0},
        {"rho": 0.05},
        {"rho": 0.5, "adaptive": True},
        {"rho": 0.05, "method": "gsam"},
        {"rho": 0.1, "num_micro_batches": 2, "batch_argnums": 2},
    ],
    "freeze": ["none", "head_only", "last_1_blocks", "norm", "early_with_stem"],
    "clip": [None, 1.0],
    "dtype": ["float32", "bfloat16"],
}
STEPS = 12


def make_net(dtype):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.3, dtype)  # noqa: E731
    block = lambda: {"norm1": {"scale": 1 + draw(8)}, "fc1": {"kernel": draw(8, 8), "bias": draw(8)}}  # noqa: E731
    return {
        "patch_embed": {"proj": {"kernel": draw(5, 8), "bias": draw(8)}},
        "blocks_0": block(),
        "blocks_1": block(),
        "head": {"kernel": draw(8, 3), "bias": draw(3)},
    }


def apply(params, x):
    dense = lambda p, h: h @ p["kernel"] + p["bias"][None]  # noqa: E731
    h = dense(params["patch_embed"]["proj"], x)
    for name in ("blocks_0", "blocks_1"):
        h = h + jnp.tanh(dense(params[name]["fc1"], h * params[name]["norm1"]["scale"][None]))
    return dense(params["head"], h).astype(jnp.float32)


@pytest.mark.parametrize("seed", range(6))
def test_a_combination_trains(seed):
    pick = {word: random.Random(f"{seed} {word}").choice(choices) for word, choices in MENU.items()}
    params = make_net(pick["dtype"])
    rng = np.random.default_rng(1)
    x, y = jnp.asarray(rng.normal(size=(16, 5)), pick["dtype"]), np.eye(3, dtype=np.float32)[rng.integers(3, size=16)]
    rate = {"sgd": 0.1, "lion": 0.003}.get(pick["optimizer"]["name"], 0.02)
    schedule = optim.make_schedule(**pick["schedule"], learning_rate=rate, total_steps=STEPS, steps_per_epoch=4)
    trainable = optim.freeze_mask(params, pick["freeze"])
    tx = optim.make_optimizer(
        params, schedule=schedule, trainable=trainable, grad_clip_norm=pick["clip"], **pick["optimizer"]
    )

    def loss_fn(part, frozen, batch):
        x, y = batch
        logits = apply(optim.merge(part, frozen), x)
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), 1)), jnp.float32(0)

    grad_fn = optim.sam_value_and_grad(loss_fn, has_aux=True, **pick["sam"])

    @jax.jit
    def train_step(params, state, average, count):
        part, frozen = optim.split_trainable(params, trainable)
        (loss, _), grads = grad_fn(part, frozen, (x, y))
        updates, state = tx.update(grads, state, part, lr_scale=0.9)
        params = optim.merge(optax.apply_updates(part, updates), frozen)
        average = optim.ema.update(average, params, optim.ema.decay_at(count, 0.9, warmup=True))
        return params, state, average, loss

    state, start, average, losses = tx.init(optim.split_trainable(params, trainable)[0]), params, params, []
    for count in range(1, STEPS + 1):
        params, state, average, loss = train_step(params, state, average, count)
        losses.append(float(loss))
    assert np.all(np.isfinite(losses)) and losses[-1] < losses[0], (pick, losses)
    chex.assert_tree_all_finite(average)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, start)
    frozen = [optim.split_trainable(tree, trainable)[1] for tree in (params, start, average)]
    chex.assert_trees_all_equal(*frozen[:2])
    changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), params, start)
    if pick["dtype"] == "float32":
        chex.assert_trees_all_equal(changed, trainable)
