"""Checkpoints: what is saved comes back, damage is noticed and gone around, nothing good is lost."""

import errno
import os
import shutil
import threading
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxvit.errors import RunError, UserError
from jaxvit.workdir.checkpoint import Checkpoints
from tests.helpers.checkpoints import files, restore, save_two, tree


@pytest.fixture
def saved(tmp_path):
    return save_two(tmp_path)


def test_round_trip_and_retention(saved):
    state, meta = restore(saved)
    chex.assert_trees_all_equal(state, tree(2))
    assert meta == {"seconds": 0.2}
    checkpoints = Checkpoints(saved)
    checkpoints.save("last", 3, tree(3), {})
    checkpoints.save("last", 3, tree(99), {})  # a step that is there is left as it is
    assert checkpoints.steps("last") == [2, 3]
    checkpoints.delete_after("last", 2)
    assert checkpoints.steps("last") == [2]
    checkpoints.close()
    assert sorted(p.name for p in (saved / "manifests").iterdir()) == ["last-2.json"]


def test_arrays_of_no_element_come_back(tmp_path):
    """The optimiser galore has one for each bias, and orbax refuses them."""
    state = {"opt_state": (jnp.zeros((0,)), {"bias": jnp.zeros((2, 0), jnp.int32)}), "step": jnp.int32(7)}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("last", 7, state, {})
    restored, _ = checkpoints.restore("last", jax.eval_shape(lambda: state))
    checkpoints.close()
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, state)


def test_a_save_survives_donated_buffers(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    state = tree(5)
    checkpoints.save("last", 5, state, {})
    state["params"]["a"]["kernel"].delete()
    checkpoints.close()
    chex.assert_trees_all_equal(restore(tmp_path)[0], tree(5))


def test_a_step_that_vanished_is_named(saved, capsys):
    shutil.rmtree(saved / "last" / "2")
    chex.assert_trees_all_equal(restore(saved)[0], tree(1))
    assert "last/2 is damaged (its directory is missing)" in capsys.readouterr().err


def test_retention(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep={"last": 1, "best": 3}, keep_every_steps=10)
    for step in range(4, 40, 4):
        checkpoints.save("last", step, tree(step), {})
        checkpoints.save("best", step, tree(step), {})
    assert checkpoints.steps("last") == [4, 12, 20, 32, 36]  # the first of each ten, and the newest
    assert checkpoints.steps("best") == [28, 32, 36]
    checkpoints.close()
    assert not list((tmp_path / "replaced").iterdir())


def test_steps_that_will_be_made_again_wait_for_it(saved):
    checkpoints = Checkpoints(saved)
    checkpoints.delete_after("last", 1)
    assert checkpoints.steps("last") == [1] and (saved / "replaced" / "last-2.0").is_dir()
    checkpoints.save("last", 2, tree(2), {})
    checkpoints.close()
    assert not list((saved / "replaced").iterdir())


def test_a_save_that_fails_is_reported_by_the_next_look_and_costs_nothing(saved, monkeypatch):
    checkpoints = Checkpoints(saved)

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("jaxvit.workdir.checkpoint.manifest.write", fail)
    checkpoints.save("last", 3, tree(3), {})
    with pytest.raises(RunError, match="step 3 could not be saved: No space left on device\n.*newest is step 2"):
        for _ in range(1000):
            checkpoints.check()
            time.sleep(0.01)
    monkeypatch.undo()
    checkpoints.close()
    chex.assert_trees_all_equal(restore(saved)[0], tree(2))


def test_the_last_is_complete_only_after_the_best(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    original = ocp.AsyncCheckpointer.wait_until_finished
    slow = checkpoints._savers["best"]
    monkeypatch.setattr(
        ocp.AsyncCheckpointer,
        "wait_until_finished",
        lambda self: (time.sleep(0.5 if self is slow else 0), original(self))[1],
    )
    checkpoints.save("best", 1, tree(1), {})
    checkpoints.save("last", 1, tree(1), {})
    assert checkpoints.steps("last") == [1]
    assert (tmp_path / "manifests" / "best-1.json").is_file()
    checkpoints.close()


def test_read_only_moves_nothing(saved):
    files(saved, 2)[0].write_bytes(b"")
    before = sorted(saved.rglob("*"))
    chex.assert_trees_all_equal(restore(saved, read_only=True)[0], tree(1))
    assert sorted(saved.rglob("*")) == before


def test_nothing_intact_is_one_error(saved):
    for step in (1, 2):
        files(saved, step)[-1].write_bytes(b"")
    with pytest.raises(UserError, match="no intact checkpoint .* is damaged") as caught:
        restore(saved)
    assert "\n" not in str(caught.value)


def test_another_model_is_named(saved):
    checkpoints = Checkpoints(saved)
    other = {"params": {"b": {"kernel": np.zeros((4, 3), np.float32)}}, "step": jnp.int32(0)}
    with pytest.raises(UserError, match="another model: params/a/kernel"):
        checkpoints.restore("last", other)
    checkpoints.close()


def test_the_best_that_a_state_names_stays(tmp_path):
    """Best weights are saved more often than states: to go on from a state, those of its time are needed."""
    checkpoints = Checkpoints(tmp_path, keep={"last": 1, "best": 1})
    checkpoints.save("best", 2, tree(2), {})
    checkpoints.save("best", 4, tree(4), {})
    checkpoints.save("last", 5, tree(5), {})
    for step in (6, 7, 8):
        checkpoints.save("best", step, tree(step), {})
    assert checkpoints.steps("best") == [4, 8]
    checkpoints.save("last", 9, tree(9), {})
    checkpoints.wait()
    checkpoints.save("best", 10, tree(10), {})
    assert checkpoints.steps("best") == [8, 10]
    checkpoints.close()


def test_a_save_waits_for_nothing(tmp_path, monkeypatch):
    """Neither for the arrays to come from the device nor for the disk; the next one of its kind waits."""
    go_on = threading.Event()
    original = ocp.AsyncCheckpointer.save
    monkeypatch.setattr(ocp.AsyncCheckpointer, "save", lambda *a, **k: (go_on.wait(60), original(*a, **k)))
    checkpoints = Checkpoints(tmp_path)
    state = tree(1)
    checkpoints.save("last", 1, state, {})
    state["params"]["a"]["kernel"].delete()  # the next step has begun
    assert checkpoints.is_saving("last") and not checkpoints.is_saving("best")
    go_on.set()
    assert checkpoints.steps("last") == [1] and not checkpoints.is_saving("last")
    chex.assert_trees_all_equal(checkpoints.restore("last", tree(0))[0], tree(1))
    checkpoints.close()
