"""Checkpoints: what is saved comes back, damage is noticed and gone around, nothing good is lost."""

import random

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvit.checkpoint import Checkpoints
from jaxvit.errors import UserError


def tree(value):
    return {"params": {"a": {"kernel": jnp.full((4, 3), value, jnp.float32)}}, "step": jnp.int32(value)}


@pytest.fixture
def saved(tmp_path):
    """A directory with the complete steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save("last", step, tree(step), {"seconds": 0.1 * step})
    checkpoints.close()
    return tmp_path


def restore(directory, *, read_only=False):
    checkpoints = Checkpoints(directory, read_only=read_only)
    try:
        return checkpoints.restore("last", tree(0))
    finally:
        checkpoints.close()


def files(directory, step):
    return sorted(p for p in (directory / "last" / str(step)).rglob("*") if p.is_file() and p.stat().st_size)


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


def test_a_save_survives_donated_buffers(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    state = tree(5)
    checkpoints.save("last", 5, state, {})
    state["params"]["a"]["kernel"].delete()
    checkpoints.close()
    chex.assert_trees_all_equal(restore(tmp_path)[0], tree(5))


@pytest.mark.parametrize("kind", ["flip", "truncate", "delete", "add"])
def test_every_damage_is_noticed_and_the_step_before_is_used(saved, kind, capsys):
    rng = random.Random(kind)
    victim = rng.choice(files(saved, 2))
    content = bytearray(victim.read_bytes())
    if kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        victim.write_bytes(content)
    elif kind == "truncate":
        victim.write_bytes(content[: len(content) // 2])
    elif kind == "delete":
        victim.unlink()
    else:
        victim.with_name("stranger").write_bytes(b"x")
    state, _ = restore(saved)
    chex.assert_trees_all_equal(state, tree(1))
    said = capsys.readouterr().err
    assert "last/2 is damaged" in said and said.count("\n") == 1
    assert (saved / "damaged" / "last-2.0").is_dir()  # set aside, not deleted
    chex.assert_trees_all_equal(restore(saved)[0], tree(1))


def test_a_step_without_manifest_is_not_trusted(saved):
    (saved / "manifests" / "last-2.json").unlink()
    chex.assert_trees_all_equal(restore(saved)[0], tree(1))


def test_a_damaged_manifest_counts_as_damage(saved):
    (saved / "manifests" / "last-2.json").write_text("{")
    chex.assert_trees_all_equal(restore(saved)[0], tree(1))


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
    with pytest.raises(UserError, match="of another model: params/a/kernel"):
        checkpoints.restore("last", other)
    checkpoints.close()
