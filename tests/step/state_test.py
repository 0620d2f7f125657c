"""The state of a training: averages, frozen parts, weights drawn."""

import chex
import jax
import numpy as np

from jaxvit import optim
from jaxvit.step import state as state_lib
from jaxvit.step.state import ema_variables, init_variables
from tests.helpers.tiny_steps import batch, build


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


def test_frozen_parameters_keep_their_bits_and_have_no_state():
    state, step, _, variables = build(freeze="head_only")
    new, _ = jax.jit(step)(state, batch())
    frozen = {k: v for k, v in new.params.items() if k != "head"}
    chex.assert_trees_all_equal(frozen, {k: variables["params"][k] for k in frozen})
    assert not np.array_equal(new.params["head"]["kernel"], variables["params"]["head"]["kernel"])


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
