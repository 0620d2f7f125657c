"""--quiet and --verbose."""

import pytest

from jaxvit import cli
from jaxvit.commands.parser import make_parser
from jaxvit.errors import UserError
from jaxvit.runtime import console, verbosity


@pytest.mark.parametrize(
    ("words", "said"), [([], "warning line"), (["--quiet"], "warning"), (["--verbose"], "warning line detail")]
)
def test_what_each_level_says(words, said, capsys, monkeypatch):
    monkeypatch.setattr(verbosity, "level", verbosity.NORMAL)
    make_parser("eval", "").parse_args(words)
    assert verbosity.words() == words
    console.warn("warning")
    console.err.print("line")
    console.detail("detail")
    console.say("result")
    shown = capsys.readouterr()
    assert shown.err.split() == said.split() and shown.out == "result\n"


def test_the_two_exclude_each_other():
    with pytest.raises(UserError, match="--quiet"):
        make_parser("eval", "").parse_args(["--quiet", "--verbose"])


def test_every_command_takes_both_leaves_the_level_as_it_was_and_helps_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("", *cli.COMMANDS):
        with pytest.raises(SystemExit):
            cli._dispatch([*([name] if name else []), "--help"])
        said = capsys.readouterr().out
        assert "--quiet" in said and "--verbose" in said
        assert max(map(len, said.splitlines())) <= 80
    assert cli.main(["models", "vgg11", "--quiet"]) == 0 and verbosity.level == verbosity.NORMAL
