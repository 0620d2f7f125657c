"""Gradual unfreezing: what was frozen keeps its bits until its epoch, then trains; a resumed run has the same bits."""

import chex
import jax
import numpy as np
import optax
import pytest

from jaxvit import train, tree
from jaxvit.train.prepare import prepare
from tests.helpers import tiny_config, write_npz

WORDS = {
    "optim__freeze": "head_only", "optim__unfreeze": ((1, "last_1_block"), (2, "none")), "num_epochs": 3,
    "ema__decay": 0.9, "optim__learning_rate": 0.01,
}  # fmt: skip


def moved(before, after):
    a, b = tree.named_leaves(before), tree.named_leaves(after)
    return {path for path in a if (np.asarray(a[path]) != np.asarray(b[path])).any()}


def places(opt_state):
    is_place = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
    return [int(node.count) for node in jax.tree.leaves(opt_state, is_leaf=is_place) if is_place(node)]


def test_what_thaws_trains_and_the_rest_goes_on(tmp_path):
    config = tiny_config(write_npz(tmp_path / "data"), model__depth=2, **WORDS)
    run, state = prepare(config, tmp_path / "run")
    batch = next(iter(run.feeds["train"].batches(np.arange(43), run.batches.size)))
    assert run.enter(0, state) is state
    start = jax.tree.map(np.array, state)
    state, _ = run.take_step(0, state, batch)
    first = jax.tree.map(np.array, state)
    assert moved(start.params, first.params) <= {"head/kernel", "head/bias"}
    assert set(tree.named_leaves(first.ema["params"])) == {"head/kernel", "head/bias"}

    state = run.enter(1, state)
    second = jax.tree.map(np.array, state)
    chex.assert_trees_all_equal((second.params, second.step, second.key), (first.params, first.step, first.key))
    assert places(second.opt_state) == [1] == places(first.opt_state)
    ema = tree.named_leaves(second.ema["params"])
    assert {path.split("/")[0] for path in ema} == {"head", "norm", "blocks_1"}
    np.testing.assert_array_equal(ema["head/kernel"], first.ema["params"]["head"]["kernel"])
    np.testing.assert_array_equal(ema["blocks_1/attn/qkv/kernel"], first.params["blocks_1"]["attn"]["qkv"]["kernel"])
    state, found = run.take_step(1, state, batch)
    tops = {path.split("/")[0] for path in moved(second.params, state.params)}
    assert {"head", "blocks_1"} <= tops and not tops & {"blocks_0", "patch_embed", "pos_embed", "cls_token"}
    assert np.isfinite(float(found["loss"])) and int(state.step) == 2
    run.checkpoints.close()
    template = run.template_at(run.batches.steps_per_epoch + 1)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.tree.map(np.array, state), template)
    assert (
        run.template_at(run.batches.steps_per_epoch).opt_state
        is not run.template_at(3 * run.batches.steps_per_epoch).opt_state
    )
    assert all(jax.tree.leaves(run.phase.trainable))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_between_phases_equals_uninterrupted(tmp_path, stop):
    config = tiny_config(write_npz(tmp_path / "data"), **WORDS)
    whole = train.train_and_evaluate(config, tmp_path / "whole")

    class Stop(Exception):
        pass

    def interrupt(epoch, val):
        if epoch == stop:
            raise Stop

    with pytest.raises(Stop):
        train.train_and_evaluate(config, tmp_path / "cut", on_evaluation=interrupt)
    assert train.train_and_evaluate(config, tmp_path / "cut") == whole
    ends = [np.load(tmp_path / name / "predictions.npz")["logits"] for name in ("whole", "cut")]
    np.testing.assert_array_equal(*ends)
