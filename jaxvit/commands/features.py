"""The command `features`: embeddings of images as a file, what they are good for, the nearest images to a photo."""

import argparse
from pathlib import Path
from typing import Any

from jaxvit.commands import classifier
from jaxvit.commands.parser import add_weights, file_to_write, make_parser, positive
from jaxvit.errors import UserError
from jaxvit.runtime import files, interrupt

DESCRIPTION = """Pooled features (what the classifier reads) of a data set's images, as a .npz file.

  %(prog)s --workdir runs/photos --out features.npz
  %(prog)s --model NAME --data folder:photos --out features.npz --knn 5 --probe --similar cat.jpg

The same command resumes after a stop; a complete file is read instead of computed again."""
COLUMNS = ("method", "accuracy", "95 % interval", "training images", "test images", "features")


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = make_parser("features", DESCRIPTION)
    parser.add_argument(
        "--workdir", action="append", metavar="DIR", help="a run: its best checkpoint and preprocessing"
    )
    parser.add_argument("--model", metavar="NAME", help="or a timm name, or hf_hub:user/name; no classifier needed")
    parser.add_argument("--checkpoint", metavar="FILE", help="its weights (.safetensors, .npz); default: the hub")
    add_weights(parser)
    parser.set_defaults(temperature=None)
    parser.add_argument("--data", metavar="NAME", help="digits, folder:PATH, csv:FILE, ...; default: the run's")
    parser.add_argument("--columns", metavar="WORDS", help="columns of csv:FILE: file=path,label=species")
    parser.add_argument("--data-dir", metavar="DIR", help="where TFDS keeps its data sets")
    parser.add_argument("--unlabelled", action="store_true", help="all images below folder:PATH, without classes")
    parser.add_argument("--split", choices=("train", "val", "test", "all"), default="all", help="default: all images")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images per step; default 64")
    parser.add_argument("--out", type=file_to_write, metavar="FILE", help="the .npz file to write")
    parser.add_argument("--force", action="store_true", help="replace a file that holds other features")
    parser.add_argument("--knn", type=positive, metavar="K", help="test accuracy of the K nearest training images")
    parser.add_argument("--probe", action="store_true", help="test accuracy of a logistic regression on the features")
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write the accuracies there too")
    parser.add_argument(
        "--similar",
        nargs="+",
        action="extend",
        default=[],
        metavar="PHOTO",
        help="the images nearest to it, as a PNG too",
    )
    parser.add_argument("--top", type=positive, metavar="K", help="how many of them; default 8")
    args = parser.parse_args(argv)
    _check(args)
    from jaxvit import data

    photos = [(path, data.open_image(path)) for path in args.similar]  # what cannot be read is said before the work
    loaded = classifier.load(args, features=True)
    from jaxvit.inference import feature_file, features

    images = features.open_images(
        loaded, args.data, data_dir=args.data_dir, columns=args.columns, unlabelled=args.unlabelled
    )
    images.named(args.split)
    if args.knn or args.probe:
        _check_labels(images, args.knn or 1)
    key = features.make_key(loaded, images)
    whole = args.out.exists() and not args.force
    if whole and feature_file.about(args.out) != {"key": key, "split": args.split}:
        raise UserError(f"{str(args.out)!r} does not hold these features; choose another --out, or pass --force")
    with (
        interrupt.owned(f"stopped; the same command resumes with {args.out}"),
        feature_file.store(args.out, key) as store,
    ):
        if not whole:
            features.write(args.out, loaded, images, store, key, args.split, args.batch_size)
        found = feature_file.read(args.out)
        _say(args.out, found, whole)
        if args.split == "all":  # else the training images may be computed beside it
            store.remove()
        if args.knn or args.probe:
            _scores(args, loaded, images, store, found)
        store.remove()
    if photos:
        _similar(args, loaded, images, found, photos)
    return 0


def _check(args: argparse.Namespace) -> None:
    if len(args.workdir or ()) > 1:
        raise UserError("--workdir is given twice; features come from one run")
    args.workdir = args.workdir[0] if args.workdir else None
    if args.out is None or args.out.suffix != ".npz":
        raise UserError("expected --out FILE.npz, the file to write, for example --out features.npz")
    if args.model is not None and args.data is None:
        raise UserError("--model needs --data, for example --data folder:photos")
    of_classes = args.knn or args.probe or args.split != "all" or args.columns is not None or args.data_dir is not None
    if args.unlabelled and of_classes:
        raise UserError(
            "--unlabelled excludes --knn, --probe, --split, --columns and --data-dir: it reads a folder's images"
        )
    if args.top is not None and not args.similar:
        raise UserError("--top is how many images --similar shows; expected --similar PHOTO")
    if args.json is not None and not (args.knn or args.probe):
        raise UserError("--json takes the accuracies of --knn and --probe; expected one of these")


def _check_labels(images: Any, k: int) -> None:
    """Raises UserError before the work where kNN or a probe cannot be."""
    train, _ = (images.splits[images.named(split)[0]] for split in ("train", "test"))
    if train.labels.ndim == 2:
        raise UserError(f"{images.name} has several labels per image; --knn and --probe need one")
    if k > len(train):
        raise UserError(f"--knn {k} asks for more neighbours than there are training images, {len(train):,}")


def _say(out: Path, found: dict[str, Any], whole: bool) -> None:
    from jaxvit.runtime import console

    splits, (n, d) = found["splits"].tolist(), found["features"].shape
    counts = ", ".join(f"{splits.count(name):,} {name}" for name in dict.fromkeys(splits))
    console.say(f"{out}: {n:,} images ({counts}) with {d} features" + (", computed before" if whole else ""))


def _scores(args: argparse.Namespace, loaded: Any, images: Any, store: Any, found: dict[str, Any]) -> None:
    """Prints the test accuracy of --knn and --probe."""
    import numpy as np

    from jaxvit.inference import features, neighbours
    from jaxvit.reports.numbers import wilson
    from jaxvit.runtime import console
    from jaxvit.workdir import run_files

    def rows(split: str) -> tuple[Any, Any]:
        here = found["splits"] == split
        if here.any():
            return found["features"][here], found["labels"][here]
        table = features.extract(loaded, images.open(split), store, args.batch_size)
        return np.asarray(table.features[table.usable]), images.splits[split].labels[table.usable]

    (train, labels), (test, truth) = rows("train"), rows("test")
    said = []
    if args.knn:
        said.append(("knn", f"{args.knn} nearest", neighbours.knn(train, labels, test, args.knn)))
    if args.probe:
        said.append(("probe", "linear probe", neighbours.probe(train, labels, test)))
    table, record = [], {}
    for word, method, labels_said in said:
        hits, n = int((labels_said == truth).sum()), len(truth)
        low, high = wilson(hits, n)
        sizes = (f"{len(train):,}", f"{n:,}", str(train.shape[1]))
        table.append((method, f"{hits / n:.2%}", f"{low:.2%} to {high:.2%}", *sizes))
        record[word] = {"accuracy": hits / n, "low": low, "high": high, "test_images": n, "train_images": len(train)}
    console.table(f"{loaded.name}, features of {images.name}", COLUMNS, table, left=("method",))
    if args.json:
        run_files.write_json(args.json, {"model": loaded.name, "data": images.name, "neighbours": args.knn, **record})


def _similar(
    args: argparse.Namespace, loaded: Any, images: Any, found: dict[str, Any], photos: list[tuple[str, Any]]
) -> None:
    """Prints the images nearest to photos, and draws them."""
    import numpy as np

    from jaxvit import data, explain
    from jaxvit.inference import neighbours
    from jaxvit.runtime import console

    queries = np.stack([data.preprocess(image, loaded.data_config) for _, image in photos])
    features = np.asarray(explain.features(loaded.model, loaded.variables, queries))
    nearest, similarity = neighbours.nearest(found["features"], features, args.top or 8)
    names, places = found["class_names"], {}
    for name, split in images.splits.items():
        places |= {(name, int(index)): (split, i) for i, index in enumerate(split.index)}

    def of_class(row: int) -> str:
        label = found["labels"][row]
        if np.ndim(label):
            return ", ".join(names[np.flatnonzero(label)])
        return str(names[label]) if label >= 0 else ""

    lines, sheet = [], []
    for (path, image), rows, values in zip(photos, nearest, similarity, strict=True):
        drawn: list[Any] = [(image, [Path(path).name])]
        for rank, (row, value) in enumerate(zip(rows, values, strict=True), 1):
            name, split = str(found["names"][row]), str(found["splits"][row])
            lines.append((path if rank == 1 else "", rank, f"{value:.4f}", name, of_class(row), split))
            stored, i = places[split, int(found["index"][row])]
            picture = stored.images[i] if stored.images is not None else stored.read(i)
            drawn.append((picture, [of_class(row), Path(name).name, f"{value:.3f} {split}"]))
        sheet.append(drawn)
    heads = ("photo", "rank", "cosine", "image", "class", "split")
    console.table(f"{loaded.name}, nearest of {images.name}", heads, lines, left=("photo", "image", "class", "split"))
    target = args.out.with_name(f"{args.out.stem}_similar.png")
    files.write(target, neighbours.picture(sheet))
    console.say(str(target))
