"""`eval` beyond metrics: `--calibrate` fits a temperature, `--unknown` compares images of no known class."""

import argparse
import io
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError
from jaxvit.runtime import compile_cache, packages
from jaxvit.runtime.paths import expand

OF_DATA = (
    "model",
    "checkpoint",
    "weights",
    "data",
    "columns",
    "data_dir",
    "split",
    "limit",
    "json",
    "unknown",
    "temperature",
)


def check(args: argparse.Namespace) -> None:
    """Raises UserError for options that cannot be combined."""
    for word in OF_DATA if args.calibrate else ():
        if getattr(args, word) is not None:
            option = word.replace("_", "-")
            raise UserError(
                f"--calibrate reads the validation split of one run; expected --workdir alone, without --{option}"
            )
    option = "--calibrate" if args.calibrate else "--unknown"
    if (args.calibrate or args.unknown is not None) and (args.ensemble or args.tta or len(_runs(args)) > 1):
        raise UserError(f"{option} is for one run and one view of an image; leave out --ensemble, --tta and other runs")
    if args.calibrate and args.workdir is None:
        raise UserError("--calibrate needs a run: --workdir DIR")
    for word in ("neighbours", "out"):
        if getattr(args, word) is not None and args.unknown is None:
            raise UserError(f"--{word} needs --unknown NAME")
    if args.unknown == "":
        raise UserError("--unknown is empty; expected unknown images, for example folder:photos")
    if args.unknown is not None and args.json is not None:
        raise UserError("--unknown writes its JSON into a directory: give --out DIR instead of --json")


def _runs(args: argparse.Namespace) -> list[str]:
    return getattr(args, "workdirs", [])


def calibrate(args: argparse.Namespace) -> int:
    """Fits and prints the temperature of a run."""
    compile_cache.use()
    from jaxvit import confidence
    from jaxvit.runtime import console
    from jaxvit.workdir import run_files

    found = confidence.calibrate(args.workdir, args.batch_size)
    heads = ("", "temperature", "NLL", "ECE", "images")
    rows = [("before", "1", f"{found['nll']:.4f}", f"{found['ece']:.2%}", f"{found['images']:,}")]
    after = (f"{found['temperature']:.4g}", f"{found['nll_calibrated']:.4f}", f"{found['ece_calibrated']:.2%}")
    rows.append(("after", *after, f"{found['images']:,}"))
    console.table("validation split", heads, rows, left=("",))
    console.say(f"wrote {expand(args.workdir) / run_files.CALIBRATION}; --temperature run applies it")
    return 0


def compare(loaded: Any, args: argparse.Namespace) -> int:
    """Prints and writes how well the scores of a classifier tell unknown images from known ones."""
    packages.require("matplotlib")
    from jaxvit.confidence import unknown_images
    from jaxvit.reports.confidence import SCORES
    from jaxvit.runtime import console
    from jaxvit.workdir import run_files

    out = args.out or (expand(args.workdir) / "unknown" if args.workdir is not None else Path("unknown"))
    found = unknown_images.compare(
        loaded,
        args.unknown,
        split_name=args.split,
        data_name=args.data,
        batch_size=args.batch_size,
        limit=args.limit,
        neighbours=args.neighbours,
        data_dir=args.data_dir,
        columns=args.columns,
    )
    report = found.report
    if args.workdir is not None:  # a run that went on has other weights
        summary = expand(args.workdir) / "summary.json"
        report["finished"] = run_files.read_json(summary).get("finished") if summary.exists() else None
    rows = [
        (SCORES[name], f"{score['auroc']:.2%}", f"{score['fpr_at_95_tpr']:.2%}", f"{score['threshold']:.4g}")
        for name, score in report["scores"].items()
    ]
    known, other = report["known"], report["unknown"]
    title = f"{loaded.name}: {known['images']:,} images of {known['data']} ({known['split']})"
    title += f" against {other['images']:,} of {other['data']} ({other['split']})"
    console.table(title, ("score", "AUROC", "FPR at 95 % TPR", "threshold"), rows, left=("score",))
    for path in unknown_images.write(found, out, _picture(report)):
        console.say(f"wrote {path}")
    return 0


def _picture(report: dict[str, Any]) -> bytes:
    from matplotlib.figure import Figure

    from jaxvit.reports import confidence as sections
    from jaxvit.reports import figures
    from jaxvit.runtime import drawing

    buffer = io.BytesIO()
    with drawing.style(**figures.STYLE):
        figure = Figure(figsize=sections.size_of(report), layout="constrained", dpi=200)
        sections.histograms(report)(figure)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
