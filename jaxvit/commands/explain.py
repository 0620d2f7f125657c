"""The command `explain`: pictures of what models look at, on image files or on samples of a run's test split."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.commands import figures
from jaxvit.commands import maps as methods
from jaxvit.commands.figures import Picture, Result
from jaxvit.commands.parser import add_weights, directory_to_write, make_parser, positive
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import compile_cache, escape, packages
from jaxvit.runtime.console import warn
from jaxvit.runtime.paths import expand

BATCH_SIZE = 16
CHOICES = ("all", "right", "wrong", "most_confused")


def run(argv: Sequence[str]) -> int:
    """Runs the command; returns 0, or 1 where too many files cannot be read. Raises UserError on mistakes."""
    args = _arguments(list(argv))
    _check_words(args)
    if not args.layers and not args.images and not args.samples:
        raise UserError("no images; name files or folders, or ask for test images of a run with --samples 16")
    if args.only != "all" and not args.samples:
        raise UserError("--only selects from the test images; add --samples, for example --samples 16")
    out = expand(args.out) if args.out else expand(args.workdir[0]) / "explain" if args.workdir else Path("explain")
    if not args.layers:
        packages.require("matplotlib")
        if (out / "grid.png").exists() and not args.force:  # said before the work
            raise UserError(
                f"{str(out)!r} already holds 'grid.png'; choose another --out, or pass --force to replace it"
            )
    from jaxvit import inference

    paths = inference.find_images(args.images) if args.images else []
    classifiers = _classifiers(args)
    if args.layers:
        return _print_layers(classifiers)
    bad: list[tuple[str, str]] = []
    pictures = _from_files(paths, bad) + (_from_run(args, classifiers) if args.samples else [])
    columns = [_explain(classifier, pictures, args) for classifier in classifiers]
    figures.write(out, pictures, _names(args, classifiers), columns, args)
    return inference.say_skipped(bad, len(paths))


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = make_parser("explain", "Overlays that show what models look at: one figure per image, and grids of all.")
    parser.add_argument("--workdir", metavar="DIR", action="append", default=[], help="a run; may be given repeatedly")
    parser.add_argument("--model", metavar="NAME", help="or a timm name, or hf_hub:user/name@revision")
    parser.add_argument("--checkpoint", metavar="FILE", help="its weights (.safetensors, .npz); default: the hub")
    add_weights(parser)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files or folders")
    parser.add_argument("--samples", type=positive, metavar="N", help="N images of the first run's test split")
    parser.add_argument(
        "--only", choices=CHOICES, default="all", help="which test images, by the first run's predictions"
    )
    parser.add_argument("--method", default="gradcam", metavar="NAME", help="; ".join(methods.METHODS))
    parser.add_argument("--layer", metavar="NAME", help="a layer of --layers; default: the family's")
    parser.add_argument("--layers", action="store_true", help="list the layers and exit")
    parser.add_argument("--class", dest="class_name", metavar="CLASS", help="name or index; default: the predicted one")
    parser.add_argument(
        "--block", type=int, metavar="N", help=f"of {methods.HEADS}: 0 the first, -1 the last (default)"
    )
    parser.add_argument("--passes", type=positive, metavar="N", help="steps or samples for each image; more is finer")
    parser.add_argument("--fit", choices=("image", "all"), default="image", help="what components of pca are fitted on")
    parser.add_argument("--scores", action="store_true", help="deletion and insertion next to each map (60 passes)")
    parser.add_argument("--seed", type=int, default=0, help="seed of smoothgrad, lime and the random order of --scores")
    parser.add_argument("--alpha", type=float, default=0.75, help="opacity of the heat map over the photo, 0 to 1")
    parser.add_argument("--cmap", default="inferno", help="inferno, viridis, cividis, magma or plasma")
    parser.add_argument(
        "--out", type=directory_to_write, metavar="DIR", help="where to write; default: explain/ in the first run"
    )
    parser.add_argument("--force", action="store_true", help="replace existing figures")
    return parser.parse_args(argv)


def _check_words(args: argparse.Namespace) -> None:
    """Says what is wrong before anything is loaded."""
    from jaxvit.explain import overlay

    methods.check(args)
    if args.seed < 0:
        raise UserError(f"--seed is {args.seed}; expected 0 or more")
    if not 0 <= args.alpha <= 1:
        raise UserError(f"--alpha is {args.alpha}; expected 0 to 1")
    overlay.colour(np.zeros((1, 1)), args.cmap)


def _classifiers(args: argparse.Namespace) -> list[Any]:
    if not args.workdir and args.model is None:
        raise UserError("give --workdir DIR (a run) or --model NAME (with --checkpoint FILE)")
    if (args.checkpoint is not None or args.weights is not None) and args.model is None:
        raise UserError("--checkpoint and --weights need --model; a run has its own weights")
    compile_cache.use()
    from jaxvit import inference

    found = [inference.from_run(workdir) for workdir in args.workdir]
    if args.model is not None:
        found.append(inference.from_name(args.model, args.checkpoint, args.weights, features=True))
    for classifier in found:
        methods.check_classes(classifier, args)
    return found


def _print_layers(classifiers: list[Any]) -> int:
    from jaxvit import explain
    from jaxvit.runtime import console

    for classifier in classifiers:
        default = explain.default_layer(classifier.model)
        for name in explain.layers(classifier.model):
            console.say(f"{name}  (default of {classifier.name})" if name == default else name)
    return 0


def _from_files(paths: Sequence[Path], bad: list[tuple[str, str]]) -> list[Picture]:
    """The images that can be read; the others go to `bad`, and if no image can be read this is a UserError."""
    from jaxvit import inference

    read = inference.read_images(paths, bad)
    return [Picture(str(path), image, stem=path.stem) for path, image in read]


def _from_run(args: argparse.Namespace, classifiers: list[Any]) -> list[Picture]:
    """Test images of the first run, chosen by its predictions; UserError where runs are of different classes."""
    from jaxvit import inference
    from jaxvit.step import multi_label
    from jaxvit.workdir import run_files

    if not args.workdir:
        raise UserError("--samples needs a run: --workdir DIR")
    names = classifiers[0].class_names
    for classifier in classifiers[1:]:
        if classifier.class_names != names:
            raise UserError(
                f"{classifier.name} and {classifiers[0].name} have different classes; explain them separately"
            )
    path = expand(args.workdir[0]) / "predictions.npz"
    if not path.exists():
        raise UserError(f"no {str(path)!r}: the run has not finished; wait for it, or name image files instead")
    known = run_files.read_npz(path, ("logits", "labels", "index"), ("names",))
    logits, labels = known["logits"], known["labels"]
    if labels.ndim == 2 and args.only == "most_confused":
        raise UserError("--only most_confused is for one label per image; expected all, right or wrong")
    there, places = _found(inference.own_data(classifiers[0].config, names), known)
    logits, labels = logits[there], labels[there]
    right = None if labels.ndim == 1 else multi_label.are_right(logits, labels, classifiers[0].thresholds)
    chosen = choose(logits, labels, args.only, args.samples, right)
    if not len(chosen):
        raise UserError(f"no test image is {args.only}; expected another --only")
    several, names = labels.ndim == 2, classifiers[0].shown_names
    shown = []
    for i in chosen:
        (split, place), label = places[int(there[i])], labels[i]
        classes = [names[k] for k in np.flatnonzero(label)] if several else [names[label]]
        shown.append(_picture(str(split.image_names([place])[0]), split.read(place), classes))
    return shown


def _found(dataset: Any, known: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[int, Any]]:
    """The predictions whose images are still there, int [k], and of each the split and the place in it.

    They are found by name: a photo that came or went changes the places of others. Raises UserError where none is.
    """
    named, places = "names" in known, {}  # runs of before have their places in the test split alone
    wanted = {key: i for i, key in enumerate(known["names" if named else "index"].tolist())}
    for split in (dataset.test, dataset.val, dataset.train) if named else (dataset.test,):
        if len(places) == len(wanted):  # what was held out may be drawn into another split
            break
        keys = (split.image_names() if named else split.index).tolist()
        places = {wanted[key]: (split, i) for i, key in enumerate(keys) if key in wanted} | places
    lost = len(wanted) - len(places)
    if not places:
        raise UserError(
            f"{dataset.name} has none of the images that the run was tested on\nname image files instead of --samples"
        )
    if lost:
        warn(f"{dataset.name} no longer has {lost:,} of the {len(wanted):,} images that the run was tested on")
    return np.sort(np.fromiter(places, int)), places


def _stem(name: str) -> str:
    """Of a figure: "bee/003.jpg" -> "bee_003", "test.npz[30]" -> "test.npz_30"."""
    return name.rstrip("]").replace("[", "_") if name.endswith("]") else os.path.splitext(name)[0].replace("/", "_")


def _picture(name: str, image: Any, classes: list[str]) -> Picture:
    return Picture(name, image, ", ".join(classes) or "none", _stem(name), tuple(classes))


def choose(
    logits: np.ndarray, labels: np.ndarray, only: str, count: int, right: np.ndarray | None = None
) -> np.ndarray:
    """Positions of at most `count` examples: evenly spread, or from the pair of classes most often confused.

    `right`, bool [n]: which are, where images have several labels.
    """
    predicted = logits.argmax(-1)
    if only == "most_confused":
        pairs = labels.astype(np.int64) * logits.shape[1] + predicted
        wrong = np.flatnonzero(predicted != labels)
        times = np.bincount(pairs[wrong], minlength=logits.shape[1] ** 2)
        return wrong[np.lexsort((wrong, pairs[wrong], -times[pairs[wrong]]))][:count]
    is_right = np.asarray(predicted == labels if right is None else right)
    keep = {"all": predicted == predicted, "right": is_right, "wrong": ~is_right}[only]
    found = np.flatnonzero(keep)
    return found[np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)] if len(found) else found


def _explain(classifier: Any, pictures: list[Picture], args: argparse.Namespace) -> list[Result]:
    """A result for each picture."""
    import jax

    from jaxvit import data, inference
    from jaxvit.explain import overlay
    from jaxvit.models.layers import to_pair
    from jaxvit.runtime.console import bar

    model, variables, config = classifier.model, classifier.variables, classifier.data_config
    names = classifier.shown_names
    wanted = None if args.class_name is None else _class_index(classifier, args.class_name)
    method = methods.METHODS[args.method]
    apply = jax.jit(lambda variables, images: classifier.to_probabilities(model.apply(variables, images)))
    size, results, found = min(BATCH_SIZE, len(pictures)), [], []
    passes = method.passes(args, to_pair(config["image_size"]))
    total, unit = (len(pictures) * passes, "passes") if passes else (len(pictures), "images")
    with bar(f"explaining {classifier.name}", total, unit) as meter:
        for i in range(0, len(pictures), size):
            chunk = pictures[i : i + size]
            images = np.stack([data.preprocess(picture.image, config) for picture in chunk]).astype(np.float32)
            images = inference.filled(images, size)
            probabilities = np.asarray(apply(variables, images)) if model.num_classes else np.ones((size, 1))
            index = probabilities.argmax(-1) if wanted is None else np.full(size, wanted)
            given = len(chunk) if method.alone else size
            share = len(chunk) / given  # of the passes, those of images that were asked for
            made = method.make(
                classifier, images[:given], index[:given], args, lambda n, share=share: meter.advance(round(n * share))
            )
            shown = overlay.to_display(images, config["mean"], config["std"])
            notes = [made.notes] if made.notes else []
            if args.scores:
                maps = inference.filled(made.maps, size)
                notes.append(methods.score_notes(classifier, images, maps, index, args.seed))
            found.append(made.maps[: len(chunk)])
            for j in range(len(chunk)):
                lines, wrong, true = [note[j] for note in notes], False, chunk[j].true
                if model.num_classes:
                    name = names[index[j]]
                    lines = [escape.plain(name), f"{probabilities[j, index[j]]:.1%}", *lines]
                    wrong = wanted is None and true is not None and name not in (true, *chunk[j].classes)
                results.append(Result(shown[j], None, "\n".join(lines), wrong))
            if not passes:
                meter.advance(len(chunk))
    maps, shown = np.concatenate(found), np.stack([result.image for result in results])
    if args.method == methods.PCA:
        maps, shares = methods.component_planes(model, maps, shown.shape[1:3], together=args.fit == "all")
        results = [r._replace(text=f"{r.text}\n{share}".strip()) for r, share in zip(results, shares, strict=True)]
    shown, maps = overlay.enlarge(shown, maps)
    return [r._replace(image=image, map=m) for r, image, m in zip(results, shown, maps, strict=True)]


def _class_index(classifier: Any, text: str) -> int:
    names = [name.casefold() for name in classifier.shown_names]
    for known in (names, [name.casefold() for name in classifier.class_names]):
        if text.casefold() in known:
            return known.index(text.casefold())
    if re.fullmatch(r"-?\d+", text):
        if not 0 <= int(text) < len(names):
            raise UserError(f"--class {text} is out of range; {classifier.name} has the classes 0 to {len(names) - 1}")
        return int(text)
    near = suggest(text.casefold(), names) or f" Expected a name such as {names[0]!r}, or 0 to {len(names) - 1}."
    raise UserError(f"{classifier.name} has no class {text!r}.{near}")


def _names(args: argparse.Namespace, classifiers: list[Any]) -> list[str]:
    """Model names, with the tag on a separate line; runs of one model by their directories."""
    names = [escape.plain(classifier.name).replace(".", "\n") for classifier in classifiers]
    runs = [escape.plain(os.path.basename(os.path.abspath(w))) for w in args.workdir]
    return names if len(set(names)) == len(names) else [*runs, *names[len(runs) :]]
