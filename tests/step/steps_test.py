"""The training and evaluation steps: a golden step, one trace, padding, accumulation, several devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvit.data.augment.compose import make_augment
from jaxvit.runtime import sharding
from jaxvit.step import steps
from tests.helpers.tiny_steps import batch, build, products, resnet


def test_golden_step():
    """If this moves: either a step computes something else than before (a bug), or the change was meant; then say so
    in the commit and put the new numbers here. The first loss is checked against the definition below.
    """
    state, step, eval_step, variables = build(augment=False)
    images = batch()
    state, metrics = jax.jit(step)(state, images)
    _, logits = eval_step(variables, images)
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    targets = np.eye(3)[np.asarray(images["label"])] * 0.9 + 0.1 / 3
    assert float(metrics["loss"]) == pytest.approx(-(targets * log_p).sum(-1).mean(), rel=1e-5)
    state, metrics = jax.jit(step)(state, batch(seed=1))
    golden = {"loss": GOLDEN[0], "grad_norm": GOLDEN[1], "learning_rate": 0.1}
    got = {name: float(metrics[name]) for name in golden}
    assert got == pytest.approx(golden, rel=1e-4)
    assert int(state.step) == 2


GOLDEN = (1.0991894, 0.8365980)


def test_sgd_step_by_hand():
    state, step, _, variables = build(augment=False)
    images = batch()
    new, metrics = jax.jit(step)(state, images)
    moved = jax.tree.map(lambda a, b: a - b, variables["params"], new.params)
    # SGD moves by learning rate x gradient, so the norm of the move says the norm of the gradient.
    assert float(optax.global_norm(moved)) / 0.1 == pytest.approx(float(metrics["grad_norm"]), rel=1e-4)


def test_one_trace_for_many_steps():
    state, step, eval_step, _ = build()
    chex.clear_trace_counter()
    jitted = jax.jit(chex.assert_max_traces(step, n=1))
    for seed in range(3):
        state, _ = jitted(state, batch(seed=seed))
    evaluate = jax.jit(chex.assert_max_traces(eval_step, n=1))
    for seed in range(3):
        evaluate({"params": state.params}, batch(seed=seed))


def test_masked_examples_change_nothing():
    state, step, _, _ = build(augment=False)
    small = batch(6)
    big = {k: jnp.concatenate([v, jnp.zeros((2, *v.shape[1:]), v.dtype)]) for k, v in small.items()}
    assert not big["mask"][-1]
    one, one_metrics = jax.jit(step)(state, small)
    two, two_metrics = jax.jit(step)(state, big)
    chex.assert_trees_all_close(one.params, two.params, atol=1e-6)
    chex.assert_trees_all_close(one_metrics, two_metrics, rtol=1e-5)


def test_frozen_norms_rest():
    """They keep their statistics and normalise with them; those of trainable norms move; under remat too."""
    state, step, model = resnet("^(conv1|bn1|layer1)", remat=True)
    rng = np.random.default_rng(0)
    stats = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype), state.batch_stats)
    state = state.replace(batch_stats=stats)
    new, _ = step(state, batch())
    moved = {k: not all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), stats[k], v)))
             for k, v in new.batch_stats.items()}  # fmt: skip
    assert moved == {"bn1": False, "layer1_0": False, "layer2_0": True}

    state, step, model = resnet("head_only")
    state = state.replace(batch_stats=stats)
    new, metrics = step(state, batch())
    chex.assert_trees_all_equal(new.batch_stats, stats)
    # the last norm's scale is zero at the start, so make it matter
    state = state.replace(params=jax.tree.map(lambda x: x + 0.1, state.params))
    images, mask = batch()["image"], jnp.arange(8) < 1
    one = step(state, batch() | {"mask": mask})[1]["loss"]
    other = step(state, batch() | {"mask": mask, "image": images.at[1:].set(0)})[1]["loss"]
    assert float(one) == pytest.approx(float(other), rel=1e-6)  # nothing of the batch is in an example's loss


def test_a_bad_step_is_skipped():
    def augment(key, images, targets):
        return images + jnp.where(targets[0, 0] > 0.5, jnp.nan, 0.0), targets

    state, step, _, _ = build(augment=augment)
    step = jax.jit(steps.skip_bad(step))
    bad, metrics = step(state, batch() | {"label": jnp.zeros(8, jnp.int32)})
    assert not np.isfinite(metrics["loss"])
    assert int(bad.step) == 1
    chex.assert_trees_all_equal(bad.replace(step=state.step), state)  # a constant rate has no place in a schedule
    good, metrics = step(state, batch() | {"label": jnp.ones(8, jnp.int32)})
    assert np.isfinite(metrics["loss"])
    assert not np.array_equal(good.params["head"]["kernel"], state.params["head"]["kernel"])


@pytest.mark.parametrize("name", ["sgd", "adamw", pytest.param("prodigy", marks=pytest.mark.slow)])
def test_after_a_skipped_step_the_schedule_goes_on(name):
    """The rate of the update is that of the state's step: as if the schedule had begun one step later."""

    def augment(key, images, targets):
        return images + jnp.where(targets[0, 0] > 0.5, jnp.nan, 0.0), targets

    rate = lambda step: 0.01 * (1.0 + jnp.asarray(step, jnp.float32))  # noqa: E731
    state, step, _, _ = build(augment=augment, learning_rate=rate, optimizer=name)
    step = jax.jit(steps.skip_bad(step))
    bad, _ = step(state, batch() | {"label": jnp.zeros(8, jnp.int32)})
    chex.assert_trees_all_equal(bad.params, state.params)
    good, metrics = step(bad, batch() | {"label": jnp.ones(8, jnp.int32)})
    assert float(metrics["learning_rate"]) == pytest.approx(0.02)
    if name == "prodigy":
        return  # its rate is a factor on one of its own
    state, step, _, _ = build(augment=augment, learning_rate=lambda count: rate(count + 1), optimizer=name)
    fresh, _ = jax.jit(step)(state, batch() | {"label": jnp.ones(8, jnp.int32)})
    chex.assert_trees_all_close(good.params, fresh.params, rtol=1e-6)


def test_an_unreadable_image_is_mixed_into_no_other():
    state, step, _, _ = build(augment=make_augment({"mixup_alpha": 1.0, "cutmix_alpha": 1.0}))
    step, images = jax.jit(step), batch(8)
    images["mask"] = jnp.arange(8) != 2
    other = images | {"image": images["image"].at[2].set(255), "label": images["label"].at[2].add(1)}
    one, two = step(state, images), step(state, other)
    chex.assert_trees_all_equal(one[0].params, two[0].params)
    chex.assert_trees_all_equal(one[1], two[1])
    whole = step(state, images | {"mask": jnp.ones(8, bool)})[0]
    assert not np.array_equal(whole.params["head"]["kernel"], one[0].params["head"]["kernel"])


def test_lr_scale_multiplies_the_move():
    state, step, _, _ = build(augment=False)
    one, metrics = jax.jit(step)(state, batch())
    half, half_metrics = jax.jit(step)(state.replace(lr_scale=jnp.float32(0.5)), batch())
    move = lambda new: jax.tree.map(lambda a, b: a - b, new.params, state.params)  # noqa: E731
    chex.assert_trees_all_close(jax.tree.map(lambda x: x / 2, move(one)), move(half), atol=1e-7)
    assert float(half_metrics["learning_rate"]) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "family, method",
    [("vit", "plain"), ("vit", "asam"), pytest.param("swin", "plain", marks=pytest.mark.slow)],
)
def test_four_devices_equal_one(family, method):
    state, step, _, _ = build(family, **({"rho": 0.5, "adaptive": True} if method == "asam" else {}))
    one, one_metrics = jax.jit(step)(state, batch())
    mesh = sharding.make_mesh(4)
    placed = jax.device_put(state, sharding.replicated(mesh))
    split = jax.device_put(batch(), sharding.batch_sharding(mesh))
    four, four_metrics = jax.jit(step, out_shardings=sharding.replicated(mesh))(placed, split)
    chex.assert_trees_all_close(jax.device_get(one.params), jax.device_get(four.params), atol=1e-6)
    chex.assert_trees_all_close(jax.device_get(one_metrics), jax.device_get(four_metrics), rtol=1e-4)


@pytest.mark.parametrize("make", [build, resnet])
def test_head_only_costs_no_backward_pass(make):
    """It has the products of the forward pass and one more: the gradient of the head's kernel."""

    def count(freeze):
        state, step, *_ = make(freeze=freeze)
        return products(jax.make_jaxpr(step)(state, batch()).jaxpr)

    whole, head = count("none"), count("head_only")
    forward = (whole + 1) // 3  # each has two more in the backward pass, the first only one
    assert whole == 3 * forward - 1
    assert head == forward + 1


def test_randomness_comes_from_seed_and_step_alone():
    state, step, _, _ = build()
    first, _ = jax.jit(step)(state, batch())
    again, _ = jax.jit(step)(state, batch())
    other, _ = jax.jit(step)(state.replace(step=state.step + 1), batch())
    chex.assert_trees_all_equal(first.params, again.params)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first.params, other.params)
    assert not all(jax.tree.leaves(same))


def test_evaluation_does_not_depend_on_the_batch_size():
    _, _, eval_step, variables = build()
    images = batch(8)
    sums, logits = jax.jit(eval_step)(variables, images)
    parts = [jax.jit(eval_step)(variables, {k: v[i : i + 2] for k, v in images.items()}) for i in range(0, 8, 2)]
    chex.assert_trees_all_close(jnp.concatenate([p[1] for p in parts]), logits, atol=1e-6)
    total = jax.tree.map(lambda *x: sum(x), *[p[0] for p in parts])
    chex.assert_trees_all_close(total, sums, rtol=1e-5)
