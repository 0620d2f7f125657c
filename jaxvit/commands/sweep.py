"""`sweep`: trials over the ranges of a config, each a run, and their outcome."""

import argparse
import shlex
from pathlib import Path

from jaxvit.commands.parser import make_parser, positive, program
from jaxvit.errors import UserError
from jaxvit.runtime import compile_cache, interrupt, packages

DESCRIPTION = """Search the ranges of config.sweep.ranges for the best validation metric (early_stopping.metric).

  %(prog)s --config FILE --trials 20 --workdir DIR [--config.OPTION=VALUE ...]

Each trial is a run in DIR/trial_0000 and so on; trials.csv, sweep.png and best.json hold the outcome. Started again,
the command resumes where it stopped; a larger --trials adds to the search. The test split selects nothing."""


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = make_parser("sweep", DESCRIPTION)
    parser.add_argument(
        "--config", metavar="FILE", help="a config with sweep.ranges: .py (run as code), .yaml or .json (data)"
    )
    parser.add_argument("--trials", type=positive, default=20, metavar="N", help="total number of trials; default 20")
    parser.add_argument("--workdir", metavar="DIR", help="directory of the trials, the study and the outcome")
    args, rest = parser.parse_with_overrides(argv)
    if args.config is None:
        raise UserError("no --config; for example --config configs/sweep_digits_vit.py --workdir runs/sweep")
    if args.workdir is None:
        raise UserError("no --workdir: the directory of the sweep, for example --workdir runs/sweep")
    with interrupt.owned("stopped; the same command resumes there"):
        return _search(args, rest)


def _search(args: argparse.Namespace, rest: list[str]) -> int:
    from jaxvit import config as config_lib
    from jaxvit import models
    from jaxvit.runtime import console
    from jaxvit.sweep import outcome, search

    packages.require("optuna", "matplotlib")
    config = config_lib.load(args.config, rest, models.model_fields)
    compile_cache.use()
    again = ["--config", args.config, "--workdir", str(Path(args.workdir) / "best"), *rest]
    command = f"{program()} {shlex.join(again)}"
    try:
        rows = search(config, args.workdir, args.trials, command=command)
    except interrupt.Interrupted as stop:
        console.warn(str(stop))
        return stop.exit_code
    outcome.show(rows, config, Path(args.workdir), command)
    return 0
