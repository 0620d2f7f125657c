"""`study`: all runs of one comparison, and its report."""

import re
from pathlib import Path
from typing import Any

from jaxvit.commands.parser import OVERRIDE, directory_to_write, make_parser, positive
from jaxvit.errors import UserError
from jaxvit.runtime import packages
from jaxvit.runtime.paths import expand

DESCRIPTION = """Run a comparison, row by row, and write its report: published figures next to ours.

  %(prog)s --list                                               list the studies
  %(prog)s cifar10_vit_vs_swin --list                           list the rows of one
  %(prog)s cifar10_vit_vs_swin --workdir runs/vit_vs_swin       all rows; the same command resumes
  %(prog)s cifar10_vit_vs_swin --workdir runs/smoke --smoke     small models, few images: minutes on a CPU"""
EPILOG = "Options for all rows: --config.OPTION=VALUE, for example --config.dtype=bfloat16. Studies: docs/STUDIES.md."


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code: 0, 1 where rows have no result, 2 a mistake, 130/143 interrupted."""
    parser = make_parser("study", DESCRIPTION, epilog=EPILOG)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a study in configs/studies, or the path of its file")
    parser.add_argument(
        "--workdir", type=directory_to_write, metavar="DIR", help="directory of its runs and its report"
    )
    parser.add_argument("--list", action="store_true", help="list the studies, or list the rows of one")
    parser.add_argument("--smoke", action="store_true", help="small models of the families, few real images and steps")
    parser.add_argument("--rows", metavar="A,B", help="only these rows, and the teachers that they need")
    parser.add_argument("--seeds", metavar="N|A,B", help="N seeds (0 to N-1), or the seeds A,B; default: the study's")
    parser.add_argument("--folds", metavar="K|I/K", help="every row once for each of K folds, or only for the I-th")
    parser.add_argument("--epochs", type=positive, metavar="N", help="epochs of every row, instead of its own number")
    parser.add_argument("--data", metavar="NAME", help="npz:PATH, tfds:NAME, ... instead of the study's; smoke: digits")
    parser.add_argument("--checkpoints", metavar="DIR", help="local weights: NAME.TAG.safetensors or NAME.safetensors")
    parser.add_argument(
        "--report-only", action="store_true", help="write the report of the finished runs and train nothing"
    )
    parser.add_argument("--pdf", action="store_true", help="print the report as report.pdf too, on A4")
    args, rest = parser.parse_with_overrides(argv)
    stray = [text for text in rest if not text.startswith(OVERRIDE)]
    if stray:
        raise UserError(f"{stray[0]!r} is an unexpected second name; see {parser.prog} --help")
    _use_cpu()
    from jaxvit.studies import study as studies

    if args.name is None:
        if args.list:
            return _list_studies()
        raise UserError("no study given; --list shows all of them")
    folds, of = folds_of(args.folds)
    study, file = studies.load(args.name)
    options = studies.Options(
        args.smoke, args.epochs, args.data or ("digits" if args.smoke else None), tuple(rest), args.checkpoints, of
    )
    if args.list:
        return _list_rows(study, file, options)
    if args.workdir is None:
        raise UserError("no --workdir: the directory of the study, for example --workdir runs/study")
    if args.checkpoints is not None and not expand(args.checkpoints).is_dir():
        raise UserError(f"--checkpoints {args.checkpoints!r} is not a directory")
    rows = [name.strip() for name in args.rows.split(",") if name.strip()] if args.rows else []
    return _run(study, file, args, options, rows, folds)


def _run(study: Any, file: Path, args: Any, options: Any, rows: list[str], folds: list[int]) -> int:
    packages.require("tensorboardX", "matplotlib", "jinja2", "sklearn")
    if args.pdf:
        from jaxvit.reports import pdf

        pdf.find_browser()
    from jaxvit.runtime.console import say, warn, working
    from jaxvit.runtime.interrupt import Interrupted
    from jaxvit.studies import conduct, ledger, report

    if args.report_only:
        if not (args.workdir / ledger.FILE).exists():
            raise UserError(f"no study in {str(args.workdir)!r}")
        record = ledger.Ledger.read(args.workdir, file.stem)
    else:
        seeds = seeds_of(args.seeds)
        try:
            record = conduct.run_study(study, file, args.workdir, options, rows=rows, seeds=seeds, folds=folds)
        except Interrupted as stop:
            warn(str(stop))
            return stop.exit_code
    with working("writing the report"):
        page, *others = report.write(study, file, args.workdir, record, args.pdf)
    left = {key: entry for key, entry in record.records().items() if entry["status"] != ledger.DONE}
    for key, entry in left.items():
        warn(f"{key}: {entry['status']}: {entry['reason']}")
    say(f"{page}\n{others[0]}" if args.pdf else str(page))
    return 1 if left and not args.report_only else 0


def seeds_of(text: str | None) -> list[int]:
    """Reads --seeds: "3" is [0, 1, 2], "0,4" is [0, 4], None is [] for the study's own."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"--seeds is {text!r}; expected a number of seeds, or different seeds such as 0,1,2")
    numbers = [int(part) for part in parts]
    if len(numbers) == 1 and "," not in text:
        if not 1 <= numbers[0] <= 1000:
            raise UserError(f"--seeds is {text!r}; expected 1 to 1000")
        return list(range(numbers[0]))
    return numbers


def folds_of(text: str | None) -> tuple[list[int], int | None]:
    """Reads --folds: "3" is ([1, 2, 3], 3), "2/3" is ([2], 3), None is ([], None)."""
    if text is None:
        return [], None
    found = re.fullmatch(r"\s*(?:([0-9]{1,4})\s*/)?\s*([0-9]{1,4})\s*", text)
    i, k = (int(found[1] or 1), int(found[2])) if found else (0, 0)
    if not found or not 2 <= k <= 1000 or not 1 <= i <= k:
        raise UserError(f"--folds is {text!r}; expected 2 to 1000 folds, or one of them such as 1/5")
    return ([i] if found[1] else list(range(1, k + 1))), k


def _use_cpu() -> None:
    """This process plans and draws; the training processes use the accelerator."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _list_studies() -> int:
    from jaxvit.runtime import console
    from jaxvit.studies import study as studies

    known = studies.names()
    if not known:
        raise UserError("this copy of jaxvit has no studies; give the path of a study's file")
    rows = []
    for name, file in sorted(known.items()):
        found, _ = studies.load(str(file))
        rows.append((name, len(found.rows), found.title))
    console.table("studies", ("name", "rows", "about"), rows, left=("name", "about"))
    return 0


def _list_rows(study: Any, file: Path, options: Any) -> int:
    from jaxvit.runtime import console
    from jaxvit.studies import study as studies
    from jaxvit.studies import weights

    rows = []
    for row in study.rows:
        config = studies.row_config(study, file, row, study.seeds[0], options)
        start = config.pretrained or "scratch"
        if config.pretrained and options.checkpoints and weights.local(config.pretrained, options.checkpoints):
            start += " (found)"
        published = row.published.get("accuracy")
        told = "extra" if row.extra else "" if published is None else f"{published:g} %"
        rows.append((row.name, row.label, config.model.name, start, config.num_epochs, told))
    columns = ("row", "label", "model", "from", "epochs", "published")
    seeds = "seed" if len(study.seeds) == 1 else "seeds"
    title = f"{file.stem}: {study.title} ({seeds} {', '.join(map(str, study.seeds))})"
    console.table(title, columns, rows, left=columns[:4])
    return 0
