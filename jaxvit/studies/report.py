"""The report of a study: published figures next to ours, how to read them, and the pictures of a comparison."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError
from jaxvit.reports import learning_curve, page, pictures
from jaxvit.reports import report as run_report
from jaxvit.reports import runs as runs_lib
from jaxvit.reports import tables as run_tables
from jaxvit.reports.blocks import Block, Figure, Section, Table, Text
from jaxvit.reports.runs import RunFiles, read_run
from jaxvit.studies import ledger as led
from jaxvit.studies import tables
from jaxvit.studies.grids import grids
from jaxvit.studies.ledger import Ledger
from jaxvit.studies.study import Study
from jaxvit.studies.tables import Result

MOST_GRIDS = 4  # rows whose maps are drawn where the study names none
MOST_MATRICES = 6  # rows with their own confusion matrix

SMOKE = (
    "A smoke run: small models of each family, a few real images, a few steps, and random weight files "
    "instead of the published ones. It shows that every row of the study runs; its accuracies mean nothing."
)


def write(study: Study, file: Path, workdir: Path, ledger: Ledger, to_pdf: bool = False) -> list[Path]:
    """Writes report/index.html, report.md, tables and figures, and report.pdf; returns them, index.html first."""
    workdir = workdir.resolve()
    run_report.check_target(workdir / "report")
    results = read_results(study, workdir, ledger)
    firsts = [result.first for result in results if result.runs]
    title = f"{study.title}" + (" (smoke run)" if ledger.content["options"].get("smoke") else "")
    parts: list[tuple[str, list[Block]]] = [
        ("Published and ours", comparison(study, results, ledger)),
        ("How many images", how_many_images(results)),
        ("How to read it", reading(study, results)),
        ("Cost of the rows", cost(results, ledger)),
        ("Epoch by epoch", [t for t in [tables.by_epoch(results)] if t] if study.by_epoch else []),
        *_of_runs(study, firsts),
        ("To repeat", repeat(file, ledger, firsts)),
    ]
    sections = [Section(name, blocks) for name, blocks in parts if blocks]
    done = sum(len(result.runs) for result in results)
    asked = max(done, len(ledger.content["runs"]))
    data = f"; data {firsts[0].config['data.name']}" if firsts else ""
    subtitle = f"Study {file.stem}: {done} of {asked} runs done, {len(study.rows)} rows{data}"
    return page.write(workdir / "report", title, subtitle, sections, to_pdf)


def read_results(study: Study, workdir: Path, ledger: Ledger) -> list[Result]:
    """What there is of every row. A run whose files are damaged is told as such, and the rest is reported."""
    results = []
    for row in study.rows:
        runs, records = [], {}
        for key, record in sorted(ledger.records().items(), key=lambda item: (len(item[0]), item[0])):
            if led.split_key(key)[0] != row.name:
                continue
            records[key] = dict(record)
            if records[key]["status"] != led.DONE:
                continue
            try:
                run = read_run(workdir / key, row.name)
                if run.logits is None or not run.finished:
                    raise UserError("its predictions are missing")
                runs.append(run)
            except UserError as error:
                records[key] |= {"status": "damaged", "reason": str(error).splitlines()[0]}
        results.append(Result(row, runs, records, ledger.content["costs"].get(row.name, {})))
    return results


def comparison(study: Study, results: Sequence[Result], ledger: Ledger) -> list[Block]:
    """The two tables, side by side."""
    out: list[Block] = [Text(SMOKE, "note")] if ledger.content["options"].get("smoke") else []
    options = ledger.content["options"]
    changed = [f"--epochs {options['epochs']}"] if options.get("epochs") else []
    changed += list(options.get("overrides") or [])
    if changed:
        out.append(Text(f"This is not the study's own protocol; it was run with {' '.join(changed)}.", "note"))
    if options.get("folds"):
        out.append(
            Text(f"Every row was run over {options['folds']} folds: the runs that did not train on an image test it.")
        )
    out += [Text(line, "note") for line in other_data(results)]
    main = tables.side_by_side(study, results, extra=False, gap=not options.get("smoke"))
    more = tables.side_by_side(study, results, extra=True)
    subjects = tables.by_subject(results)
    out += [table for table in (subjects, main) if table]
    if more:
        out += [Text("Our own rows, which the published report does not have:"), more]
    pooled = tables.of_folds(results)
    return out + ([pooled] if pooled else []) + tables.states(results)


def other_data(results: Sequence[Result]) -> list[str]:
    """A line on each run whose test images are not those of the first run on data of the same name."""
    firsts: dict[tuple[Any, ...], RunFiles] = {}
    lines = []
    for run in (run for result in results for run in result.runs):
        first = firsts.setdefault(
            tuple(run.config.get(word) for word in ("data.name", "data.dir", "data.columns", "data.fold")), run
        )
        if reason := runs_lib.other_data(first, run):
            where = "/".join(run.path.parts[-2:])
            lines.append(f"The data changed before {where} ({reason}): its figures cannot be compared with the others.")
    return lines


def how_many_images(results: Sequence[Result]) -> list[Block]:
    """What more training images would give, where rows differ in their number."""
    runs = [(run, result.row.label) for result in results for run in result.runs]
    return learning_curve.section([run for run, _ in runs], [label for _, label in runs])


def reading(study: Study, results: Sequence[Result]) -> list[Block]:
    """The source, where the protocols differ, what belongs to single rows."""
    out: list[Block] = [Text(f"Published figures: {study.source}"), *(Text(text) for text in study.reading)]
    table = tables.remarks(results)
    return out + ([table] if table else [])


def cost(results: Sequence[Result], ledger: Ledger) -> list[Block]:
    """Shapes, then time."""
    blocks: list[Block] = [tables.costs(results)]
    return blocks + tables.time_and_cost(results, float(ledger.content.get("wall_seconds") or 0))


def _of_runs(study: Study, runs: list[RunFiles]) -> list[tuple[str, list[Block]]]:
    """The sections that any report over these runs has; the first seed stands for its row, all its folds together."""
    if not runs:
        return []
    drawn = [run for run in runs if run.label in study.pictures] or runs[:MOST_GRIDS]
    named = [run for run in runs if run.label in study.pictures]
    shown = (named + [run for run in runs if run not in named])[:MOST_MATRICES]
    shown = [run for run in runs if run in shown] if len(shown) < len(runs) else runs
    note = Text(
        f"Shown for {len(shown)} of {len(runs)} rows. For the others: "
        f"python main.py report --workdir ROW/{runs[0].path.name}."
    )
    few: list[Block] = [note] if len(shown) < len(runs) else []
    looks = ("Where the models look", grids(drawn, {row.name: row.label for row in study.rows}))
    if any(run.several for run in runs):
        differences: list[Block] = []
        judged = [(title, few + blocks) for title, blocks in run_report.of_several(shown, None)] + [looks]
    else:
        differences = in_parts(study, runs, lambda some: list(run_tables.differences(some)))
        judged = [
            ("Confusion", few + run_report.confusion(shown, None)),
            looks,
            ("Classes", few + run_report.classes(shown)),
        ]
    return [
        ("Differences", differences),
        ("Training", in_parts(study, runs, run_report.training)),
        *judged,
        ("Augmentation", augmentation(runs)),
        ("Config", list(run_tables.config_tables(runs))),
    ]


def in_parts(study: Study, runs: Sequence[RunFiles], make: Callable[[list[RunFiles]], Sequence[Block]]) -> list[Block]:
    """The blocks of each part of the study under its name; files of later parts have a number in their names."""
    parts: dict[str, list[RunFiles]] = {}
    for run in runs:
        row = study.row(run.label)
        parts.setdefault(row.part or ("Our own rows" if row.extra else "Published rows"), []).append(run)
    out: list[Block] = []
    for number, (name, some) in enumerate(parts.items()):
        blocks = [_numbered(block, number) for block in make(some)]
        out += [Text(f"{name}."), *blocks] if len(parts) > 1 and blocks else blocks
    return out


def _numbered(block: Block, number: int) -> Block:
    if not number:
        return block
    if isinstance(block, Figure):
        return dataclasses.replace(block, name=f"{block.name}_{number}")
    if isinstance(block, Table) and block.csv:  # what the columns are has been said in the first part
        stem, paste = block.csv[0].removesuffix(".csv"), block.paste and f"{block.paste}_{number}"
        return dataclasses.replace(block, caption="", csv=(f"{stem}_{number}.csv", *block.csv[1:]), paste=paste)
    return block


def augmentation(runs: Sequence[RunFiles]) -> list[Block]:
    """The options in use, and the images that they give, once for each kind."""
    kinds: dict[str, RunFiles] = {}
    for run in runs:
        words = {word: value for word, value in run.config.items() if word.startswith("augment.")}
        kinds.setdefault(str(sorted(words.items())), run)
    table = run_tables.augmentations(runs)
    blocks: list[Block] = [table] if table else [Text("No augmentation and no regularisation options are in use.")]
    for run in kinds.values():
        if pictures.augments(run):
            blocks += pictures.augmented(run)
    return blocks


def repeat(file: Path, ledger: Ledger, runs: Sequence[RunFiles]) -> list[Block]:
    """The command of the study, and the machine and versions of its runs."""
    options: dict[str, Any] = ledger.content["options"]
    words = ["python main.py study", ledger.content["study"], "--workdir DIR"]
    words += ["--smoke"] if options.get("smoke") else []
    words += [f"--{word} {options[word]}" for word in ("epochs", "data", "folds") if options.get(word)]
    words += list(options.get("overrides") or [])
    seeds = sorted({led.split_key(key)[1] for key in ledger.content["runs"]})
    words += [f"--seeds {','.join(map(str, seeds))}"] if len(seeds) > 1 else []
    table = run_tables.environment(runs[:1])
    return [Text(" ".join(words), "code"), *([table] if table else [])]
