"""From a record to the text of a table's cell: FIGURES by name."""

import statistics
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]
CUT_OFF = "timm unfinished"  # our half was measured, and timm's was not


def _row(record: Record, mode: str) -> dict[str, Any]:
    return next((row for row in record["found"]["rows"] if row["mode"] == mode), {})


def _ratio(record: Record, mode: str, kind: str) -> float | None:
    ratios = record["found"].get("timm", {}).get("ratios", [])
    return next((entry.get(kind) for entry in ratios if entry["mode"] == mode), None)


def number(value: float | None, form: str = ",.0f", unit: str = "") -> str:
    """A number in this form; nothing where there is none."""
    return "" if value is None else f"{value:{form}}{unit}"


def percent(values: list[float]) -> str:
    """Shares as per cent: the mean, and from two on the standard deviation."""
    mean = f"{100 * statistics.fmean(values):.2f} %"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _rate(mode: str) -> Callable[[Record], str]:
    return lambda record: number(_row(record, mode).get("images_per_second", {}).get("median"))


def _timm(mode: str) -> Callable[[Record], str]:
    return lambda record: number(_ratio(record, mode, "compiled"), ".2f") or CUT_OFF


def _timm_rate(record: Record) -> str:
    return number(_ratio(record, "train", "compiled_images_per_second")) or CUT_OFF


def _share(mode: str) -> Callable[[Record], str]:
    def text(record: Record) -> str:
        mfu = _row(record, mode).get("mfu")
        return number(None if mfu is None else 100 * mfu, ".0f", " %")

    return text


def _latency(record: Record) -> str:
    value = _row(record, "infer").get("latency_seconds", {}).get("median")
    return number(None if value is None else 1e3 * value, ".2f", " ms")


def _memory(record: Record) -> str:
    row = _row(record, "train")
    peak = row.get("memory_peak_bytes") or row.get("memory_planned_bytes")
    return number(None if peak is None else peak / 2**30, ".1f", " GiB")


def _batch(record: Record) -> str:
    return number(_row(record, "train").get("batch_size"))


def _compilation(kind: str) -> Callable[[Record], str]:
    return lambda record: number(_row(record, "train")["compile_seconds"][kind], ".1f", " s")


def _step(record: Record) -> str:
    return number(1e3 * _row(record, "train")["step_seconds"], ".1f", " ms")


def _gap(record: Record) -> str:
    return number(100 * _row(record, "loop")["gap"], ".1f", " %")


def _parts(record: Record) -> str:
    found = record["found"]
    longest = sorted(found["by_part"].items(), key=lambda pair: -pair[1])[:4]
    return ", ".join(f"{name} {100 * value / found['kernel_seconds']:.0f} %" for name, value in longest)


def _busy(record: Record) -> str:
    found = record["found"]
    return number(100 * found["kernel_seconds"] / found["step_seconds"], ".0f", " %")


def _right(record: Record) -> str:
    return "yes" if record["found"]["good"] else "NO"


def _largest(dtype: str) -> Callable[[Record], str]:
    def text(record: Record) -> str:
        windows = [row for row in record["found"]["rows"] if "float32_out" in row]  # cuDNN computes in 16 bits only
        return f"{max(row[f'{dtype}_{word}'] for row in windows for word in ('out', 'dqkv', 'dbias')):.1e}"

    return text


def _method(pair: str) -> Callable[[Record], str]:
    return lambda record: number(record["found"]["ratios"][pair], ".2f")


def _accuracy(record: Record) -> str:
    return percent([record["found"]["final"]["test/accuracy"]])


def _training(record: Record) -> str:
    return number(record["found"]["train_seconds"], ",.0f", " s")


def _epochs(record: Record) -> str:
    return number(record["found"]["epochs"])


def _mean(word: str, form: str, unit: str = "") -> Callable[[Record], str]:
    return lambda record: number(record["found"].get(word, {}).get("mean"), form, unit)


def _seeds(record: Record) -> str:
    return percent([run["test_accuracy"] for run in record["found"]["runs"]])


def _mirrored(record: Record) -> str:
    values = [run.get("mirrored_accuracy") for run in record["found"]["runs"]]
    return "" if None in values else percent(values)


def _reached(record: Record) -> str:
    return f"{record['found']['reached']} of {len(record['found']['runs'])}"


def _study(row: str) -> Callable[[Record], str]:
    def text(record: Record) -> str:
        runs = record["found"]["rows"].get(row, [])
        values = [run["test_accuracy"] for run in runs if "test_accuracy" in run]
        return percent(values) if values else "diverged" if runs else ""

    return text


def _hardware(record: Record) -> str:
    return record["hardware"].replace("NVIDIA ", "").replace(" HBM3", "")


FIGURES: dict[str, Callable[[Record], str]] = {
    "hardware": _hardware,
    "train rate": _rate("train"), "infer rate": _rate("infer"), "train ratio": _timm("train"),
    "timm's rate": _timm_rate, "train mfu": _share("train"),
    "infer mfu": _share("infer"), "latency": _latency, "memory": _memory, "batch": _batch,
    "cold": _compilation("cold"), "warm": _compilation("warm"), "step": _step,
    "loop rate": _rate("loop"), "gap": _gap, "parts": _parts, "busy": _busy, "right": _right,
    "float32 error": _largest("float32"), "bfloat16 error": _largest("bfloat16"),
    "sam": _method("sam / plain"), "asam": _method("asam / sam"), "head only": _method("plain / head_only"),
    "accuracy": _accuracy, "training": _training, "epochs": _epochs,
    "seeds' accuracy": _seeds, "seeds' mirrored": _mirrored, "seeds' training": _mean("train_seconds", ".1f", " s"),
    "seeds' compilation": lambda record: number(record["found"]["runs"][0]["compile_seconds"], ".0f", " s"),
    "seeds' time to target": _mean("seconds_to_target", ".1f", " s"), "reached": _reached,
    "seeds' process": _mean("wall_seconds_warm", ".0f", " s"),
}  # fmt: skip


def same_bits(record: Record, other: Record) -> str:
    """Whether two trainings gave the same metrics and the same logits, bit for bit."""
    words = ("metrics_sha256", "logits_sha256")
    return "yes" if all(record["found"][word] == other["found"][word] for word in words) else "NO"


def figure(name: str, record: Record) -> str:
    """The text of a figure; `row NAME` is a study's row."""
    return _study(name.removeprefix("row "))(record) if name.startswith("row ") else FIGURES[name](record)
