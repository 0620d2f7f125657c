"""The training and evaluation steps: a golden step, one trace, padding, accumulation, several devices."""

import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvit import create_model, optim
from jaxvit.build.parts import make_to_float
from jaxvit.data.augment.compose import make_augment
from jaxvit.errors import UserError
from jaxvit.runtime import compile_time, sharding
from jaxvit.step import gradients, steps
from jaxvit.step import state as state_lib
from jaxvit.step.state import create_state, ema_variables, init_variables
from tests.helpers.tiny_steps import batch, build, products


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


@pytest.mark.parametrize(
    "words",
    [
        pytest.param({}, id="plain"),
        pytest.param({"rho": 0.5, "adaptive": True}, id="asam"),
        pytest.param({"rho": 0.1, "method": "gsam"}, id="gsam", marks=pytest.mark.slow),  # compiles for half a minute
    ],
)
def test_accumulation_equals_the_large_batch(words):
    images = batch(8) | {"mask": jnp.arange(8) != 5}  # one unreadable: the parts have different weights
    state, step, _, _ = build("one block", augment=False, **words)
    whole, whole_metrics = jax.jit(step)(state, images)
    state, step, _, _ = build("one block", augment=False, accum_steps=4, **words)
    parts, parts_metrics = jax.jit(step)(state, images)
    chex.assert_trees_all_close(whole.params, parts.params, atol=1e-6)
    chex.assert_trees_all_close(whole_metrics, parts_metrics, rtol=1e-4)
    if words:
        plain, _ = jax.jit(build("one block", augment=False, accum_steps=4)[1])(state, images)
        assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), plain.params, parts.params))) > 1e-5


def test_m_sharpness_perturbs_each_part_alone():
    """Against the same by hand: the mean of the ASAM gradients of every second example."""
    images = batch(8)
    words = {"rho": 0.5, "adaptive": True}
    state, step, _, _ = build("one block", augment=False, perturbations=2, **words)
    got, _ = jax.jit(step)(state, images)
    alone = jax.jit(build("one block", augment=False, **words)[1])
    halves = [alone(state, {k: v[i::2] for k, v in images.items()})[0].params for i in range(2)]
    chex.assert_trees_all_close(got.params, jax.tree.map(lambda a, b: (a + b) / 2, *halves), atol=1e-6)
    whole, _ = alone(state, images)
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), got.params, whole.params))) > 1e-5
    state, step, _, _ = build("one block", augment=False, perturbations=2, accum_steps=4, **words)
    chex.assert_trees_all_close(jax.jit(step)(state, images)[0].params, got.params, atol=1e-6)
    with pytest.raises(UserError, match="do not divide"):
        gradients.make_gradient(accum_steps=2, perturbations=3, rho=0.1)


RESNET = {"layers": (1, 1), "channels": (4, 4), "block": "basic", "stem": "cifar", "drop_rate": 0.5}


def resnet(freeze="none", remat=False, **gradient):
    model = create_model("resnet18", num_classes=3, image_size=8, remat=remat, **RESNET)
    variables = init_variables(model, jax.random.key(0), (8, 8, 3))
    trainable = optim.freeze_mask(variables["params"], freeze)
    tx = optim.make_optimizer(variables["params"], name="sgd", schedule=0.1, trainable=trainable)
    step = steps.make_train_step(
        model=model,
        pixels=steps.Pixels(to_float=make_to_float(3), normalise=lambda x: x, augment=make_augment({"flip": True})),
        task=steps.Task(num_classes=3),
        update=steps.Update(
            tx=tx,
            schedule=lambda step: jnp.float32(0.1),
            trainable=trainable,
            gradient=gradients.make_gradient(**gradient),
        ),
    )
    return create_state(variables, tx, trainable, jax.random.key(1)), jax.jit(step), model


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


def test_statistics_and_metrics_of_sam_come_from_the_clean_pass():
    state, plain, _ = resnet()
    state, sharp, _ = resnet(rho=0.5)
    a, a_metrics = plain(state, batch())
    b, b_metrics = sharp(state, batch())
    chex.assert_trees_all_close(a.batch_stats, b.batch_stats, rtol=1e-6)
    assert float(a_metrics["loss"]) == pytest.approx(float(b_metrics["loss"]), rel=1e-6)
    assert float(a_metrics["accuracy"]) == float(b_metrics["accuracy"])
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), a.params, b.params))) > 1e-4


def test_both_passes_of_sam_have_the_same_draws():
    """With dropout and flips, a perturbation of almost nothing changes nothing."""
    rates = {"drop_rate": 0.5, "proj_drop_rate": 0.5}
    state, plain, _, _ = build(**rates)
    state, null, _, _ = build(rho=1e-30, **rates)
    chex.assert_trees_all_close(jax.jit(plain)(state, batch())[0], jax.jit(null)(state, batch())[0], atol=1e-6)


def test_average_of_the_weights():
    def average(ema, variables, step):
        return optim.ema.update(ema, variables, optim.ema.decay_at(step, 0.5))

    state, step, _, _ = build(average=average, freeze="head_only")
    assert list(state.ema["params"]) == ["head"]
    history = [state.params["head"]["kernel"]]
    for seed in range(3):
        state, _ = jax.jit(step)(state, batch(seed=seed))
        history.append(state.params["head"]["kernel"])
    by_hand = (history[1] * 0.5 + history[2] * 0.5) * 0.5 + history[3] * 0.5  # the first step copies
    chex.assert_trees_all_close(state.ema["params"]["head"]["kernel"], by_hand, atol=1e-7)
    averaged = ema_variables(state, optim.freeze_mask(state.params, "head_only"))
    chex.assert_trees_all_equal_structs(averaged["params"], state.params)
    chex.assert_trees_all_equal(averaged["params"]["blocks_0"], state.params["blocks_0"])


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


def test_frozen_parameters_keep_their_bits_and_have_no_state():
    state, step, _, variables = build(freeze="head_only")
    new, _ = jax.jit(step)(state, batch())
    frozen = {k: v for k, v in new.params.items() if k != "head"}
    chex.assert_trees_all_equal(frozen, {k: variables["params"][k] for k in frozen})
    assert not np.array_equal(new.params["head"]["kernel"], variables["params"]["head"]["kernel"])


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


def test_weights_are_drawn_by_a_kernel_on_gpus(monkeypatch):
    """XLA unrolls threefry for each array otherwise; the bits are the same, and an older JAX goes without."""
    word = "jax_threefry_gpu_kernel_lowering"

    def lowered():
        draw = lambda key: [jax.random.normal(key, (8, n)) for n in (3, 4)]  # noqa: E731
        return jax.jit(draw).trace(jax.random.key(0)).lower(lowering_platforms=("cuda",)).as_text()

    assert "threefry2x32_ffi" not in lowered()
    with state_lib.random_bits_by_kernel():
        assert "threefry2x32_ffi" in lowered()
    assert getattr(jax.config, word) is False
    seen = []

    class Model:
        def init(self, key, images):
            seen.append(getattr(jax.config, word))
            return images

    init_variables(Model(), jax.random.key(0), (2, 2, 1))
    monkeypatch.setattr(state_lib, "KERNEL_OPTION", "jax_no_such_option")
    init_variables(Model(), jax.random.key(0), (2, 2, 1))
    assert seen == [True, False]


def test_compilation_is_counted_once():
    before = compile_time.seconds()
    begun = time.monotonic()
    inner = jax.jit(lambda x: jnp.sort(x) + 1)
    jax.jit(lambda x: inner(x) * inner(x + 1))(jnp.ones(321)).block_until_ready()
    assert 0 < compile_time.seconds() - before <= time.monotonic() - begun
