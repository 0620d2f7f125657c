"""Another number is the same program: rates, decays, radii and probabilities are arguments of the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.runtime import numbers
from jaxvit.runtime.numbers import Number

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
