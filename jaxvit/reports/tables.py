"""The tables of a report: runs side by side, seeds, differences, configs, environments."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxvit.reports import numbers
from jaxvit.reports.blocks import Table, Text
from jaxvit.reports.runs import RunFiles, defaults, same_test_split
from jaxvit.runtime.console import count, duration
from jaxvit.step import calibration, multi_label

ABSENT = "–"
HARDEST = 10
MOST_PAIRS = 15  # runs are compared each with each up to here, else each with the best


def best_validation(run: RunFiles) -> tuple[int, float] | None:
    """Epoch and accuracy, or mAP, of the evaluation that chose, or of the best line so far."""
    chosen = run.summary.get("best")
    lines = [chosen] if chosen else run.epochs
    raw, average = (f"{prefix}/{'mAP' if run.several else 'accuracy'}" for prefix in ("val", "val_ema"))
    both = [average] if average in (chosen or {}) else [average, raw]
    keys = {"raw": [raw], "average": [average]}
    found = [
        (int(line["epoch"]), line[key])
        for line in lines
        for key in keys.get(str(line.get("weights")), both)  # once the average always chose
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    return max(found, key=lambda pair: pair[1]) if found else None


def accuracy(run: RunFiles) -> float | None:
    """Test accuracy from the predictions, or None; of several labels per image the mean average precision."""
    if run.logits is None:
        return None
    return several_scores(run)["mAP"] if run.several else float(run.correct.mean())


def several_scores(run: RunFiles) -> dict[str, float]:
    """The test figures of several labels per image."""
    assert run.logits is not None and run.labels is not None and run.thresholds is not None
    return multi_label.scores(run.logits, run.labels, run.thresholds)


def _several(name: str) -> Callable[[RunFiles], tuple[Any, str]]:
    def read(run: RunFiles) -> tuple[Any, str]:
        value = several_scores(run)[name] if run.several and run.logits is not None else None
        return value, _percent(value)

    return read


def of_classes(run: RunFiles) -> dict[str, float]:
    """`macro_f1` and `balanced_accuracy` of the test split from the predictions; {} without them."""
    if run.logits is None or run.labels is None:
        return {}
    if run.several:
        return {"macro_f1": several_scores(run)["macro_f1"]}
    counts = numbers.confusion(run.labels, run.predictions, len(run.class_names))
    return numbers.of_classes(counts)


def _percent(value: float | None, digits: int = 2) -> str:
    return ABSENT if value is None else f"{100 * value:.{digits}f} %"


def _pick(word: str, show: Callable[[Any], str]) -> Callable[[RunFiles], tuple[Any, str]]:
    def read(run: RunFiles) -> tuple[Any, str]:
        value = run.summary.get(word)
        return value, ABSENT if value is None else show(value)

    return read


def _macs(run: RunFiles) -> tuple[Any, str]:
    value, size = run.summary.get("gmacs"), run.summary.get("image_size")
    if value is None or not size:
        return value, ABSENT
    sides = dict.fromkeys("×".join(map(str, pixels)) for _, pixels in run.summary.get("train_sizes") or ())
    trained = f", trained at {', '.join(sides)}" if sides else ""
    return value, f"{count(1e9 * value)} at {size[0]}×{size[1]}{trained}"


def _top1(run: RunFiles) -> tuple[Any, str]:
    value = accuracy(run)
    if value is None or run.several:
        return None, ABSENT
    low, high = numbers.wilson(int(run.correct.sum()), len(run.correct))
    return value, f"{_percent(value)} ({100 * low:.1f}–{100 * high:.1f})"


def _class_mean(name: str) -> Callable[[RunFiles], tuple[Any, str]]:
    def read(run: RunFiles) -> tuple[Any, str]:
        value = of_classes(run).get(name)
        return value, _percent(value)

    return read


def _top5(run: RunFiles) -> tuple[Any, str]:
    if run.logits is None or run.labels is None or run.several or len(run.class_names) <= 5:
        return None, ABSENT
    value = numbers.top_k(run.logits, run.labels, 5)
    return value, _percent(value)


def _test_loss(run: RunFiles) -> tuple[Any, str]:
    if run.logits is None or run.labels is None:
        return None, ABSENT
    value = float(multi_label.worst(run.logits, run.labels).mean()) if run.several else None
    value = numbers.log_loss(run.logits, run.labels) if value is None else value
    return value, f"{value:.4f}"


def _ece(run: RunFiles) -> tuple[Any, str]:
    if run.logits is None or run.labels is None:
        return None, ABSENT
    value = calibration.ece(run.logits, run.labels)
    return value, _percent(value)


def _best(run: RunFiles) -> tuple[Any, str]:
    found = best_validation(run)
    return (None, ABSENT) if found is None else (found[0], f"{found[0]} ({_percent(found[1])})")


def _epochs(run: RunFiles) -> tuple[Any, str]:
    done, planned = len({line["epoch"] for line in run.epochs}), run.config.get("num_epochs")
    return done, str(done) if done == planned else f"{done} of {planned}"


def _model(run: RunFiles) -> tuple[Any, str]:
    name = run.config["model.name"]
    start = run.config.get("pretrained")
    return name, f"{name} (pretrained)" if start else name


def _memory(run: RunFiles) -> tuple[Any, str]:
    value, of = run.summary.get("peak_memory_bytes"), run.summary.get("peak_memory_of")
    return value, ABSENT if value is None else count(value, "B") + ("*" if of == "process" else "")


# head of the column: run -> (value for the CSV, text); a column without any value is left out
COLUMNS: dict[str, Callable[[RunFiles], tuple[Any, str]]] = {
    "model": _model,
    "top-1 (95 % interval)": _top1,
    "top-5": _top5,
    "mAP": _several("mAP"),
    "balanced accuracy": _class_mean("balanced_accuracy"),
    "macro F1": _class_mean("macro_f1"),
    "micro F1": _several("micro_f1"),
    "exact match": _several("exact_match"),
    "test loss": _test_loss,
    "ECE": _ece,
    "best epoch (validation)": _best,
    "parameters": _pick("parameters", count),
    "MACs": _macs,
    "epochs": _epochs,
    "s/epoch": _pick("seconds_per_epoch", lambda v: f"{v:.3g}"),
    "training": _pick("train_seconds", duration),
    "images/s": _pick("images_per_second", lambda v: f"{v:,.0f}"),
    "peak memory": _memory,
}
_COST = ("parameters", "MACs", "epochs", "s/epoch", "training", "images/s", "peak memory")


def comparison(runs: Sequence[RunFiles]) -> Table:
    """One row a run."""
    cells = {name: [read(run) for run in runs] for name, read in COLUMNS.items()}
    cells = {name: column for name, column in cells.items() if any(value is not None for value, _ in column)}
    scores = [accuracy(run) for run in runs]
    best = max((s for s in scores if s is not None), default=None)
    rows = [[run.label, *(column[i][1] for column in cells.values())] for i, run in enumerate(runs)]
    raw = [[run.label, *(column[i][0] for column in cells.values())] for i, run in enumerate(runs)]
    marked = frozenset(i for i, s in enumerate(scores) if len(runs) > 1 and s is not None and s == best)
    head = ["run", *cells]
    caption = "Test figures come from the checkpoint with the best validation figures"
    caption += "; F1 at its thresholds." if runs[0].several else "; the interval is Wilson's."
    if any(run.summary.get("peak_memory_of") == "process" for run in runs):
        caption += " *: memory of the process; the other figures are memory of the device."
    caption += f" The best {'mAP' if runs[0].several else 'test accuracy'} is marked." if marked else ""
    csv, cost = ("comparison.csv", head, raw), [i for i, name in enumerate(head) if name in _COST][:1]
    return Table(
        head, rows, caption, left=2, marked=marked, csv=csv, title="Test figures", paste="table",
        breaks=dict.fromkeys(cost, "Size and cost"),
    )  # fmt: skip


def _recipe(run: RunFiles) -> str:
    return json.dumps({k: v for k, v in run.config.items() if k != "seed"}, sort_keys=True)


def seeds(runs: Sequence[RunFiles]) -> Table | None:
    """Mean and standard deviation of runs that differ only in their seed; None without such runs.

    Of runs with one seed the first counts: a copy of a run is no second sample.
    """
    groups: dict[str, dict[int | None, RunFiles]] = {}
    for run in runs:
        if run.logits is not None:
            groups.setdefault(_recipe(run), {}).setdefault(run.config.get("seed"), run)
    rows, raw = [], []
    for group in (list(found.values()) for found in groups.values()):
        if len(group) < 2:
            continue
        values = np.array([accuracy(run) for run in group], np.float64)
        mean, sd = float(values.mean()), float(values.std(ddof=1))
        names, used = ", ".join(run.label for run in group), ", ".join(str(run.config.get("seed")) for run in group)
        show = [names, used, str(len(group)), f"{100 * mean:.2f} ± {100 * sd:.2f} %"]
        rows.append([*show, f"{100 * values.min():.2f}–{100 * values.max():.2f} %"])
        raw.append([names, used, len(group), mean, sd, float(values.min()), float(values.max())])
    if not rows:
        return None
    caption = "Runs that differ only in their seed; ± is the standard deviation over runs (n − 1)."
    head = ["runs", "seeds", "number", "mean", "sd", "lowest", "highest"]
    figure = "mAP" if runs[0].several else "top-1"
    columns, csv = ["runs", "seeds", "number", figure, "range"], ("seeds.csv", head, raw)
    return Table(columns, rows, caption, left=2, csv=csv, title="Seeds", paste="table_seeds")


def differences(runs: Sequence[RunFiles]) -> list[Table | Text]:
    """Paired comparisons of runs on the same test images."""
    known = [run for run in runs if run.logits is not None]
    if len(known) < 2:
        return []
    pairs = list(itertools.combinations(known, 2))
    if len(pairs) > MOST_PAIRS:
        best = max(known, key=lambda run: accuracy(run) or 0.0)
        pairs = [(best, run) for run in known if run is not best]
    same = [(a, b) for a, b in pairs if same_test_split(a, b)]
    out: list[Table | Text] = []
    if same:
        out.append(_difference_table(same))
    if len(same) < len(pairs):
        others = "; ".join(f"{a.label} and {b.label}" for a, b in pairs if not same_test_split(a, b))
        out.append(Text(f"Not compared, because the test images differ: {others}.", "note"))
    return out


def _difference_table(pairs: Sequence[tuple[RunFiles, RunFiles]]) -> Table:
    tests = [numbers.mcnemar(a.correct, b.correct) for a, b in pairs]
    adjusted = numbers.holm([p for *_, p in tests])
    rows, raw, marked = [], [], set()
    for i, ((a, b), (only_a, only_b, p), q) in enumerate(zip(pairs, tests, adjusted, strict=True)):
        d, low, high = numbers.bootstrap_difference(a.correct, b.correct)
        interval = f"{100 * low:+.2f} to {100 * high:+.2f}".replace("-", "−")
        difference = f"{100 * d:+.2f}".replace("-", "−")
        rows.append([a.label, b.label, difference, interval, str(only_a), str(only_b), _p(p), _p(q)])
        raw.append([a.label, b.label, d, low, high, only_a, only_b, p, q])
        if q < 0.05:
            marked.add(i)
    caption = (
        "B minus A in percentage points of test accuracy, with the 95 % bootstrap interval over the test images "
        f"({numbers.DRAWS:,} paired resamples); McNemar's exact test on the images that only one of them has right; "
        "Holm's correction for the number of pairs. Pairs with a corrected p below 0.05 are marked. "
        "The tests cover chance in the test images, not the variation between seeds."
    )
    head = ["A", "B", "difference", "95 % interval", "only A right", "only B right", "p", "p (Holm)"]
    names = ["A", "B", "difference", "low", "high", "only_A_right", "only_B_right", "p", "p_holm"]
    csv, title = ("differences.csv", names, raw), "Pairs of runs"
    return Table(head, rows, caption, 2, frozenset(marked), csv=csv, title=title, keys=2, paste="table_differences")


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _show(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return "(" + ", ".join(map(_show, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def config_tables(runs: Sequence[RunFiles]) -> list[Table | Text]:
    """What differs between the runs (of one run: from the defaults), then every option."""
    usual = defaults()
    words = list(dict.fromkeys(word for run in runs for word in run.config))
    if len(runs) == 1:
        told = [w for w in words if runs[0].config[w] != usual.get(w)]
        caption = "Options that are not at their default, including the run's own sizes and statistics."
    else:
        told = [w for w in words if len({json.dumps(run.config.get(w)) for run in runs}) > 1]
        caption = "Options in which the runs differ."
    rows = [[w, *(_show(run.config.get(w)) for run in runs)] for w in words]
    short = [row for row in rows if row[0] in told]
    head = ["option", *(run.label for run in runs)]
    title = "Options not at their default" if len(runs) == 1 else "Options that differ"
    out: list[Table | Text] = [Table(head, short, caption, left=len(head), title=title)] if short else []
    if not short and len(runs) > 1:
        out.append(Text("The runs have exactly the same config."))
    marked = frozenset(i for i, w in enumerate(words) if w in told)
    raw = [[w, *(json.dumps(run.config.get(w)) for run in runs)] for w in words]
    out.append(Table(head, rows, "", len(head), marked, f"All {len(words)} options", ("config.csv", head, raw)))
    return out


def environment(runs: Sequence[RunFiles]) -> Table | None:
    """Versions and hardware; rows in which the runs differ are marked."""
    known = [run for run in runs if run.summary.get("environment")]
    if not known:
        return None
    words = list(dict.fromkeys(w for run in known for w in run.summary["environment"]))
    rows = [[w, *(str(run.summary["environment"].get(w, ABSENT)) for run in known)] for w in words]
    marked = frozenset(i for i, row in enumerate(rows) if len(set(row[1:])) > 1)
    head = ["version or device", *(run.label for run in known)]
    return Table(head, rows, left=len(known) + 1, marked=marked, title="Environment")


AUGMENTING = ("augment.", "loss.label_smoothing", "model.drop_rate", "model.drop_path_rate", "model.attn_drop_rate",
              "model.proj_drop_rate", "distill.", "ema.")  # fmt: skip


def augmentations(runs: Sequence[RunFiles]) -> Table | None:
    """The options of augmentation and regularisation that are in use in any of the runs; None where nothing is."""
    usual = defaults()
    words = list(dict.fromkeys(w for run in runs for w in run.config if w.startswith(AUGMENTING)))
    used = [w for w in words if any((run.config.get(w) or 0) != (usual.get(w) or 0) for run in runs)]
    if not used:
        return None
    rows = [[w, *(_show(run.config.get(w)) for run in runs)] for w in used]
    caption = "Options of augmentation and regularisation that are in use; all others are off."
    return Table(["option", *(run.label for run in runs)], rows, caption, left=len(runs) + 1)


def _class_size(run: RunFiles, k: int) -> int | None:
    return None if run.class_sizes is None else int(run.class_sizes[k])


def class_table(runs: Sequence[RunFiles], scores: Sequence[np.ndarray]) -> list[Table]:
    """Precision, recall and F1 of each class, hardest first; of several runs F1 alone, the rest in the CSV."""
    names, mean = runs[0].class_names, np.mean([s[:, 2] for s in scores], axis=0)
    order = np.lexsort((mean, scores[0][:, 3] == 0))  # those without test images last

    def cell(k: int, value: float) -> str:
        return f"{value:.3f}" if scores[0][k, 3] else ABSENT

    if len(runs) == 1:
        head = ["class", "precision", "recall", "F1", "images"]
        rows = [[names[k], *(cell(k, v) for v in scores[0][k, :3]), f"{scores[0][k, 3]:.0f}"] for k in order]
    else:
        head = ["class", *(f"F1 {run.label}" for run in runs), "images"]
        rows = [[names[k], *(cell(k, s[k, 2]) for s in scores), f"{scores[0][k, 3]:.0f}"] for k in order]
    raw = [
        [run.label, k, names[k], *map(float, s[k, :3]), int(s[k, 3]), _class_size(run, k)]
        for run, s in zip(runs, scores, strict=True)
        for k in range(len(names))
    ]
    columns = ["run", "label", "class", "precision", "recall", "f1", "images", "train_images"]
    csv = ("classes.csv", columns, raw)
    if len(rows) <= HARDEST + 2:
        return [Table(head, rows, csv=csv, title="Classes, hardest first", paste="table_classes")]
    title = f"The {HARDEST} hardest of {len(rows)} classes"
    first = Table(head, rows[:HARDEST], title=title, paste="table_classes")
    return [first, Table(head, rows, folded=f"All {len(rows)} classes, hardest first", csv=csv)]
