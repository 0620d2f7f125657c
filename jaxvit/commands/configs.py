"""`configs`: the recipes and studies that come with jaxvit, listed or copied; the options of a config, looked up."""

import fnmatch
from pathlib import Path

from jaxvit.commands.parser import make_parser
from jaxvit.config import recipes, reference
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import console, files
from jaxvit.runtime.paths import expand

DESCRIPTION = """List the recipes and studies that come with jaxvit, or copy them to change them.

  %(prog)s                               the names and the purpose of each
  %(prog)s finetune_vit                  one file, unchanged
  %(prog)s --copy my_configs             all of them, or those that are named
  %(prog)s finetune_vit --copy my_configs
  %(prog)s --options                     every option of a config: its default and its meaning
  %(prog)s --options 'optim.sam.*'       the options that match"""


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = make_parser("configs", DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes or studies; default: all")
    parser.add_argument("--copy", metavar="DIR", help="write the files there; a file that exists is never replaced")
    parser.add_argument(
        "--options",
        nargs="?",
        const="*",
        metavar="PATTERN",
        help="look up options of a config, such as 'augment.*' or 'decay'",
    )
    args = parser.parse_args(argv)
    if args.options is not None:
        return _options(args.options)
    known = {**recipes.studies(), **recipes.names()}
    if not known:
        raise UserError("this copy of jaxvit has no recipes; install it with pip, or run it in a checkout")
    for name in args.names:
        if name not in known:
            raise UserError(f"no recipe or study {name!r}.{suggest(name, known)}")
    chosen = {name: known[name] for name in args.names or known}
    if args.copy is not None:
        return _copy(chosen, expand(args.copy))
    if args.names:
        console.say("\n\n".join(path.read_text(encoding="utf-8").rstrip() for path in chosen.values()))
        return 0
    for title, found in (("recipes", recipes.names()), ("studies", recipes.studies())):
        rows = [(name, recipes.purpose(path)) for name, path in found.items()]
        console.table(title, ("name", "what it is for"), rows, left=("name", "what it is for"))
    console.say("To train, give a recipe's name in place of a config file; `study NAME` runs a study.")
    return 0


def _options(pattern: str) -> int:
    every = reference.options()
    chosen = [option for option in every if fnmatch.fnmatch(option.name, pattern) or pattern in option.name]
    if not chosen:
        chosen = [option for option in every if pattern.lower() in option.meaning.lower()]
    if not chosen:
        raise UserError(f"no option matches {pattern!r}.{suggest(pattern, [option.name for option in every])}")
    for option in chosen:
        takes = f" ({option.takes})" if option.takes else ""
        console.say(f"{option.name} = {option.default!r}{takes}\n    {option.meaning}")
    return 0


def _copy(chosen: dict[str, Path], directory: Path) -> int:
    targets = {path: directory / path.relative_to(str(recipes.directory())) for path in chosen.values()}
    there = [target for target in targets.values() if target.exists()]
    if there:
        more = f" and {len(there) - 1} more" if there[1:] else ""
        raise UserError(f"{str(there[0])!r} already exists{more}; nothing was copied")
    for source, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write(target, source.read_bytes())
    console.say(f"{len(targets)} files in {directory}")
    return 0
