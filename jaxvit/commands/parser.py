"""What the commands share: a parser whose errors are UserErrors, kinds of values, places to write to."""

import argparse
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxvit import plugins
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import verbosity
from jaxvit.runtime.paths import expand

OVERRIDE = "--config."


class _Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions in the width of the terminal: text is filled, commands stay such that they can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = []
        for paragraph in re.split(r"\n\n+", text):
            if not re.search("^ ", paragraph, re.M):
                paragraphs.append(textwrap.fill(paragraph, width))
                continue
            joined = re.sub(r"\n {16,}", " ", paragraph)  # the rest of an explanation
            paragraphs.append("\n".join(_folded(line, width) for line in joined.splitlines()))
        return "\n\n".join(paragraphs)


def _folded(line: str, width: int) -> str:
    """A line "  command    what it does" in the width."""
    if len(line) <= width:
        return line
    found = re.fullmatch(r"(?P<head>( *)\S.*?)(?P<gap> {2,})(?P<text>\S.*)", line)
    if found is None:  # a command: the shell joins its lines again
        rest = f"\\\n{' ' * 6}"
        parts = textwrap.wrap(
            line, width - 2, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False
        )
        return f" {rest}".join(part.strip() if i else part for i, part in enumerate(parts))
    column = len(found["head"] + found["gap"])
    if column <= 16:
        text = textwrap.wrap(found["text"], width - column)
        return line[:column] + f"\n{' ' * column}".join(text)
    return f"{_folded(found['head'], width)}\n" + textwrap.indent(textwrap.fill(found["text"], width - 6), " " * 6)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raises the message."""
        short = re.fullmatch(r"argument (?:\S+/)?(--[\w-]+).*: expected (?:one|at least one) argument", message)
        hint = f" (one that begins with '-' is written {short[1]}=-VALUE)" if short else ""
        wrong = re.fullmatch(r".*: invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong:  # Python 3.12 leaves the quotes out of the choices
            near = suggest(wrong[1], wrong[2].replace("'", "").split(", "))
            raise UserError(f"{message}.{near}")
        raise UserError(f"{message}{hint}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's; the modules of --import are imported."""
        found, rest = super().parse_known_args(args, namespace)
        verbosity.use(quiet=found.quiet, verbose=found.verbose)
        if found.imports:
            plugins.use(found.imports)
        return found, rest

    def parse_with_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Returns the options, and the remaining arguments for `config.load`: `--config.OPTION=VALUE`.

        The modules of --import are among them, so that a run records them.

        Raises:
          UserError: an option that is neither.
        """
        args, rest = self.parse_known_args(argv)
        for text in rest:
            if text.startswith("-") and not text.startswith(OVERRIDE):
                known = [option for action in self._actions for option in action.option_strings if option != "-h"]
                near = suggest(text, known)
                raise UserError(f"no option {text!r}; config options are written --config.OPTION=VALUE.{near}")
        return args, [*rest, *(f"{OVERRIDE}imports+={name}" for name in args.imports)]


def program() -> str:
    """What the user typed to start this program, for commands to copy."""
    given = sys.argv[0] if sys.argv else ""
    if given.endswith(".py"):
        return shlex.join([sys.orig_argv[0] if sys.orig_argv else "python", given])
    found = shutil.which("jaxvit")
    is_other = Path(given).name == "jaxvit" and Path(given).is_file() and not (found and Path(found).samefile(given))
    return shlex.quote(given) if is_other else "jaxvit"


def make_parser(command: str, description: str, **options: Any) -> Parser:
    """Returns the parser of a command ("" for training), named as the user has called it."""
    prog = Path(sys.argv[0]).name if sys.argv and sys.argv[0].endswith(".py") else "jaxvit"
    prog = f"python {prog}" if prog.endswith(".py") else prog
    parser = Parser(
        prog=f"{prog} {command}".strip(),
        description=description,
        allow_abbrev=False,
        formatter_class=_Help,
        **options,
    )
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that registers parts of your own",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--quiet", action="store_true", help="only warnings, errors and the result")
    amount.add_argument("--verbose", action="store_true", help="more details: metrics, times, what was loaded")
    return parser


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def not_negative(text: str) -> int:
    """A whole number of 0 or more."""
    if text.isdecimal() and int(text) == 0:
        return 0
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more") from None


def size(text: str) -> int | tuple[int, int]:
    """Pixels: "224", or "192x256" for height and width."""
    sides = text.lower().split("x")
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; expected for example 224 or 192x256")
    pixels = [positive(side) for side in sides]
    return pixels[0] if len(pixels) == 1 else (pixels[0], pixels[1])


def probability(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability; expected a number from 0 to 1, such as 0.9")
    return value


def temperature(text: str) -> str | float:
    """The word "run", or a positive number."""
    if text == "run":
        return text
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a temperature; expected a positive number, or run")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _expanded(text: str) -> Path:
    try:
        return expand(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def file_to_write(text: str) -> Path:
    """A file in a directory that is there and can be written to."""
    path = _expanded(text)
    if not text or path.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: it is a directory; expected a file")
    if (path.exists() and not path.is_file()) or str(path.absolute().parent) in (
        "/dev",
        "/dev/fd",
    ):  # it would be replaced
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: it is a device or pipe; expected a file")
    if not path.parent.is_dir():  # said before the work, not after it
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: there is no directory {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write {text!r}: no permission in {str(path.parent)!r}")
    return path


def directory_to_write(text: str) -> Path:
    """A directory, there or not yet, that can be written to."""
    path = _expanded(text)
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a directory")
    above = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not above.is_dir():
        raise argparse.ArgumentTypeError(f"{str(above)!r} is a file; expected a directory")
    if not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write to {text!r}: no permission in {str(above)!r}")
    return path


def add_weights(parser: Parser) -> None:
    """The option of a command that reads a weight file."""
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        help="which weights of a checkpoint: averaged or raw; default: averaged if it has them",
    )


def add_temperature(parser: Parser) -> None:
    """The option of a command whose probabilities can be calibrated."""
    parser.add_argument(
        "--temperature",
        type=temperature,
        metavar="T",
        help="divide the logits by this: run (fitted on the run's validation split) or a number; default: 1",
    )


def add_target(parser: Parser) -> None:
    """The options of a command that writes files into a directory."""
    parser.add_argument("--to", type=directory_to_write, metavar="DIR", help="the directory to write to")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def check_target(args: argparse.Namespace, names: Sequence[str]) -> Path:
    """Returns `args.to`. Raises UserError, before any work, where it is missing or holds one of the files `names`."""
    if args.to is None:
        raise UserError("no --to DIR: the directory to write to")
    there = [name for name in names if (args.to / name).exists()]
    if there and (args.to / "checkpoints").is_dir():
        raise UserError(f"{str(args.to)!r} holds a run, whose {there[0]!r} would be replaced; choose another --to")
    if there and not args.force:
        raise UserError(
            f"{str(args.to)!r} already holds {there[0]!r}; choose another --to, or pass --force to replace it"
        )
    return args.to
