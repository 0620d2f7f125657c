"""Tab completion."""

import shutil
import subprocess
import sys

import pytest

from jaxvit import cli
from jaxvit.config import recipes
from jaxvit.errors import UserError

pytest.importorskip("shtab")
TAB = """
tab() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=()
  _jaxvit_complete jaxvit "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
  echo "${COMPREPLY[*]}"
}
"""
LINES = {
    "jaxvit ev": {"eval"},
    "jaxvit eval --workd": {"--workdir"},
    "jaxvit eval --split t": {"train", "test"},
    "jaxvit eval --model vit_tiny_patch16_2": {"vit_tiny_patch16_224"},
    "jaxvit bench --model resnet18 resnet34": {"resnet34", "resnet34d"},
    "jaxvit models swin_l": {"swin_large_patch4_window7_224", "swin_large_patch4_window12_384"},
    "jaxvit study how_many": {"how_many_images"},
    "jaxvit --config digits_v": {"digits_vit"},
    "jaxvit --config.optim.sam.rh": {"--config.optim.sam.rho=", "--config.optim.sam.rho_min="},
    "jaxvit --config.model.name = vit_tiny_patch16_3": {"vit_tiny_patch16_384"},
}


def test_bash_completes_commands_options_models_recipes_and_options_of_a_config(capsys, tmp_path):
    assert cli.main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    program = script + TAB + "\n".join(f"tab {line}" for line in LINES)
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = [set(line.split()) for line in done.stdout.splitlines()]
    assert dict(zip(LINES, found, strict=True)) == LINES


def test_zsh_gets_the_same_names(capsys):
    assert cli.main(["--print-completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef jaxvit") and all(name in script for name in (*recipes.names(), *cli.COMMANDS))


def test_without_shtab_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(UserError, match=r"jaxvit\[completion\]"):
        cli._dispatch(["--print-completion", "bash"])
