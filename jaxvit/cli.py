"""The command line: training where no command is named, and the table of the commands."""

import argparse
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from jaxvit import __version__
from jaxvit.commands.parser import make_parser, positive
from jaxvit.errors import RunError, UserError, is_out_of_memory, suggest
from jaxvit.runtime import allocator, compile_cache, escape, files, interrupt, packages, streams, verbosity

EPILOG = """without a command: train
  %(prog)s --config configs/digits_vit.py --workdir runs/digits [--config.optim.learning_rate=1e-3 ...]

commands:
COMMANDS
  %(prog)s COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 1 a failed run, 2 a mistake of the user, 130/143 interrupted."""
    allocator.keep_freed_memory()
    with streams.guarded():
        try:
            code = _guarded(argv)
        finally:
            verbosity.use()
        if "jaxvit.runtime.multihost" in sys.modules:
            sys.modules["jaxvit.runtime.multihost"].end(code)
        if "jaxvit.runtime.waiting" in sys.modules and sys.modules["jaxvit.runtime.waiting"].stuck:
            interrupt.leave(code)
    return code


def _guarded(argv: Sequence[str] | None) -> int:
    """Runs a command; exceptions become plain lines and an exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # a terminal is for our own lines
    for library in ("absl", "huggingface_hub", "jax", "matplotlib", "orbax", "tensorboardX"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    with suppress(AttributeError):  # a name that the console's encoding does not have must not end a command
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            with interrupt.owned("interrupted"):
                code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(str(error), 2)
    except RunError as error:
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # of orbax, by a failed save
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, "")
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _unforeseen(error)


def _warn(message: Warning | str, *_: Any) -> None:
    print(f"warning: {escape.message(str(message), 1000)}", file=sys.stderr)


def _fail(message: str, code: int, prefix: str = "error: ") -> int:
    """Prints at most two lines, the first and the last of the message; returns `code`.

    Of a long list, whose last line counts what is left out, the second is the last entry with that count.
    """
    first, *more = [line.strip() for line in message.splitlines() if line.strip()] or ["?"]
    if more[1:] and more[-1].startswith("... and"):
        more = [f"{more[-2]} {more[-1]}"]
    print(escape.terminal("\n".join([prefix + first, *more[-1:]])), file=sys.stderr)
    return code


def _unforeseen(error: Exception) -> int:
    """Errors of the machine in plain words; of any other, the kind, unless JAXVIT_TRACEBACK asks for all of it."""
    if os.environ.get("JAXVIT_TRACEBACK") or verbosity.level == verbosity.VERBOSE:
        raise error
    said = escape.message(error)
    if isinstance(error, ImportError) and (lacking := packages.missing(error)):
        return _fail(lacking, 2)
    if not isinstance(error, OSError) and files.disk_reason(error):
        return _fail(f"{files.disk_reason(error)}\n{said}", 1)
    gone = sys.modules["jaxvit.runtime.multihost"].gone(error) if "jaxvit.runtime.multihost" in sys.modules else None
    if gone:
        return _fail(gone, 1)
    if is_out_of_memory(error):
        return _fail(f"out of memory; try a smaller batch size, image or model\n{said}", 2)
    if isinstance(error, OSError) and error.strerror:  # disk full, no permission, ...
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}", 1 if files.disk_reason(error) else 2)
    return _fail(
        f"{type(error).__name__}: {said}\nunexpected, perhaps a bug; --verbose shows the traceback",
        1,
    )


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        return _train(argv)
    if argv[0] == "train":
        raise UserError("training has no command name: --config configs/digits_vit.py --workdir runs/digits")
    if argv[0] not in COMMANDS:
        raise UserError(f"no command {argv[0]!r}; expected {', '.join(COMMANDS)}.{suggest(argv[0], COMMANDS)}")
    return COMMANDS[argv[0]][0](argv[1:])


def _train(argv: list[str]) -> int:
    lines = "\n".join(f"  {name:<9} {about}" for name, (_, about) in COMMANDS.items())
    parser = make_parser(
        "", "Train, evaluate and use image classifiers in JAX.", epilog=EPILOG.replace("COMMANDS", lines, 1)
    )
    parser.add_argument("--version", action="version", version=f"jaxvit {__version__}")
    parser.add_argument(
        "--config", metavar="FILE", help="a recipe of `configs` by name, or a .py (run as code), .yaml or .json (data)"
    )
    parser.add_argument("--workdir", metavar="DIR", help="directory of the run; the same command resumes it")
    parser.add_argument("--force", action="store_true", help="continue in a workdir whose run has a different config")
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="address of process 0, when several processes train together"
    )
    parser.add_argument("--num-processes", type=positive, metavar="N", help="number of processes")
    parser.add_argument("--process-id", type=int, metavar="I", help="index of this process, from 0")
    parser.add_argument("--print-completion", choices=("bash", "zsh"), help="print a script for tab completion")
    args, rest = parser.parse_with_overrides(argv)
    if args.print_completion is not None:
        from jaxvit.commands import completion

        print(completion.script(args.print_completion, COMMANDS, parser))
        return 0
    if args.config is None:
        raise UserError("no --config; for example --config configs/digits_vit.py --workdir runs/digits")
    if args.workdir is None:
        raise UserError("no --workdir: the directory of the run, for example --workdir runs/digits")

    with interrupt.owned("stopped before there was anything to save; the same command starts from the beginning"):
        return _train_config(args, rest)


def _train_config(args: argparse.Namespace, rest: list[str]) -> int:
    from jaxvit import config as config_lib
    from jaxvit import models, plugins
    from jaxvit.build import checks
    from jaxvit.commands import next_steps
    from jaxvit.runtime import determinism, multihost
    from jaxvit.runtime.paths import expand
    from jaxvit.workdir import resume

    recorded = resume.imports(expand(args.workdir, "workdir"))
    plugins.use_recorded(recorded, args.workdir)
    rest = [*rest, *(f"--config.imports+={name}" for name in recorded)]
    config = config_lib.load(args.config, rest, models.model_fields)
    checks.check(config)
    if config.deterministic:
        determinism.switch_on()
    multihost.start(args.coordinator, args.num_processes, args.process_id)
    compile_cache.use()
    if config.dtype == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)
    from jaxvit.train.loop import train_and_evaluate

    try:
        train_and_evaluate(config, args.workdir, force=args.force)
    except interrupt.Interrupted as stop:
        print(escape.terminal(str(stop)), file=sys.stderr)
        return stop.exit_code
    if multihost.is_main() and not config.lr_find:
        next_steps.show(args.workdir, config)
    return 0


def _models(argv: list[str]) -> int:
    parser = make_parser("models", "List the models.")
    parser.add_argument("pattern", nargs="?", default="*", help="a wildcard such as 'vit_*'")
    parser.add_argument("--pretrained", action="store_true", help="list the tags that have weights")
    args = parser.parse_args(argv)
    from jaxvit import models
    from jaxvit.models import tags

    names = models.list_models(args.pattern, pretrained=args.pretrained)
    if not names:
        every = models.list_models(pretrained=args.pretrained)
        near = (
            tags.suggest_name(args.pattern.replace("*", ""), every)
            or f" {parser.prog} without a pattern lists all names."
        )
        raise UserError(f"no model matches {args.pattern!r}.{near}")
    print("\n".join(names))
    return 0


def _module(name: str) -> Callable[[list[str]], int]:
    """The `run` of a module of `jaxvit.commands`, imported when it is called."""
    return lambda argv: importlib.import_module(f"jaxvit.commands.{name}").run(argv)


COMMANDS = {
    "eval": (_module("eval"), "accuracy and loss of a run or a named model on a split"),
    "predict": (_module("predict"), "the most probable classes of images"),
    "features": (
        _module("features"),
        "embeddings of images as a file; kNN, linear probe, the images nearest to a photo",
    ),
    "convert": (_module("convert"), "weights of any layout, or of a run, as the files that timm loads"),
    "push": (_module("push"), "a run on the Hugging Face hub: weights, config and a model card"),
    "export": (_module("export"), "a model as StableHLO, ONNX or safetensors, with its preprocessing"),
    "explain": (_module("explain"), "overlays that show what models look at, on files or a run's test images"),
    "plan": (_module("plan"), "compile a config for hardware that this machine does not have: memory, FLOPs, time"),
    "configs": (_module("configs"), "the recipes and studies that come with jaxvit, listed or copied"),
    "leaks": (_module("leaks"), "images that occur in several splits of a data set: exact and near duplicates"),
    "report": (_module("report"), "curves, tables and pictures of one or several runs, as a page"),
    "study": (_module("study"), "all runs of one comparison, and its report"),
    "sweep": (_module("sweep"), "a search over ranges of config options (Optuna)"),
    "bench": (_module("bench"), "images/s, latency, memory and MFU, compared with timm's and with earlier results"),
    "models": (_models, "list the models"),
}
