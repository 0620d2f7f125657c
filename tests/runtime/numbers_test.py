"""Another number is the same program: rates, decays, radii and probabilities are arguments of the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.runtime import numbers
from jaxvit.runtime.numbers import Number
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz

WORDS = {
    "num_epochs": 4, "optim__weight_decay": 0.1, "optim__b1": 0.9, "optim__b2": 0.99, "optim__eps": 1e-8,
    "optim__grad_clip_norm": 1.0, "optim__layer_decay": 0.8, "optim__sam__rho": 0.05, "optim__sam__adaptive": True,
    "optim__schedule__warmup_epochs": 1.0, "optim__schedule__min_learning_rate": 1e-6, "loss__label_smoothing": 0.1,
    "ema__decay": 0.9, "ema__warmup": True, "augment__mixup_alpha": 0.8, "augment__cutmix_alpha": 1.0,
    "augment__mix_prob": 0.7, "augment__mix_switch_prob": 0.4, "augment__random_erasing_prob": 0.2,
}  # fmt: skip
CHANGED = {
    "num_epochs": 6, "optim__learning_rate": 2e-3, "optim__weight_decay": 0.2, "optim__b1": 0.8, "optim__b2": 0.95,
    "optim__eps": 1e-6, "optim__grad_clip_norm": 2.0, "optim__layer_decay": 0.7, "optim__sam__rho": 0.1,
    "optim__sam__eta": 0.02, "optim__schedule__warmup_epochs": 2.0, "optim__schedule__min_learning_rate": 1e-5,
    "loss__label_smoothing": 0.2, "ema__decay": 0.99, "augment__mixup_alpha": 0.4, "augment__cutmix_alpha": 0.5,
    "augment__mix_prob": 0.5, "augment__mix_switch_prob": 0.3, "augment__random_erasing_prob": 0.1,
}  # fmt: skip


@pytest.fixture
def program(tmp_path):
    """From a config's words to the text of the step's program; without its numbers it is what the cache goes by."""
    data_name = write_npz(tmp_path / "data")

    def lowered(**words):
        run, state = prepare(tiny_config(data_name, model__depth=1, **words), tmp_path / "run")
        run.checkpoints.close()
        batch = next(iter(run.feeds["train"].batches(np.arange(16), 16)))
        return next(iter(run.phase.train_steps.values())).lower(state, batch, None).as_text()

    return lowered


def test_other_numbers_are_the_same_program(program):
    first = program(**WORDS)
    assert program(**{**WORDS, **CHANGED}) == first
    assert program(**{**WORDS, "optim__learning_rate": 3e-3}) == first
    assert program(**{**WORDS, "ema__decay": 0.0}) != first  # whether there is an average shapes the state


SGD = {"optim__name": "sgd", "optim__momentum": 0.9, "optim__weight_decay": 1e-4, "optim__schedule__name": "onecycle",
       "num_epochs": 9}  # fmt: skip


def test_the_numbers_of_sgd_and_onecycle_too(program):
    changed = {"optim__momentum": 0.8, "optim__weight_decay": 1e-3, "optim__schedule__pct_start": 0.2}
    first = program(**SGD, optim__schedule__pct_start=0.3)
    assert program(**{**SGD, **changed}) == first


OPTIMISERS = {
    "adamw": {"b1": 0.9, "b2": 0.99, "eps": 1e-7, "weight_decay": 0.05}, "sgd": {"momentum": 0.9, "weight_decay": 1e-4},
    "lion": {"b1": 0.9, "b2": 0.99, "weight_decay": 0.05}, "lamb": {"b1": 0.9, "weight_decay": 0.05},
    "radam": {"b1": 0.9, "b2": 0.99}, "rmsprop": {"decay": 0.95, "momentum": 0.9}, "muon": {"weight_decay": 0.05},
    "prodigy": {"weight_decay": 0.01}, "adan": {"b1": 0.97}, "adafactor": {"weight_decay": 0.01},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMISERS)
def test_arguments_give_the_bits_of_constants(name):
    from jaxvit import optim

    params = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((8, 8)), jnp.float32)}
    grads = jax.tree.map(lambda x: 0.1 * x + 0.01, params)

    def three_steps(wrap, jit):
        words = {word: wrap(value, word) for word, value in OPTIMISERS[name].items()}
        schedule = optim.make_schedule(
            "cosine", learning_rate=wrap(0.01, "rate"), min_learning_rate=wrap(0.001, "floor"), total_steps=9,
            steps_per_epoch=3, warmup_steps=2,
        )  # fmt: skip
        tx = optim.make_optimizer(params, name=name, schedule=schedule, **words)

        def step(state, grads):
            params, opt_state = state
            updates, opt_state = tx.update(grads, opt_state, params)
            return jax.tree.map(jnp.add, params, updates), opt_state

        state, taken = (jax.tree.map(jnp.copy, params), tx.init(params)), jit(step)
        for _ in range(3):
            state = taken(state, grads)
        return state

    constants = three_steps(lambda value, _: value, jax.jit)
    arguments = three_steps(Number, lambda step: numbers.compiled(step, donate_argnums=0, out_shardings=None))
    for a, b in zip(jax.tree.leaves(constants), jax.tree.leaves(arguments), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_number_computes_as_a_double_and_keeps_the_type_of_what_it_meets():
    number = Number(0.9, "b1")
    assert (1 - number) == 1 - 0.9 and isinstance(1 - number, Number)
    assert max(number, 0.5) is number and bool(Number(0.0, "off")) is False
    step = numbers.compiled(lambda x: ((1 - number) * x, number * x), donate_argnums=0, out_shardings=None)
    low, _ = step(jnp.ones(3, jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    exact, _ = step(jnp.ones(3))
    np.testing.assert_array_equal(exact, np.float32(1 - 0.9))
    assert "0.9" not in step.lower(jnp.ones(3)).as_text()


def test_more_numbers_than_there_is_room_for_are_constants():
    many = [Number(i + 0.5, f"n{i}") for i in range(numbers.SIZE + 3)]
    step = numbers.compiled(lambda x: sum(n * x for n in many), donate_argnums=0, out_shardings=None)
    assert step(jnp.float32(1.0)) == sum(many)
