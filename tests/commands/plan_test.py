"""The command plan."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvit.commands import plan
from jaxvit.errors import UserError


def test_the_compiler_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(plan, "_has", lambda name: False)
    with pytest.raises(UserError, match=r"jaxvit\[cuda\].*no GPU is needed"):
        plan.run(["--config", "none.py", "--topology", "h100:1"])
    monkeypatch.undo()
    assert plan._has("jax.numpy") and not plan._has("no_such_package.part")


ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, str(ROOT / "main.py"), "plan", "--config", str(ROOT / "configs/digits_vit.py")]
    target = tmp_path / "plan.json"
    done = subprocess.run([*command, "--topology", "cpu:4", "--json", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(target.read_text())["devices"] == 4 and "fits      yes" in done.stdout
