"""What `convert` does with several models: `--average` of their weights, `--soup` of those that help."""

import argparse
import dataclasses
from typing import Any

from jaxvit.commands.parser import Parser, check_target, positive
from jaxvit.errors import UserError
from jaxvit.runtime import compile_cache
from jaxvit.runtime.paths import expand, near

OF_DATA = ("data", "columns", "data_dir", "batch_size")


def add_options(parser: Parser) -> None:
    """The options of averages."""
    several = "runs, or weight files with --model NAME: "
    parser.add_argument("--average", nargs="+", metavar="RUN", help=several + "the mean of their weights")
    parser.add_argument(
        "--soup",
        nargs="+",
        metavar="RUN",
        help=several + "the mean of those that help on the validation split, chosen greedily",
    )
    parser.add_argument(
        "--data", metavar="NAME", help="measure the average on this data and estimate its BatchNorm statistics there"
    )
    parser.add_argument("--columns", metavar="WORDS", help="columns of csv:FILE: file=path,label=species")
    parser.add_argument("--data-dir", metavar="DIR", help="where TFDS keeps its data sets")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images per step; default 64")


def refuse(args: argparse.Namespace) -> None:
    """Raises UserError for options of averages if there is none."""
    for word in OF_DATA:
        if getattr(args, word) is not None:
            raise UserError(f"--{word.replace('_', '-')} needs --average or --soup")


def run(args: argparse.Namespace) -> int:
    """Averages, writes, and prints what it gained; returns the exit code."""
    from jaxvit.commands import source

    if args.average and args.soup:
        raise UserError("give one of --average and --soup")
    texts, word = (args.soup, "--soup") if args.soup else (args.average, "--average")
    if len(texts) < 2:
        raise UserError(f"{word} needs two models or more, for example {word} runs/a runs/b")
    for option in ("workdir", "checkpoint", "num_classes", "image_size", "in_channels", "temperature"):
        if getattr(args, option) is not None:
            option = "from" if option == "workdir" else option.replace("_", "-")
            raise UserError(f"--{option} cannot be combined with {word}, which averages the models unchanged")
    places = [expand(text).resolve() for text in texts]
    for text, place in zip(texts, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{text!r} was given twice; expected different models")
    target = check_target(args, source.FILES)
    compile_cache.use()
    from jaxvit import combine
    from jaxvit.combine import average

    members = [combine.Member(text, _load(text, args)) for text in texts]
    data: dict[str, Any] = {"data_name": args.data, "data_dir": args.data_dir, "columns": args.columns}
    found = average.make(members, greedy=bool(args.soup), batch_size=args.batch_size or 64, **data)
    kept = [each.label for each in found.ingredients if each.kept]
    given = _first(texts[0], args)
    facts = [("soup of" if args.soup else "average of", ", ".join(kept))]
    facts += [fact for fact in given.facts if fact[0] in ("trained on", "started from", "licence")]
    given = dataclasses.replace(given, variables=found.variables, facts=facts, thresholds=found.thresholds)
    _say(found, word)
    source.write_and_say(given, target)
    return 0


def _is_run(text: str) -> bool:
    return (expand(text) / "checkpoints").is_dir()


def _load(text: str, args: argparse.Namespace) -> Any:
    from jaxvit import inference

    if _is_run(text):
        return inference.from_run(text)
    if not expand(text).exists():
        raise UserError(f"no run or weight file {text!r}.{near(expand(text))}")
    if args.model is None:
        raise UserError(f"{text!r} is not a run; weight files need --model NAME")
    return inference.from_name(args.model, text, args.weights)


def _first(text: str, args: argparse.Namespace) -> Any:
    from jaxvit.commands import source

    if _is_run(text):
        return source.from_run(text)
    words = {} if args.weights is None else {"weights": args.weights}
    return source.from_file(args.model, text, **words)


def _say(found: Any, word: str) -> None:
    from jaxvit.runtime import console

    if found.gain is None:
        console.warn("no --data NAME: the gain of the average is not measured")
        return
    figure = "mAP" if "mAP" in found.tested else "accuracy"
    shown = "mAP" if figure == "mAP" else "top-1"
    soup = word == "--soup"
    heads = ("", *([f"{shown}, validation"] if soup else []), shown, "loss", *(["kept"] if soup else []))
    rows = [(each.label, each.chosen_by, each.tested, "yes" if each.kept else "no") for each in found.ingredients]
    rows.append((word.removeprefix("--"), found.validated, found.tested, ""))
    table = [
        (label, *([f"{value:.2%}"] if soup else []), f"{tested[figure]:.2%}", f"{tested['loss']:.4f}", *[kept] * soup)
        for label, value, tested, kept in rows
    ]
    console.table(found.images, heads, table, left=("",))
    best = "the best on validation" if soup else "the best ingredient"
    console.say(f"gain over {best} ({found.best}): {found.gain.text}")
