"""The manifest of a checkpoint."""

import random

import chex
import pytest

from tests.helpers.checkpoints import files, restore, save_two, tree


@pytest.fixture
def saved(tmp_path):
    return save_two(tmp_path)


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


def manifests(saved, step):
    return [saved / "manifests" / f"last-{step}.json", saved / "last" / str(step) / "manifest.json"]


def test_a_step_without_manifest_is_not_trusted(saved, capsys):
    for path in manifests(saved, 2):
        path.unlink()
    chex.assert_trees_all_equal(restore(saved)[0], tree(1))
    assert "last/2 was cut off" in capsys.readouterr().err
    assert (saved / "replaced" / "last-2.0").is_dir()


@pytest.mark.parametrize("copy", [0, 1])
def test_a_damaged_manifest_is_mended_from_its_copy(saved, copy, capsys):
    damaged = manifests(saved, 2)[copy]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole.replace(b"a", b"b", 1))
    chex.assert_trees_all_equal(restore(saved)[0], tree(2))
    assert "is damaged or missing; it is written anew" in capsys.readouterr().err
    assert damaged.read_bytes() == whole
