"""The command `explain`: overlays of what models look at, on image files or on samples of a run's test split."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvit.commands.parser import add_weights, directory_to_write, make_parser, positive
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import compile_cache, escape, packages
from jaxvit.runtime.paths import expand

ROLLOUT = "attention_rollout"
ROWS_A_PAGE = 12
PAIRS_A_ROW = 3  # of image and map, where there is one model
BATCH_SIZE = 16
CHOICES = ("all", "right", "wrong", "most_confused")


class Picture(NamedTuple):
    """One image to explain: its name, the image as read, and its true class where that is known."""

    name: str  # of its file, or its place in a data set
    image: Any
    true: str | None = None
    stem: str = ""  # of its figure's file
    classes: tuple[str, ...] = ()  # the true ones


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
    _write(out, pictures, classifiers, columns, args)
    return inference.say_skipped(bad, len(paths))


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = make_parser("explain", "Overlays that show what models look at: one figure per image, and grids of all.")
    parser.add_argument("--workdir", metavar="DIR", action="append", default=[], help="a run; may be given repeatedly")
    parser.add_argument("--model", metavar="NAME", help="or a timm name, with or without tag")
    parser.add_argument("--checkpoint", metavar="FILE", help="its weights (.safetensors, .npz); default: the hub")
    add_weights(parser)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files or folders")
    parser.add_argument("--samples", type=positive, metavar="N", help="N images of the first run's test split")
    parser.add_argument(
        "--only", choices=CHOICES, default="all", help="which test images, by the first run's predictions"
    )
    parser.add_argument("--method", default="gradcam", metavar="NAME", help=f"a method of grad_cam, or {ROLLOUT}")
    parser.add_argument("--layer", metavar="NAME", help="a layer of --layers; default: the family's")
    parser.add_argument("--layers", action="store_true", help="list the layers and exit")
    parser.add_argument("--class", dest="class_name", metavar="CLASS", help="name or index; default: the predicted one")
    parser.add_argument("--alpha", type=float, default=0.75, help="share of the heat over the photo, 0 to 1")
    parser.add_argument("--cmap", default="inferno", help="inferno, viridis, cividis, magma or plasma")
    parser.add_argument(
        "--out", type=directory_to_write, metavar="DIR", help="where to write; default: explain/ in the first run"
    )
    parser.add_argument("--force", action="store_true", help="replace existing figures")
    return parser.parse_args(argv)


def _check_words(args: argparse.Namespace) -> None:
    """Says what is wrong before anything is loaded."""
    from jaxvit import explain
    from jaxvit.explain import overlay

    methods = (*explain.METHODS, ROLLOUT)
    if args.method not in methods:
        raise UserError(f"no method {args.method!r}; expected {', '.join(methods)}.{suggest(args.method, methods)}")
    if args.method == ROLLOUT and (args.layer or args.class_name):
        raise UserError(f"{ROLLOUT} has no layer and no class; leave out --layer and --class")
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
    return found + ([inference.from_name(args.model, args.checkpoint, args.weights)] if args.model is not None else [])


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
    from jaxvit.build import parts
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
    logits, labels, index = run_files.read_npz(path, ("logits", "labels", "index")).values()
    if labels.ndim == 2 and args.only == "most_confused":
        raise UserError("--only most_confused is for one label per image; expected all, right or wrong")
    split = parts.load_data(classifiers[0].config, class_names=names).test
    position = {int(k): i for i, k in enumerate(split.index)}
    right = None if labels.ndim == 1 else multi_label.are_right(logits, labels, classifiers[0].thresholds)
    chosen = choose(logits, labels, args.only, args.samples, right)
    if not len(chosen):
        raise UserError(f"no test image is {args.only}; expected another --only")
    several = labels.ndim == 2
    places = [position[int(index[i])] for i in chosen]
    found = split.image_names(places)
    return [
        _picture(str(name), split.read(place), [names[k] for k in np.flatnonzero(label)] if several else [names[label]])
        for name, place, label in zip(found, places, labels[chosen], strict=True)
    ]


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


class Result(NamedTuple):
    """The result of a model for a picture."""

    image: Any  # to show
    map: Any
    text: str  # name and probability of the class explained
    wrong: bool = False  # the class is the model's answer, and the picture is of another


def _explain(classifier: Any, pictures: list[Picture], args: argparse.Namespace) -> list[Result]:
    """A result for each picture."""
    import jax

    from jaxvit import data, explain, inference
    from jaxvit.explain import overlay
    from jaxvit.runtime.console import bar

    model, variables, config = classifier.model, classifier.variables, classifier.data_config
    wanted = None if args.class_name is None else _class_index(classifier, args.class_name)
    apply = jax.jit(lambda variables, images: classifier.to_probabilities(model.apply(variables, images)))
    size, results = min(BATCH_SIZE, len(pictures)), []
    with bar(f"explaining {classifier.name}", len(pictures)) as meter:
        for i in range(0, len(pictures), size):
            chunk = pictures[i : i + size]
            images = np.stack([data.preprocess(picture.image, config) for picture in chunk]).astype(np.float32)
            images = inference.filled(images, size)
            probabilities = np.asarray(apply(variables, images))
            index = probabilities.argmax(-1) if wanted is None else np.full(size, wanted)
            if args.method == ROLLOUT:
                maps = explain.attention_rollout(model, variables, images)
            else:
                maps = explain.grad_cam(model, variables, images, index, args.method, args.layer)
            shown, maps = overlay.enlarge(overlay.to_display(images, config["mean"], config["std"]), maps)
            for j in range(len(chunk)):
                name, true = classifier.class_names[index[j]], chunk[j].true
                text = f"{escape.plain(name)}\n{probabilities[j, index[j]]:.1%}"
                results.append(
                    Result(
                        shown[j],
                        maps[j],
                        text,
                        wanted is None and true is not None and name not in (true, *chunk[j].classes),
                    )
                )
            meter.advance(len(chunk))
    return results


def _class_index(classifier: Any, text: str) -> int:
    names = [name.casefold() for name in classifier.class_names]
    if text.casefold() in names:
        return names.index(text.casefold())
    if re.fullmatch(r"-?\d+", text):
        if not 0 <= int(text) < len(names):
            raise UserError(f"--class {text} is out of range; {classifier.name} has the classes 0 to {len(names) - 1}")
        return int(text)
    raise UserError(f"{classifier.name} has no class {text!r}.{suggest(text.casefold(), names)}")


def _write(out: Path, pictures: list[Picture], classifiers: list[Any], columns: list[Any], args: Any) -> None:
    """A figure per image; pages of overlays (grid) and of pure heat (heat)."""
    from jaxvit.explain import overlay
    from jaxvit.runtime import console

    heads = ["image", *_column_names(args, classifiers)]
    overlays, heats, titles, wrong = [], [], [], []
    for i, picture in enumerate(pictures):
        results = [column[i] for column in columns]
        image = np.round(255 * results[0].image).astype(np.uint8)
        overlays.append([image, *(overlay.overlay(r.image, r.map, args.alpha, args.cmap) for r in results)])
        heats.append([image, *(np.round(255 * overlay.colour(r.map, args.cmap)).astype(np.uint8) for r in results)])
        known = [os.path.basename(picture.name), *([f"true: {picture.true}"] if picture.true else [])]
        titles.append(["\n".join(map(escape.plain, known)), *(r.text for r in results)])
        wrong.append([False, *(r.wrong for r in results)])
    files = []
    for i, stem in enumerate(_stems(pictures)):
        files += overlay.save(
            overlay.grid([overlays[i]], [titles[i]], heads, cmap=args.cmap, wrong=[wrong[i]]), out / stem
        )
    abreast = min(PAIRS_A_ROW, len(pictures)) if len(classifiers) == 1 else 1  # images with the one map of each
    overlays, heats, titles, wrong = (_in_rows(cells, abreast) for cells in (overlays, heats, titles, wrong))
    for start in range(0, len(titles), ROWS_A_PAGE):
        page, rows = f"_{start // ROWS_A_PAGE + 1}" if start else "", slice(start, start + ROWS_A_PAGE)
        for name, cells in (("grid", overlays), ("heat", heats)):
            figure = overlay.grid(cells[rows], titles[rows], heads * abreast, cmap=args.cmap, wrong=wrong[rows])
            files += overlay.save(figure, out / f"{name}{page}")
    rows = [
        (
            picture.name,
            picture.true or "",
            *(overlay.WRONG_MARK * column[i].wrong + column[i].text.replace("\n", " ") for column in columns),
        )
        for i, picture in enumerate(pictures)
    ]
    columns_ = ("image", "true class", *(head.replace("\n", ".") for head in heads[1:]))
    console.table(f"{args.method}: {len(files)} files in {out}", columns_, rows, left=columns_)


def _in_rows(cells: list[list[Any]], number: int) -> list[list[Any]]:
    """The cells of this many images per row."""
    return [sum(cells[i : i + number], []) for i in range(0, len(cells), number)]


def _column_names(args: argparse.Namespace, classifiers: list[Any]) -> list[str]:
    """Model names, with the tag on a separate line; runs of one model by their directories."""
    names = [escape.plain(classifier.name).replace(".", "\n") for classifier in classifiers]
    runs = [escape.plain(os.path.basename(os.path.abspath(w))) for w in args.workdir]
    return names if len(set(names)) == len(names) else [*runs, *names[len(runs) :]]


def _stems(pictures: list[Picture]) -> list[str]:
    """File names of the figures: unlike each other and unlike the grids."""
    taken, stems = {"grid", "heat"}, []
    for picture in pictures:
        base = stem = re.sub(r"[^\w.-]+", "_", picture.stem or picture.name).lstrip(".")[:60]
        number = 2
        while stem.casefold() in taken or re.fullmatch(r"(grid|heat)_\d+", stem):
            stem, number = f"{base}-{number}", number + 1
        taken.add(stem.casefold())  # macOS and Windows take "A" and "a" for one
        stems.append(stem)
    return stems
