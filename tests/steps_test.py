"""The training and evaluation steps: a golden step, one trace, padding, accumulation, several devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvit import create_model, optim, sharding, steps
from jaxvit.data.augment import make_augment
from jaxvit.setup import make_normalise, make_to_float
from jaxvit.state import create_state, init_variables

MODELS = {
    "vit": ("vit_tiny_patch16_224", {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}),
    "swin": ("swin_tiny_patch4_window7_224", {"patch_size": 2, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2),
                                              "window_size": 2}),
}  # fmt: skip


def build(family="vit", *, learning_rate=0.1, accum_steps=1, freeze="none", augment=True, sam=None):
    name, fields = MODELS[family]
    model = create_model(name, num_classes=3, image_size=8, drop_path_rate=0.0, **fields)
    variables = init_variables(model, jax.random.key(0), (8, 8, 3))
    trainable = optim.freeze_mask(variables["params"], freeze)
    tx = optax.sgd(learning_rate)
    shared = {
        "model": model,
        "to_float": make_to_float(3),
        "normalise": make_normalise((8, 8), "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    }
    step = steps.make_train_step(
        **shared,
        tx=tx,
        schedule=lambda step: jnp.float32(learning_rate),
        augment=make_augment({"flip": True, "crop_padding": 1} if augment else {}),
        num_classes=3,
        trainable=trainable,
        label_smoothing=0.1,
        accum_steps=accum_steps,
        value_and_grad=sam or jax.value_and_grad,
    )
    state = create_state(variables, tx, trainable, jax.random.key(1))
    return state, step, steps.make_eval_step(**shared), variables


def batch(n=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, 3, n), jnp.int32),
        "mask": jnp.ones(n, bool),
    }


def test_golden_step():
    """If this moves: either a step computes something else than before (a bug), or the change was meant; then say so
    in the commit and put the new numbers here. The first loss is checked against the definition below."""
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
    new, metrics = step(state, images)
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


@pytest.mark.parametrize("family", MODELS)
def test_accumulation_equals_the_large_batch(family):
    images = batch(8)
    state, step, _, _ = build(family, augment=False)
    whole, _ = jax.jit(step)(state, images)
    state, step, _, _ = build(family, augment=False, accum_steps=4)
    parts, _ = jax.jit(step)(state, images)
    chex.assert_trees_all_close(whole.params, parts.params, atol=1e-6)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("method", ["plain", "asam"])
def test_four_devices_equal_one(family, method):
    def asam(loss_fn, has_aux):
        return optim.sam_value_and_grad(loss_fn, rho=0.5, adaptive=True, has_aux=has_aux)

    state, step, _, _ = build(family, sam=asam if method == "asam" else None)
    one, one_metrics = jax.jit(step)(state, batch())
    mesh = sharding.make_mesh(4)
    placed = jax.device_put(state, sharding.replicated(mesh))
    split = jax.device_put(batch(), sharding.batch_sharding(mesh))
    four, four_metrics = jax.jit(step, out_shardings=sharding.replicated(mesh))(placed, split)
    chex.assert_trees_all_close(jax.device_get(one.params), jax.device_get(four.params), atol=1e-6)
    chex.assert_trees_all_close(jax.device_get(one_metrics), jax.device_get(four_metrics), rtol=1e-4)


def test_frozen_parameters_keep_their_bits_and_have_no_state():
    state, step, _, variables = build(freeze="head_only")
    new, _ = jax.jit(step)(state, batch())
    frozen = {k: v for k, v in new.params.items() if k != "head"}
    chex.assert_trees_all_equal(frozen, {k: variables["params"][k] for k in frozen})
    assert not np.array_equal(new.params["head"]["kernel"], variables["params"]["head"]["kernel"])


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
