"""`--print-completion SHELL`: a script that completes commands, options, models, recipes and files at a tab (shtab)."""

import argparse
from collections.abc import Callable, Mapping

from jaxvit.commands.parser import Parser, make_parser
from jaxvit.config import recipes, reference
from jaxvit.runtime import packages

SHELLS = ("bash", "zsh")
RECIPES = ("--config",)  # options that take a recipe's name or a file
KINDS = {"DIR": "directory", "RUN": "directory", "WORKDIR": "directory", "FILE": "file", "IMAGE": "file"}

# {models}, {recipes}, {studies}: names with spaces between them
PREAMBLE = {
    "bash": """
_jaxvit_models() {{ compgen -W "{models}" -- "$1"; }}
_jaxvit_studies() {{ compgen -W "{studies}" -- "$1"; }}
_jaxvit_recipes() {{ compgen -W "{recipes}" -- "$1"; compgen -f -- "$1"; }}
""",
    "zsh": """
_jaxvit_models() {{ compadd -- {models} }}
_jaxvit_studies() {{ compadd -- {studies} }}
_jaxvit_recipes() {{ compadd -- {recipes}; _files }}
""",
}
# `--config.OPTION=VALUE` is no option of the parser; bash divides the line at "="
AFTER = {
    "bash": """
_jaxvit_complete() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local of="$before"
  if [[ $word == "=" ]]; then word=""; elif [[ $before == "=" ]]; then of="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
  if [[ $of == --config.model.name && $of != "$word" ]]; then
    COMPREPLY=($(_jaxvit_models "$word"))
  elif [[ $word == --config.* ]]; then
    COMPREPLY=($(compgen -S = -W "{options}" -- "$word"))
    compopt -o nospace
  else
    _shtab_jaxvit "$@"
  fi
}}
complete -o bashdefault -F _jaxvit_complete jaxvit
""",
    "zsh": "",
}


def script(shell: str, commands: Mapping[str, tuple[Callable[[list[str]], int], str]], training: Parser) -> str:
    """Returns the script for a shell; `commands` maps names to (what runs them, what they do).

    Raises UserError where shtab is not installed.
    """
    packages.require("shtab")
    import shtab  # type: ignore[import-not-found]

    from jaxvit import models

    root = argparse.ArgumentParser("jaxvit", parents=[training], add_help=False)
    below = root.add_subparsers()
    for name, (run, about) in commands.items():
        below.add_parser(name, parents=[_parser_of(run)], add_help=False, help=about)
    for parser in (root, *below.choices.values()):
        for action in parser._actions:
            _mark(action, study=parser.prog.endswith(" study"))
    words = {
        "models": " ".join(models.list_models()),
        "recipes": " ".join(recipes.names()),
        "studies": " ".join(recipes.studies()),
        "options": " ".join(f"--config.{option.name}" for option in reference.options()),
    }
    preamble = {shell: PREAMBLE[shell].format(**words)}
    return shtab.complete(root, shell, root_prefix="jaxvit", preamble=preamble[shell]) + AFTER[shell].format(**words)


def _mark(action: argparse.Action, *, study: bool) -> None:
    """Says what the values of an option are."""
    if action.choices is not None:
        return
    if "--model" in action.option_strings or action.dest == "pattern":
        action.complete = dict.fromkeys(SHELLS, "_jaxvit_models")  # type: ignore[attr-defined]
    elif set(RECIPES) & set(action.option_strings):
        action.complete = dict.fromkeys(SHELLS, "_jaxvit_recipes")  # type: ignore[attr-defined]
    elif study and not action.option_strings:
        action.complete = dict.fromkeys(SHELLS, "_jaxvit_studies")  # type: ignore[attr-defined]
    elif isinstance(action.metavar, str) and action.metavar in KINDS:
        import shtab  # type: ignore[import-not-found]

        found = shtab.DIRECTORY if KINDS[action.metavar] == "directory" else shtab.FILE
        action.complete = found  # type: ignore[attr-defined]


class _Found(Exception):
    """The parser of a command, at the moment at which it would read the arguments."""


def _parser_of(run: Callable[[list[str]], int]) -> Parser:
    def stop(self: Parser, args: object = None, namespace: object = None) -> object:
        raise _Found(self)

    usual = Parser.parse_known_args
    Parser.parse_known_args = stop  # type: ignore[method-assign]
    try:
        run([])
    except _Found as found:
        return found.args[0]
    finally:
        Parser.parse_known_args = usual  # type: ignore[method-assign]
    return make_parser("", "")
