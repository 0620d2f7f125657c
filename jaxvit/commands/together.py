"""What `eval` and `predict` do with several runs (`--ensemble`) and with several views of an image (`--tta`)."""

import argparse
import copy
from typing import TYPE_CHECKING, Any

from jaxvit.commands import classifier
from jaxvit.commands.parser import Parser
from jaxvit.errors import UserError
from jaxvit.runtime.paths import expand

if TYPE_CHECKING:
    from jaxvit.combine import Member

VIEWS = ("flip", "crops")


def add_views(parser: Parser) -> None:
    """The option for several views of an image."""
    parser.add_argument(
        "--tta",
        choices=VIEWS,
        help="the mean over views of an image: flip (2 forward passes) or crops (10 forward passes)",
    )


def load(args: argparse.Namespace) -> "list[Member]":
    """The classifiers that the options name. Raises UserError for runs that cannot be averaged."""
    runs = getattr(args, "workdirs", None) or [None]
    places = [run if run is None else expand(run, "workdir").resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"the run {run!r} was given twice; expected different runs")
    loaded = []
    for run in runs:
        one = copy.copy(args)
        one.workdir = run
        loaded.append(classifier.load(one))
    from jaxvit import combine

    members = [combine.Member(run or each.name, each) for run, each in zip(runs, loaded, strict=True)]
    combine.check_classes(members)
    return members


def interval(share: float, images: int) -> tuple[float, float]:
    """The 95 % interval of a share of some images (Wilson, 1927)."""
    from jaxvit.reports.numbers import wilson

    return wilson(round(share * images), images)


def images_of(images: int, of: int) -> str:
    """How many images were evaluated, of how many that all splits hold: a split is a part of them, not the whole."""
    return f"{images:,}" if images == of else f"{images:,} of {of:,} in all splits"


def shown(found: tuple[float, float]) -> str:
    """An interval in per cent."""
    return f"{100 * found[0]:.2f}–{100 * found[1]:.2f} %"


def evaluate(args: argparse.Namespace) -> int:
    """Runs `eval` of an ensemble, or with several views; returns the exit code."""
    number = len(getattr(args, "workdirs", ()))
    if number > 1 and not args.ensemble:
        raise UserError("several --workdir; expected one, or --ensemble for the mean of their probabilities")
    if args.ensemble and number < 2:
        raise UserError("--ensemble needs two runs or more, for example --workdir runs/a --workdir runs/b --ensemble")
    members = load(args)
    from jaxvit import combine
    from jaxvit.runtime import console
    from jaxvit.workdir import run_files

    words: dict[str, Any] = {"data_name": args.data, "limit": args.limit, "data_dir": args.data_dir}
    words |= {"columns": args.columns, "batch_size": args.batch_size, "tta": args.tta}
    if args.ensemble:
        found = combine.evaluate(members, args.split, **words)
    else:
        found = combine.evaluate_views(members[0], args.split, **words)
    several = members[0].classifier.several
    figure = "mAP" if several else "accuracy"
    best = max(found.members, key=lambda each: each.metrics[figure])
    gain = combine.measure_gain(best.logits, found.whole.logits, found.labels)
    views = combine.FORMS[args.tta] if args.tta else 1
    every = [*found.members, found.whole]
    passes = [views if args.ensemble else 1] * len(found.members) + [views * len(members)]
    figures = ["mAP", "micro_f1", "macro_f1", "exact_match"] if several else ["balanced_accuracy", "macro_f1"]
    intervals = [None if several else interval(each.metrics["accuracy"], len(found.labels)) for each in every]
    names = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
             "micro_f1": "micro F1", "exact_match": "exact match"}  # fmt: skip
    first = () if several else ("top-1", "95 % interval")
    heads = ("", *first, *(names.get(name, name) for name in figures), "loss", "ECE", "forward passes")
    rows = [
        [
            each.label,
            *(() if between is None else (f"{each.metrics['accuracy']:.2%}", shown(between))),
            *(f"{each.metrics[name]:.2%}" for name in figures),
            f"{each.metrics['loss']:.4f}",
            f"{each.metrics['ece']:.2%}",
            str(n),
        ]
        for each, n, between in zip(every, passes, intervals, strict=True)
    ]
    of = "all images" if found.split == "all" else f"{found.split} split"
    title = f"{members[0].classifier.name}, {of}" if not args.ensemble else of
    console.table(f"{title}, images: {images_of(len(found.labels), found.of)}", heads, rows, left=("",))
    over = f"the best member ({best.label})" if args.ensemble else "one view"
    console.say(f"gain over {over}: {gain.text}")
    if args.json:
        counts = {"split": found.split, "images": len(found.labels), "of_images": found.of}
        each = [
            {"of": e.label, "forward_passes": n, **e.metrics, **({} if i is None else {"accuracy_interval": i})}
            for e, n, i in zip(every, passes, intervals, strict=True)
        ]
        run_files.write_json(args.json, {**counts, "predictions": each, "gain": {"over": best.label, **gain._asdict()}})
    return 0
