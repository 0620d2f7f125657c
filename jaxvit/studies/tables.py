"""The tables of a study's report: published figures next to ours, the cost of the rows, the outcome of every run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvit.reports import folds
from jaxvit.reports import tables as run_tables
from jaxvit.reports.blocks import Block, Table, Text
from jaxvit.reports.runs import RunFiles
from jaxvit.runtime.console import count, duration
from jaxvit.studies import ledger as led
from jaxvit.studies.study import METRICS, Row, Study

ABSENT = run_tables.ABSENT


@dataclasses.dataclass(frozen=True)
class Result:
    """A row with what there is of it."""

    row: Row
    runs: list[RunFiles]  # that are done, of all seeds and folds
    records: dict[str, dict[str, Any]]  # by key, from study.json
    cost: Mapping[str, Any]  # of studies.costs, of the full model

    @property
    def first(self) -> RunFiles:
        """The run of the first seed that is done; of folds all of its test images together.

        Thresholds of several labels per image belong to one run: there it is the first fold.
        """
        same = [run for run in self.runs if _seed(run) == _seed(self.runs[0])]
        return same[0] if same[0].several else folds.together(same)

    def record(self, run: RunFiles) -> dict[str, Any]:
        """What study.json says of a run."""
        return self.records.get(f"{self.row.name}/{run.path.name}", {})

    @property
    def status(self) -> str:
        """What became of runs that are not done; empty where all are."""
        others = [r["status"] for r in self.records.values() if r["status"] != led.DONE]
        return ", ".join(dict.fromkeys(others)) if self.records else led.WAITING


def _summary(word: str, factor: float = 1.0) -> Callable[[RunFiles, Mapping[str, Any]], float | None]:
    def read(run: RunFiles, record: Mapping[str, Any]) -> float | None:
        value = run.summary.get(word)
        return None if value is None else factor * value

    return read


def _accuracy(run: RunFiles, record: Mapping[str, Any]) -> float | None:
    value = None if run.several else run_tables.accuracy(run)
    return None if value is None else 100 * value


def _of_classes(name: str) -> Callable[[RunFiles, Mapping[str, Any]], float | None]:
    def read(run: RunFiles, record: Mapping[str, Any]) -> float | None:
        value = run_tables.of_classes(run).get(name)
        return None if value is None else 100 * value

    return read


def _several(name: str) -> Callable[[RunFiles, Mapping[str, Any]], float | None]:
    def read(run: RunFiles, record: Mapping[str, Any]) -> float | None:
        return 100 * run_tables.several_scores(run)[name] if run.several and run.logits is not None else None

    return read


def _knn(run: RunFiles, record: Mapping[str, Any]) -> float | None:
    value = record.get("knn_accuracy")
    return None if value is None else 100 * value


def _best_epoch(run: RunFiles, record: Mapping[str, Any]) -> float | None:
    found = run_tables.best_validation(run)
    return None if found is None else found[0]


# key of METRICS: (ours, digits after the point)
OURS: dict[str, tuple[Callable[[RunFiles, Mapping[str, Any]], float | None], int]] = {
    "accuracy": (_accuracy, 2),
    "balanced_accuracy": (_of_classes("balanced_accuracy"), 2),
    "macro_f1": (_of_classes("macro_f1"), 2),
    "mAP": (_several("mAP"), 2),
    "micro_f1": (_several("micro_f1"), 2),
    "exact_match": (_several("exact_match"), 2),
    "knn": (_knn, 2),
    "parameters": (_summary("parameters", 1e-6), 2),
    "macs": (_summary("gmacs", 1e3), 0),
    "seconds_per_epoch": (_summary("seconds_per_epoch"), 1),
    "seconds": (_summary("train_seconds"), 0),
    "best_epoch": (_best_epoch, 0),
    "epochs": (_summary("epochs"), 0),
    "images_per_second": (lambda run, record: record.get("test_images_per_second"), 0),
}
EXACT = ("parameters", "macs", "epochs", "best_epoch")  # no spread worth showing


def values(result: Result, key: str) -> list[float]:
    """Ours of a row, one value for each seed that has one; of folds one for each fold, the mean over its seeds."""
    read = OURS[key][0]
    found: dict[Any, list[float]] = {}
    for run in result.runs:
        value = read(run, result.record(run))
        if value is not None:
            found.setdefault(folds.fold(run) or _seed(run), []).append(float(value))
    return [float(np.mean(group)) for group in found.values()]


def _seed(run: RunFiles) -> int:
    return int(run.config.get("seed") or 0)


def _seeds(result: Result) -> set[int]:
    return {_seed(run) for run in result.runs}


def of_folds(results: Sequence[Result]) -> Table | None:
    """Every row and seed over its folds, and all its images together; None without folds."""
    several = any(len(_seeds(result)) > 1 for result in results)
    groups: dict[tuple[str, int], list[RunFiles]] = {}
    for result in results:
        for run in result.runs:
            label = result.row.label + (f", seed {_seed(run)}" if several else "")
            if folds.fold(run):
                groups.setdefault((result.row.name, _seed(run)), []).append(dataclasses.replace(run, label=label))
    return folds.table(list(groups.values()))


def show(key: str, found: Sequence[float]) -> str:
    """One value, or mean and standard deviation of several (n - 1)."""
    if not found:
        return ABSENT
    digits = OURS[key][1] if abs(np.mean(found)) >= 1 or key == "accuracy" else 3
    text = f"{np.mean(found):,.{digits}f}"
    if len(found) > 1 and key not in EXACT:
        text += f" ± {np.std(found, ddof=1):,.{digits}f}"
    return text


def side_by_side(study: Study, results: Sequence[Result], *, extra: bool, gap: bool = True) -> Table | None:
    """The published table and ours in the same columns, and the `gap` between them; None without such rows."""
    rows_of = [result for result in results if result.row.extra == extra]
    if not rows_of:
        return None
    keys = list(study.columns)
    printed = {key for key in keys if any(key in r.row.published for r in rows_of)}
    digits = {key: max(_decimals(r.row.published.get(key)) for r in rows_of) for key in keys}
    head, csv_head = ["row"], ["row", "label", "seeds", "folds", "status"]
    for key in keys:
        head += [f"{METRICS[key]}, published", "ours"] if key in printed else [f"{METRICS[key]}, ours"]
        csv_head += [f"published_{key}", key, f"{key}_sd"]
    if gap and "accuracy" in printed:
        head.append("ours minus published")
    told = any(result.status for result in rows_of)
    folded = any(folds.fold(run) for result in rows_of for run in result.runs)
    seeds = any(len(_seeds(result)) > 1 for result in rows_of)
    head += (["folds"] if folded else []) + (["seeds"] if seeds else []) + (["state"] if told else [])
    rows, raw = [], []
    for result in rows_of:
        cells, plain = [result.row.label], [result.row.name, result.row.label]
        counts = [len(_seeds(result)), len({folds.fold(run) for run in result.runs} - {None})]
        plain += [*counts, result.status]
        for key in keys:
            published, found = result.row.published.get(key), values(result, key)
            cells += ([_published(published, digits[key])] if key in printed else []) + [show(key, found)]
            spread = float(np.std(found, ddof=1)) if len(found) > 1 else None
            plain += [published, float(np.mean(found)) if found else None, spread]
        if gap and "accuracy" in printed:
            cells.append(_gap(result))
        cells += [str(counts[1])] * folded + [str(counts[0])] * seeds
        rows.append(cells + ([result.status or "done"] if told else []))
        raw.append(plain)
    caption = "± is the standard deviation over seeds (n − 1). " if seeds and not folded else ""
    if folded:
        caption = "± is the standard deviation over folds (n − 1)" + (
            ", of their means over seeds. " if seeds else ". "
        )
    of = "a fold" if folded else "the whole test split"
    caption += f"Our figures are those of {of}, from the checkpoint that is best on validation images"
    caption += "; published figures are as printed in the source." if printed else "."
    csv = ("extra_rows.csv" if extra else "published_and_ours.csv", csv_head, raw)
    title = "Our own rows" if extra else "Published figures and ours" if printed else "Our figures"
    return Table(head, rows, caption, csv=csv, title=title, paste="table_extra" if extra else "table")


def by_subject(results: Sequence[Result]) -> Table | None:
    """The accuracy of each subject, a column for each part of the study, neighbours first; None without subjects."""
    subjects = list(dict.fromkeys(r.row.subject for r in results if r.row.subject))
    if not subjects:
        return None
    methods: dict[str, tuple[str, Sequence[Result]]] = {}  # head -> figure and rows
    if asked := [r for r in results if r.row.subject and r.row.neighbours]:
        counts = {str(r.row.neighbours) for r in asked}
        methods[f"{' or '.join(sorted(counts))} nearest neighbours"] = ("knn", asked)
    for part in dict.fromkeys(r.row.part for r in results if r.row.subject):
        methods[part] = ("accuracy", [r for r in results if r.row.part == part])
    rows, raw = [], []
    for subject in subjects:
        found = [
            (key, [v for r in some if r.row.subject == subject for v in values(r, key)])
            for key, some in methods.values()
        ]
        rows.append([subject, *(show(key, figures) for key, figures in found)])
        raw.append([subject, *(float(np.mean(figures)) if figures else None for _, figures in found)])
    head = ["top-1 of test images (%)", *methods]
    caption = "Every column is one method, the same for all rows; the parts below have what belongs to each."
    csv = ("by_subject.csv", ["subject", *methods], raw)
    return Table(head, rows, caption, csv=csv, title="Methods side by side", paste="table_by_subject")


def _published(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:,.{digits}f}"


def _decimals(value: float | None) -> int:
    """Digits after the point that a figure was given with."""
    return len(f"{value:.10g}".partition(".")[2]) if value is not None else 0


def _gap(result: Result) -> str:
    published, found = result.row.published.get("accuracy"), values(result, "accuracy")
    return ABSENT if published is None or not found else f"{np.mean(found) - published:+.2f}"


def remarks(results: Sequence[Result]) -> Table | None:
    """What belongs to single rows."""
    rows = [[r.row.label, r.row.remark] for r in results if r.row.remark]
    return Table(["row", "notes on the comparison"], rows, left=2, title="Notes on the rows") if rows else None


SHAPES = {"parameters": "parameters (M)", "macs": "MACs (M)"}


def costs(results: Sequence[Result]) -> Table:
    """What the shapes cost by our own count, at full size, next to the published figures."""
    known = [result for result in results if result.cost]
    head, columns = ["row", "called", "model", "image"], ["row", "model", "image"]
    rows = [[r.row.label, r.row.name, r.cost["model"], "×".join(map(str, r.cost["image_size"]))] for r in known]
    raw: list[list[Any]] = [row[1:] for row in rows]
    for key, name in SHAPES.items():
        published = [result.row.published.get(key) for result in known]
        told = any(value is not None for value in published)
        digits = max(map(_decimals, published), default=0)
        head += [f"{name}, published", "counted"] if told else [name]
        columns += [f"published_{key}_m", key]
        for row, plain, result, value in zip(rows, raw, known, published, strict=True):
            millions = result.cost[key] / 1e6
            counted = f"{millions:,.{2 if key == 'parameters' or millions < 10 else 0}f}"
            row += [_published(value, digits), counted] if told else [counted]
            plain += [value, result.cost[key]]
    caption = "Counted from the models as declared, at full size; one MAC (multiply-accumulate) is two FLOPs. "
    caption += "Curves and options name a row by its directory."
    return Table(head, rows, caption, left=4, csv=("shapes.csv", columns, raw), title="Sizes")


def _which(run: RunFiles) -> list[str]:
    """The seed, and the fold, if any."""
    found = folds.fold(run)
    return [str(_seed(run)), *([f"{found[0]}/{found[1]}"] if found else [])]


def time_and_cost(results: Sequence[Result], wall_seconds: float) -> list[Block]:
    """Time, memory and work of every row, and of the whole."""
    rows, raw, total, work = [], [], 0.0, 0.0
    devices: dict[str, None] = {}
    for result in results:
        for run in result.runs:
            s = run.summary
            images = (s.get("images_per_second") or 0) * (s.get("train_seconds") or 0)
            flop = 6e9 * (s.get("gmacs") or 0) * images
            total, work = total + (s.get("train_seconds") or 0), work + flop
            devices[str(s.get("environment", {}).get("devices", "?"))] = None
            memory = s.get("peak_memory_bytes")
            rows.append(
                [
                    result.row.label, *_which(run), count(s.get("parameters") or 0),
                    count(s.get("trainable_parameters") or 0), str(s.get("epochs", ABSENT)),
                    f"{s.get('seconds_per_epoch') or 0:.3g}", duration(s.get("train_seconds") or 0),
                    duration(s.get("compile_seconds") or 0), f"{s.get('images_per_second') or 0:,.0f}",
                    count(memory, "B") if memory else ABSENT,
                ]
            )  # fmt: skip
            raw.append([result.row.name, *_which(run), s.get("parameters"), s.get("trainable_parameters"),
                        s.get("epochs"), s.get("seconds_per_epoch"), s.get("train_seconds"), s.get("compile_seconds"),
                        s.get("images_per_second"), memory])  # fmt: skip
    if not rows:
        return []
    which = ["seed", "fold"][: len(_which(next(r for result in results for r in result.runs)))]
    head = ["row", *which, "parameters", "of them trained", "epochs", "s/epoch", "training", "first step",
            "training images/s", "peak memory"]  # fmt: skip
    columns = ["row", *which, "parameters", "trainable", "epochs", "seconds_per_epoch", "train_seconds",
               "compile_seconds", "images_per_second", "peak_memory_bytes"]  # fmt: skip
    if all(row[-1] == ABSENT for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    text = (
        f"{len(rows)} runs: {duration(total)} of training on {', '.join(devices)}; {duration(wall_seconds)} in all, "
        f"with start-up, compilation and evaluation. About {count(work, 'FLOP')} of training, at three forward passes "
        "per image (frozen rows need less, SAM needs twice as much)."
    )
    return [Text(text), Table(head, rows, csv=("time_and_cost.csv", columns, raw), title="Time and memory")]


def states(results: Sequence[Result]) -> list[Block]:
    """A note for every run without a result."""
    out: list[Block] = []
    for result in results:
        if not result.records:
            out.append(Text(f"{result.row.label}: not run.", "note"))
        for key, record in result.records.items():
            if record["status"] != led.DONE:
                _, seed, fold = led.split_key(key)
                reason = f": {record['reason']}" if record.get("reason") else ""
                which = f"seed {seed}" + (f", fold {fold}" if fold else "")
                said = f"{result.row.label}, {which}: {record['status']}{reason}."
                out.append(Text(said.replace("..", "."), "note"))
    return out


def by_epoch(results: Sequence[Result]) -> Table | None:
    """Loss and accuracy on training and validation images at each epoch of the first seed."""
    keys = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
    rows, raw = [], []
    for result in results:
        for run in result.runs[:1]:
            for line in run.epochs:
                found = [line.get(key) for key in keys]
                texts = [ABSENT if v is None else f"{100 * v:.2f} %" if "acc" in k else f"{v:.4f}" for k, v in
                         zip(keys, found, strict=True)]  # fmt: skip
                rows.append([result.row.label, str(line["epoch"]), *texts])
                raw.append([result.row.name, line["epoch"], *found])
    if not rows:
        return None
    head = ["row", "epoch", "training loss", "training accuracy", "validation loss", "validation accuracy"]
    columns = ["row", "epoch", *(key.replace("/", "_") for key in keys)]
    caption = "Training figures are means over the epoch, with augmentation and dropout, while the weights change."
    return Table(head, rows, caption, csv=("by_epoch.csv", columns, raw), title="Loss and accuracy at each epoch")
