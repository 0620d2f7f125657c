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
    places = [run if run is None else expand(run).resolve() for run in runs]
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
    shown = ["mAP", "micro_f1", "macro_f1", "exact_match"] if several else ["accuracy", "balanced_accuracy", "macro_f1"]
    names = {"accuracy": "top-1", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
             "micro_f1": "micro F1", "exact_match": "exact match"}  # fmt: skip
    heads = ("", *(names.get(name, name) for name in shown), "loss", "ECE", "forward passes")
    rows = [
        [
            each.label,
            *(f"{each.metrics[name]:.2%}" for name in shown),
            f"{each.metrics['loss']:.4f}",
            f"{each.metrics['ece']:.2%}",
            str(n),
        ]
        for each, n in zip(every, passes, strict=True)
    ]
    of = "all images" if found.split == "all" else f"{found.split} split"
    title = f"{members[0].classifier.name}, {of}" if not args.ensemble else of
    console.table(f"{title}, {len(found.labels):,} of {found.of:,} images", heads, rows, left=("",))
    over = f"the best member ({best.label})" if args.ensemble else "one view"
    console.say(f"gain over {over}: {gain.text}")
    if args.json:
        counts = {"split": found.split, "images": len(found.labels), "of_images": found.of}
        each = [{"of": e.label, "forward_passes": n, **e.metrics} for e, n in zip(every, passes, strict=True)]
        run_files.write_json(args.json, {**counts, "predictions": each, "gain": {"over": best.label, **gain._asdict()}})
    return 0
