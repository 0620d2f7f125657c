"""What `export --format onnx` does: the graph, real images to check it on, and its int8 form."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvit.errors import RunError, UserError

if TYPE_CHECKING:
    from jaxvit.commands.source import Source
    from jaxvit.export.samples import Samples

WHOLE, INT8 = "model.onnx", "model.int8.onnx"
BATCHES = (1, 3)  # and one of all that is left: three sizes show that the batch is free
COMPARED = 64  # images
CALIBRATED = 256  # images
TESTED = 2000  # images at most
AGREED = 0.9  # of the classes that the run itself recorded, perhaps in 16 bits or by another path of resizing
# What a new process does with the file; it needs only onnxruntime and numpy.
RELOAD = """
import pathlib, sys, numpy as np, onnxruntime
directory, given, made = sys.argv[1:]
session = onnxruntime.InferenceSession(str(pathlib.Path(directory) / "model.onnx"), providers=["CPUExecutionProvider"])
run = lambda images: session.run(None, {"images": images})[0]
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this format."""
    group = parser.add_argument_group("--format onnx")
    group.add_argument("--quantize", choices=("int8",), help=f"write {INT8} too, and measure what accuracy it loses")
    group.add_argument("--opset", type=int, metavar="N", help="of ONNX: 18 to 23; default 20")
    group.add_argument(
        "--data", metavar="NAME", help="images to compare and measure on, as folder:photos; default: the run's own"
    )


def check_options(args: argparse.Namespace) -> None:
    """Raises UserError for options that do not go together, an opset that cannot be had, packages that are missing."""
    from jaxvit.runtime import packages

    if args.format != "onnx":
        for word in ("quantize", "opset", "data"):
            if getattr(args, word) is not None:
                raise UserError(f"--{word} goes with --format onnx")
        return
    packages.require("jax2onnx", "onnxruntime", *(("onnx",) if args.quantize else ()))
    from jaxvit.export.onnx_graph import OPSETS

    if args.opset is not None and args.opset not in OPSETS:
        raise UserError(f"--opset {args.opset}: expected {OPSETS[0]} to {OPSETS[-1]}")
    if args.quantize and args.workdir is None and args.data is None:
        raise UserError("--quantize needs images: --data NAME, for example --data folder:photos")


def write(given: "Source", words: dict[str, Any], directory: Path, opset: int | None) -> None:
    """Writes the graph; `words`, what `preprocessing.json` says, and the names of the classes travel in it."""
    from jaxvit import __version__
    from jaxvit.export import onnx_graph

    metadata = {"preprocessing": json.dumps(words), "jaxvit_version": __version__}
    if given.class_names is not None:
        metadata["classes"] = json.dumps(given.class_names)
    mean, std = given.data_config["mean"], given.data_config["std"]
    content = onnx_graph.to_onnx(
        given.model, given.variables, mean, std, opset=opset or onnx_graph.OPSET, metadata=metadata
    )
    (directory / WHOLE).write_bytes(content)


def samples(given: "Source", args: argparse.Namespace) -> "Samples":
    """Real images: of `--data`, else of the run's test split, else of a photo or two that are always there."""
    from jaxvit.export import samples as real
    from jaxvit.runtime.console import warn

    if args.data is not None:
        return real.of_split(_classifier(given), None, args.data, COMPARED, labelled=False)
    if args.workdir is None:
        return real.of_photos(given.model, given.data_config)
    try:
        return real.of_split(_classifier(given), "test", None, COMPARED, labelled=False)
    except UserError as error:
        found = real.of_run_files(_classifier(given), args.workdir)
        warn(f"the run's data cannot be read ({str(error).splitlines()[0]}): compared on {found.what}")
        return found


def batches(given: "Source", found: "Samples") -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By batch size: the pixels that the graph reads, and what the model reads in their place."""
    from jaxvit.export.onnx_graph import normalised
    from jaxvit.export.samples import parts

    mean, std = given.data_config["mean"], given.data_config["std"]
    return {len(batch): (batch, normalised(batch, mean, std)) for batch in parts(found.images, BATCHES)}


def check_classes(args: argparse.Namespace, found: "Samples", outputs: np.ndarray) -> list[tuple[str, str]]:
    """A line on how many classes are those that the run itself recorded.

    Raises:
      RunError: they are too few.
    """
    from jaxvit.export.samples import recorded_classes

    if args.workdir is None or args.data is not None or found.names is None:
        return []
    recorded = recorded_classes(args.workdir, found.names)
    known = recorded >= 0
    if not known.any():
        return []
    agree, of = int((outputs.argmax(-1) == recorded)[known].sum()), int(known.sum())
    if agree < AGREED * of:
        raise RunError(
            f"the file predicts the class recorded in predictions.npz for only {agree} of {of} test images; "
            "nothing was written"
        )
    return [("agrees", f"with the run's own predictions.npz on {agree} of {of} test images")]


def quantize(given: "Source", args: argparse.Namespace, directory: Path) -> list[tuple[str, str]]:
    """Writes the int8 form and, into both descriptions, what it costs; returns lines that say so."""
    from jaxvit.export import quantize as q
    from jaxvit.export import samples as real

    classifier, whole, int8 = _classifier(given), directory / WHOLE, directory / INT8
    try:
        seen = real.of_split(classifier, "val", args.data, CALIBRATED, labelled=False)
    except UserError:  # it has none
        seen = real.of_split(classifier, "train", args.data, CALIBRATED, labelled=False)
    form = q.quantize(whole, int8, seen.images)
    test = real.of_split(classifier, None, args.data, TESTED, labelled=True)
    before, after = q.outputs(whole, test.images), q.outputs(int8, test.images)
    changed = int((before.argmax(-1) != after.argmax(-1)).sum())
    words = {"form": form, "calibrated_on": seen.what, "tested_on": test.what, "changed_classes": changed}
    metric, scores = _scores(given, test.labels, before, after)
    ms = [q.latency(file, test.images[0]) for file in (whole, int8)]
    words |= {metric: scores[0], f"{metric}_int8": scores[1], "ms_one_image": ms[0], "ms_one_image_int8": ms[1]}
    description = directory / "preprocessing.json"
    told = json.loads(description.read_text(encoding="utf-8")) | {"int8": words}
    _describe(int8, told)
    size = [file.stat().st_size for file in (whole, int8)]
    words |= {"bytes": size[0], "bytes_int8": size[1]}
    description.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    same = "; the ranges come from the same images, because there are no others" if test.split == "all" else ""
    return [
        ("int8", f"{form}, ranges of {seen.what}"),
        (metric, f"{scores[0]:.2%} -> {scores[1]:.2%} over {test.what}, the class changed for {changed}{same}"),
        ("size", f"{size[0]:,} -> {size[1]:,} bytes, {size[0] / size[1]:.1f} times smaller"),
        ("one image", f"{ms[0]:.2f} -> {ms[1]:.2f} ms on this CPU, median"),
    ]


def _scores(given: "Source", labels: Any, *outputs: np.ndarray) -> tuple[str, list[float]]:
    from jaxvit.step import multi_label

    if given.thresholds is None:
        return "accuracy", [float((logits.argmax(-1) == labels).mean()) for logits in outputs]
    return "mAP", [float(multi_label.scores(logits, labels, given.thresholds)["mAP"]) for logits in outputs]


def _describe(file: Path, words: dict[str, Any]) -> None:
    """Puts the words of `preprocessing.json` into an ONNX file, which keeps what else it says."""
    import onnx

    model = onnx.load(file)
    said = {entry.key: entry.value for entry in model.metadata_props} | {"preprocessing": json.dumps(words)}
    onnx.helper.set_model_props(model, said)
    onnx.save(model, file)


def _classifier(given: "Source") -> Any:
    from jaxvit import inference

    names = given.class_names or [f"class {i}" for i in range(given.model.num_classes)]
    parts = (given.name, given.model, given.variables, names, given.data_config)
    return inference.Classifier(*parts, config=given.config, thresholds=given.thresholds)
