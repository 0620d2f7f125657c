"""What is kept of a job's files: a small record, checked for being whole and possible.

A record is a JSON file results/gpu/PACKET/JOB.json: the job, its command, commit, hardware, versions, and `found`.
"""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.gpu.jobs import Job

HOME = Path("results/gpu")


class Damaged(Exception):
    """Results cannot be used; the message says which and why, in one line."""


def condense(job: Job, home: Path) -> dict[str, Any]:
    """The figures of a job from its files below `home`; raises Damaged."""
    try:
        found = KINDS[job.kind](job, home)
    except FileNotFoundError as error:
        raise Damaged(f"job {job.name}: no file {Path(str(error.filename)).relative_to(home)}") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"job {job.name}: its files are damaged ({type(error).__name__}: {error})") from None
    _check(found, job.name)
    return found


def load(root: Path, packet: str, job: str) -> dict[str, Any] | None:
    """A record that is there."""
    path = root / HOME / packet / f"{job}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _check(value: Any, where: str) -> None:
    """Raises Damaged where a number cannot be: not finite, a share above 1, a rate or a time below 0."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check(inner, f"{where}.{name}")
    elif isinstance(value, list):
        for inner in value:
            _check(inner, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Damaged(f"{where} is {value}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        word = where.rpartition(".")[2]
        if word.endswith("accuracy") and not 0 <= value <= 1:
            raise Damaged(f"{where} is {value}; an accuracy is a fraction")
        if word.endswith(("_seconds", "images_per_second", "median")) and value < 0:
            raise Damaged(f"{where} is {value}; it cannot be below 0")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _only(words: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: words[name] for name in names if name in words}


def _need(words: dict[str, Any], *names: str) -> None:
    """Raises KeyError with the first name that is not there."""
    lacking = [name for name in names if name not in words]
    if lacking:
        raise KeyError(lacking[0])


def _bench(job: Job, home: Path) -> dict[str, Any]:
    whole = _json(home / f"{job.name}.json")
    if not whole["results"]:
        raise ValueError("no row")
    rows = [{word: value for word, value in row.items() if word != "calls"} for row in whole["results"]]
    for row in rows:
        if row["images_per_second"]["median"] <= 0:
            raise ValueError("a rate of 0")
    found = {"complete": whole["complete"], "ceiling_flops": whole["ceiling_flops"], "rows": rows}
    found |= {"environment": _only(whole["environment"], "device", "backend", "jax", "jaxlib", "flags", "when")}
    if job.timm:
        found["timm"] = _only(whole.get("timm", {}), "versions", "ratios")
    return found


def _profile(job: Job, home: Path) -> dict[str, Any]:
    whole = _json(home / f"{job.name}.json")
    found = {word: value for word, value in whole.items() if word != "longest"}
    _need(found, "kernel_seconds", "step_seconds", "by_part")
    return {**found, "longest": whole["longest"][:10]}


def _kernels(job: Job, home: Path) -> dict[str, Any]:
    rows = _json(home / f"{job.name}.json")
    return {"rows": rows, "good": bool(rows) and all(row["good"] for row in rows)}


def _steps(job: Job, home: Path) -> dict[str, Any]:
    found = _json(home / job.name / f"{job.of}.json")
    return {**found, "ratios": dict(found["ratios"])}


def _train(job: Job, home: Path) -> dict[str, Any]:
    return _run(home / "runs" / job.name)


def _run(run: Path) -> dict[str, Any]:
    """A training run's summary, its validation curve, and what the same bits are judged by."""
    whole = _json(run / "summary.json")
    found = _only(whole, "model", "pretrained", "parameters", "trainable_parameters", "gmacs", "num_train", "num_val",
                  "num_test", "epochs", "stopped_early", "batch_size", "compile_seconds", "train_seconds",
                  "seconds_per_epoch", "images_per_second", "peak_memory_bytes", "best", "final",
                  "command")  # fmt: skip
    _need(found, "train_seconds", "epochs")
    _need(found["final"], "test/accuracy")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["validation"] = [[line["epoch"], line["val/accuracy"]] for line in lines if "val/accuracy" in line]
    config = _json(run / "config.json")
    found["config"] = {word: config[word] for word in ("seed", "num_epochs", "dtype", "deterministic")}
    found["metrics_sha256"] = hashlib.sha256((run / "metrics.jsonl").read_bytes()).hexdigest()
    if (run / "predictions.npz").exists():
        import numpy as np

        with np.load(run / "predictions.npz") as arrays:
            found["logits_sha256"] = hashlib.sha256(arrays["logits"].tobytes()).hexdigest()
    return found


def _study(job: Job, home: Path) -> dict[str, Any]:
    """Of each row and seed: what became of it, accuracy and times."""
    whole = _json(home / "runs" / job.name / "study.json")
    rows: dict[str, list[dict[str, Any]]] = {}
    for key, run in whole["runs"].items():
        row, _, seed = key.partition("/seed")
        entry: dict[str, Any] = {"seed": int(seed), "status": run["status"]}
        if run["status"] == "done":
            summary = _json(home / "runs" / job.name / row / f"seed{seed}" / "summary.json")
            entry |= _only(summary, "epochs", "train_seconds", "seconds_per_epoch", "parameters", "gmacs", "command")
            entry["test_accuracy"] = summary["final"]["test/accuracy"]
        rows.setdefault(row, []).append(entry)
    bad = [f"{row} seed {run['seed']} is {run['status']}" for row, runs in rows.items() for run in runs
           if run["status"] not in ("done", "diverged")]  # fmt: skip
    if bad or not rows:
        raise ValueError(bad[0] if bad else "no row")
    return {"study": whole["study"], "rows": rows}


def _seeds(job: Job, home: Path) -> dict[str, Any]:
    found = _json(home / "runs" / job.name / "seeds.json")
    left_out = ("environment", "command")
    runs = [{word: value for word, value in run.items() if word not in left_out} for run in found["runs"]]
    if not runs:
        raise ValueError("no seed")
    return {**found, "runs": runs}


KINDS: dict[str, Callable[[Job, Path], dict[str, Any]]] = {
    "bench": _bench, "profile": _profile, "kernels": _kernels, "step_ratios": _steps, "train": _train,
    "study": _study, "seeds": _seeds,
}  # fmt: skip
