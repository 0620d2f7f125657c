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


def test_lines_are_folded_below_each_other():
    line = "train  20 epochs of 37 steps, batch 32, adamw, on 1 x cpu"
    assert console.folded(line, 40).splitlines() == [
        "train  20 epochs of 37 steps, batch 32,",
        "       adamw, on 1 x cpu",
    ]
    assert console.folded(line, 80) == line
    path = "files  " + "/a" * 40 + ": config.json"  # a path stays as it is, to be copied
    assert console.folded(path, 40).splitlines() == ["files  " + "/a" * 40 + ":", "       config.json"]
    epoch = "epoch 3/90  loss 1.0  | val loss 1.0  accuracy 12.34% *"
    assert console.folded(epoch, 40).splitlines() == [
        "epoch 3/90  loss 1.0  | val loss 1.0",
        "            accuracy 12.34% *",
    ]
    for width in range(1, 60):
        for text in (line, path, epoch, "", "   ", "猫 " * 30):
            assert console.folded(text, width).split() == text.split()


def test_forced_colours_make_no_terminal_of_a_log(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    forced = console._Lines(file=console.streams.STDERR, stderr=True, **console._PLAIN)
    assert forced.is_terminal and not forced.moves and forced.fits("x" * 1000)
