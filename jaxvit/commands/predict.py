"""The command `predict`: the most probable classes of image files."""

import os

from jaxvit.commands import classifier, together
from jaxvit.commands.parser import file_to_write, make_parser, positive, probability
from jaxvit.errors import UserError
from jaxvit.runtime import escape, files


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code: 1 where too many files cannot be read."""
    parser = make_parser("predict", "The most probable classes of image files, or of all images in folders.")
    classifier.add_options(parser)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files or folders")
    parser.add_argument(
        "--top",
        type=positive,
        metavar="K",
        help="classes per image; default 5, or for several labels per image those above their threshold",
    )
    together.add_views(parser)
    parser.add_argument(
        "--min-confidence",
        type=probability,
        metavar="P",
        help="abstain if the probability of the most probable class is below P",
    )
    parser.add_argument(
        "--csv", type=file_to_write, metavar="FILE", help="write the columns file, rank, label, name, probability"
    )
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write the same as JSON, one entry per file")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="images per step; default 32")
    args = parser.parse_args(argv)
    if not args.images:
        raise UserError("no images; name files or folders")
    from jaxvit import combine, confidence, inference
    from jaxvit.runtime import console
    from jaxvit.workdir import run_files

    paths = inference.find_images(args.images)
    members = together.load(args)
    loaded = combine.ensemble_of(members)
    least, unsure = args.min_confidence, 0
    if loaded.several and least is not None:
        raise UserError(
            "--min-confidence is for one label per image; this run has several, each with its own threshold"
        )
    names, rows, found = loaded.shown_names, [], []
    bad: list[tuple[str, str]] = []
    for path, probabilities in combine.predict(members, paths, args.batch_size, bad, args.tta):
        order = probabilities.argsort(kind="stable")[::-1][: args.top or 5]
        if loaded.several and args.top is None:
            order = loaded.said(probabilities)
        of = [{"rank": r, "label": int(k), "name": names[k], "probability": float(probabilities[k])}
              for r, k in enumerate(order, 1)]  # fmt: skip
        found.append({"file": str(path), "classes": of})
        more = ()
        if least is not None:
            abstains = bool(confidence.held_back(probabilities, least))
            found[-1]["abstained"], more, unsure = abstains, ("yes" if abstains else "no",), unsure + abstains
        rows += [(str(path), *row.values(), *more) for row in of] or [(str(path), 0, "", "none", "")]
    base = os.path.commonpath([path.absolute().parent for path in paths])  # short names on the screen, whole in the CSV
    short = {str(path): os.path.relpath(path.absolute(), base) for path in paths}
    shown = [
        (
            short[file] if rank < 2 else "",
            rank,
            label,
            name,
            f"{p:.2%}" if rank else "",
            *(word if rank < 2 else "" for word in more),
        )
        for file, rank, label, name, p, *more in rows
    ]
    columns = ("file", "rank", "label", "name", "probability", *(() if least is None else ("abstained",)))
    console.table(loaded.name, columns, shown, left=("file", "name"))
    if args.csv:
        files.write(args.csv, escape.csv_bytes(columns, rows))
    if args.json:
        run_files.write_json(args.json, found)
    if (passes := len(members) * (combine.FORMS[args.tta] if args.tta else 1)) > 1:
        console.say(f"{passes} forward passes per image")
    if least is not None:
        console.say(f"abstained on {unsure:,} of {len(found):,} images: the most probable class is below {least:g}")
    return inference.say_skipped(bad, len(paths), args.csv and args.csv.with_suffix(".skipped.txt"))
