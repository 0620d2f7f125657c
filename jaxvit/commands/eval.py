"""The command `eval`: accuracy and loss of a run, or of a named model, on a split."""

import argparse
from typing import Any

from jaxvit.commands import classifier, together, trust
from jaxvit.commands.parser import directory_to_write, file_to_write, make_parser, positive
from jaxvit.errors import UserError


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = make_parser("eval", "Accuracy and loss of a run, or of a named model, on a split.")
    classifier.add_options(parser)
    parser.add_argument("--data", metavar="NAME", help="digits, folder:PATH, csv:FILE, ...; default: the run's")
    parser.add_argument("--columns", metavar="WORDS", help="columns of csv:FILE: file=path,label=species")
    parser.add_argument("--data-dir", metavar="DIR", help="where TFDS keeps its data sets")
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="default: test; for data other than the run's, their test or val split, or else all images",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N images, stratified by class")
    parser.add_argument(
        "--restrict-classes",
        action="store_true",
        help="choose only among the classes of the data, as is usual for ImageNet-A and ImageNet-R",
    )
    parser.add_argument(
        "--real-labels", metavar="FILE", help="real.json of ImageNet-ReaL: also gives the accuracy on its labels"
    )
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images per step; default 64")
    parser.add_argument(
        "--image-size", type=positive, metavar="N", help="side of the images in pixels; default: the model's own"
    )
    parser.add_argument("--ensemble", action="store_true", help="the mean of the probabilities of several --workdir")
    together.add_views(parser)
    parser.add_argument(
        "--calibrate", action="store_true", help="fit the run's temperature on its validation split: calibration.json"
    )
    parser.add_argument(
        "--unknown", metavar="NAME", help="detect the images of this data set as unknown: folder:PATH, cifar100"
    )
    parser.add_argument(
        "--neighbours", type=positive, metavar="K", help="neighbours of the kNN score of --unknown; default 50"
    )
    parser.add_argument(
        "--out",
        type=directory_to_write,
        metavar="DIR",
        help="output of --unknown; default: unknown/ in the run, or in the current directory",
    )
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write the metrics there too")
    args = parser.parse_args(argv)
    if args.model is not None and args.data is None:
        raise UserError("--model needs --data, for example --data folder:photos")
    trust.check(args)
    _check_alone(args)
    if args.calibrate:
        return trust.calibrate(args)
    if args.ensemble or args.tta or len(getattr(args, "workdirs", ())) > 1:
        return together.evaluate(args)
    loaded = classifier.load(args)
    if args.unknown is not None:
        return trust.compare(loaded, args)
    from jaxvit import inference
    from jaxvit.runtime import console
    from jaxvit.step.metrics import OWN
    from jaxvit.workdir import run_files

    if args.image_size is not None:
        loaded = inference.at_size(loaded, (args.image_size, args.image_size))
    found = inference.evaluate_split(
        loaded,
        args.split,
        data_name=args.data,
        batch_size=args.batch_size,
        limit=args.limit,
        data_dir=args.data_dir,
        columns=args.columns,
        restrict=args.restrict_classes,
        real_labels=args.real_labels,
    )
    metrics, of = found.metrics, "all images" if found.split == "all" else f"{found.split} split"
    counts = {"split": found.split, "images": found.images, "of_images": found.of}
    intervals = {
        f"{name}_interval": together.interval(metrics[name], images) for name, images in _shares(loaded, found)
    }
    if args.json:
        run_files.write_json(args.json, {"model": loaded.name, **counts, **metrics, **intervals})
    images = together.images_of(found.images, found.of)
    registered = [name for name in OWN if name in metrics]
    own = [f"{metrics[name]:.4g}" for name in registered]
    if loaded.several:
        heads = ("mAP", "micro F1", "macro F1", "exact match", "loss", "ECE", *registered, "images")
        row = [f"{metrics[name]:.2%}" for name in ("mAP", "micro_f1", "macro_f1", "exact_match")]
        row += [f"{metrics['loss']:.4f}", f"{metrics['ece']:.2%}", *own, images]
        console.table(f"{loaded.name}, {of}", heads, [row])
        return 0
    top5 = f"{metrics['top5_accuracy']:.2%}" if found.classes > 5 else "–"  # of five it says nothing
    row = [f"{metrics['accuracy']:.2%}", together.shown(intervals["accuracy_interval"]), top5]
    row += [f"{metrics['balanced_accuracy']:.2%}", f"{metrics['macro_f1']:.2%}", f"{metrics['loss']:.4f}"]
    row += [f"{metrics['ece']:.2%}", *own, images]
    heads = ("top-1", "95 % interval", "top-5", "balanced accuracy", "macro F1", "loss", "ECE", *registered, "images")
    console.table(f"{loaded.name}, {of}", heads, [row])
    if args.real_labels:
        row = [f"{metrics['real_accuracy']:.2%}", together.shown(intervals["real_accuracy_interval"])]
        row += [f"{metrics['real_top5_accuracy']:.2%}", f"{metrics['real_images']:,.0f} of {found.images:,}"]
        console.table("with the labels of ImageNet-ReaL", ("top-1", "95 % interval", "top-5", "images"), [row])
    return 0


def _check_alone(args: argparse.Namespace) -> None:
    """Raises UserError where an option of one classifier is given to several, or to another task."""
    given = [name for name in ("restrict_classes", "real_labels", "image_size") if getattr(args, name)]
    several = args.ensemble or args.tta or len(getattr(args, "workdirs", ())) > 1
    if given and (several or args.calibrate or args.unknown):
        option = f"--{given[0].replace('_', '-')}"
        raise UserError(f"{option} is for one classifier; leave out --ensemble, --tta, --calibrate and --unknown")


def _shares(loaded: Any, found: Any) -> list[tuple[str, int]]:
    """The metrics that are shares of images, and of how many."""
    shares = [] if loaded.several else [("accuracy", found.images), ("top5_accuracy", found.images)]
    if "real_images" in found.metrics:
        shares += [(name, int(found.metrics["real_images"])) for name in ("real_accuracy", "real_top5_accuracy")]
    return shares
