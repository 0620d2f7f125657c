"""The classifier that a command works with: the best checkpoint of a run, or a named model with its weights."""

import argparse
from typing import Any

from jaxvit.commands.parser import Parser, add_temperature, add_weights
from jaxvit.errors import UserError
from jaxvit.runtime import compile_cache


class _Runs(argparse.Action):
    """`--workdir A --workdir B`: `workdir` is the first, `workdirs` are all."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        namespace.workdirs = [*getattr(namespace, "workdirs", []), values]
        namespace.workdir = namespace.workdirs[0]


def add_options(parser: Parser) -> None:
    """The options that name a classifier: a run, or a model with its weights."""
    parser.add_argument(
        "--workdir", metavar="DIR", action=_Runs, help="a run: its best checkpoint and its preprocessing; several: "
        "the mean of their probabilities",
    )  # fmt: skip
    parser.add_argument("--model", metavar="NAME", help="or a timm name, or hf_hub:user/name@revision")
    parser.add_argument("--checkpoint", metavar="FILE", help="its weights (.safetensors, .npz); default: the hub")
    add_weights(parser)
    add_temperature(parser)


def load(args: argparse.Namespace, *, features: bool = False) -> Any:
    """Returns the `inference.Classifier` that the options name; with `features` it may be without classes.

    Raises UserError unless they name exactly one.
    """
    if (args.workdir is None) == (args.model is None):
        raise UserError("give one of --workdir DIR (a run) and --model NAME (with --checkpoint FILE)")
    if args.workdir is not None and (args.checkpoint is not None or args.weights is not None):
        raise UserError("--checkpoint and --weights need --model; a run has its own weights")
    compile_cache.use()
    from jaxvit import confidence, inference

    if args.workdir is not None:
        found = inference.from_run(args.workdir)
    else:
        found = inference.from_name(args.model, args.checkpoint, args.weights, features=features)
    if args.temperature is None:
        return found
    return confidence.with_temperature(found, confidence.requested(args.temperature, args.workdir))
