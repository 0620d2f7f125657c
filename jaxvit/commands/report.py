"""`report`: the results of one or several runs, as a page to read, print and hand in."""

from jaxvit.commands.parser import directory_to_write, make_parser
from jaxvit.runtime import compile_cache, packages

DESCRIPTION = """Write a report about runs from their files: index.html (everything in one file), report.md, CSV, LaTeX.

  %(prog)s --workdir runs/a                                  into runs/a/report
  %(prog)s --workdir runs/a --pdf                            report.pdf on A4 too
  %(prog)s --workdir runs/a --workdir runs/b --out DIR       side by side; the runs must use the same data set"""


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = make_parser("report", DESCRIPTION)
    parser.add_argument("--workdir", action="append", default=[], metavar="DIR", help="a run; repeat it to compare")
    parser.add_argument("--out", type=directory_to_write, metavar="DIR", help="default for one run: its report/")
    parser.add_argument(
        "--deep", action="store_true", help="features of test images, similarity of layers, filters, position tables"
    )
    parser.add_argument("--augmentations", action="store_true", help="images as the training step changes them")
    parser.add_argument("--pdf", action="store_true", help="also print report.pdf on A4, with Chromium, Chrome or Edge")
    args = parser.parse_args(argv)
    packages.require("matplotlib", "jinja2", "sklearn")
    compile_cache.use()
    from jaxvit import reports
    from jaxvit.runtime import console

    page, *others = reports.write_report(
        args.workdir, args.out, deep=args.deep, augmentations=args.augmentations, to_pdf=args.pdf
    )
    printed = f"{others.pop(0)}\n" if args.pdf else ""
    console.say(f"{page}\n{printed}{len(others)} more files next to it: report.md, tables as CSV and LaTeX, figures")
    return 0
