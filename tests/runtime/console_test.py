"""Lines on the console."""

import re

from jaxvit import cli
from jaxvit.runtime import console, escape
from tests.helpers.hostile import NAMES

# As they come from the names of files: bytes.


def test_a_terminal_is_not_steered(capsys, tmp_path):
    for name in NAMES:
        console.table(f"title {name}", ("file", name), [(name, 1)])
        console.say(name)
        console.err.print(f"{name} said")
        assert cli._fail(name, 2) == 2
        cli._warn(UserWarning(name))
    assert cli.main(["predict", "--workdir", str(tmp_path), f"{tmp_path}/{NAMES[6]}"]) == 2
    said = "".join(capsys.readouterr())
    assert re.sub("[\n]", "", said) == "".join(c for c in said if not escape._hidden(c))
    assert "[red]x[bold]" in said and "猫" in said


def test_names_that_the_console_cannot_spell_end_nothing(tmp_path, monkeypatch):
    with open(tmp_path / "out", "w", encoding="ascii") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert cli.main(["models", "vgg11"]) == 0
        console.say("猫")
    assert (tmp_path / "out").read_text() == "vgg11\n\\u732b\n"


def test_a_log_has_no_empty_lines_and_no_bar(capsys):
    console.gap()
    with console.bar("epoch 1/1", 10) as meter:
        meter.advance(10)
    assert capsys.readouterr().err == ""


def test_the_first_rate_leaves_the_compilation_out(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.bar("epoch 1/1", 1000) as meter:
        now[0] = 40.0  # the first step, compiled
        meter.leave_out(40.0, 10)
        meter.advance(10, "loss 1.0")
        now[0] = 71.0  # 31 s for the next hundred
        meter.advance(100)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "epoch 1/1: 10/1000  loss 1.0"
    assert second == f"epoch 1/1: 110/1000  3 images/s  {console.duration(890 * 31 / 100)} left"
