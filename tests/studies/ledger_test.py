"""study.json: keys of runs, states, and whose study it is."""

import pytest

from jaxvit.errors import UserError
from jaxvit.studies import ledger as led


@pytest.mark.parametrize("given", [("resnet18", 0, None), ("a/b", 12, None), ("vit", 1, 3)])
def test_keys_come_apart_again(given):
    assert led.split_key(led.run_key(*given)) == given


@pytest.mark.parametrize("key", ["resnet18", "seed0", "a/seedx", "a/seed0-fold"])
def test_another_key_is_damage(key):
    with pytest.raises(UserError, match="damaged"):
        led.split_key(key)


def test_what_is_done_stays_while_its_directory_does(tmp_path):
    ledger = led.Ledger(tmp_path, "optimisers", {"seeds": 2})
    ledger.record("sgd/seed0", led.DONE)
    ledger.record("sgd/seed1", led.RUNNING)
    assert ledger.status("sgd/seed0") == led.WAITING  # its directory was thrown away
    assert "directory has gone" in ledger.records()["sgd/seed0"]["reason"]
    assert ledger.records()["sgd/seed1"]["status"] == led.RUNNING
    (tmp_path / "sgd/seed0").mkdir(parents=True)
    again = led.Ledger.read(tmp_path, "optimisers")
    assert again.status("sgd/seed0") == led.DONE
    assert again.status("sgd/seed1") == led.STOPPED and again.get("sgd/seed1")["reason"]
    assert again.status("sgd/seed2") == led.WAITING
    assert again.records()["sgd/seed0"] == ledger.content["runs"]["sgd/seed0"]


@pytest.mark.parametrize(("name", "options"), [("transfer", {"seeds": 2}), ("optimisers", {"seeds": 3})])
def test_a_directory_belongs_to_one_study(tmp_path, name, options):
    led.Ledger(tmp_path, "optimisers", {"seeds": 2}).write()
    with pytest.raises(UserError, match="holds"):
        led.Ledger(tmp_path, name, options)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / led.FILE).write_text('{"study": "optimisers"}')
    with pytest.raises(UserError, match="damaged"):
        led.Ledger(tmp_path, "optimisers", {})
