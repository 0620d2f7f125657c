"""Reads the files of runs, and refuses what does not belong into one report."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit import config as config_lib
from jaxvit.data import imagenet
from jaxvit.errors import UserError
from jaxvit.runtime import escape
from jaxvit.runtime.paths import expand, near
from jaxvit.step import multi_label
from jaxvit.workdir import run_files


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What the files of one run say; parts that a run does not have yet are None or empty."""

    path: Path
    label: str  # unique within a report
    config: dict[str, Any]  # flat: "optim.learning_rate" -> value
    class_names: list[str]
    epochs: list[dict[str, float]]  # a line per finished epoch
    lines: list[dict[str, float]]  # all lines of metrics.jsonl, by step
    summary: dict[str, Any]  # {} while the run is unfinished
    logits: np.ndarray | None = None  # float32 [n, classes], of the test split
    labels: np.ndarray | None = None  # int [n]; of several labels per image 0 and 1 [n, classes]
    index: np.ndarray | None = None  # int [n], position in the split that the image is stored in
    names: np.ndarray | None = None  # str [n], of the files, or "test.npz[30]"; runs of before have none
    samples: dict[str, np.ndarray] | None = None  # image uint8 [n, h, w, c], label, index
    thresholds: np.ndarray | None = None  # of several labels per image: the probability that says a class, [classes]

    @property
    def slug(self) -> str:
        """The label as part of file names."""
        return escape.file_name(self.label)

    @property
    def fixed_samples(self) -> dict[str, np.ndarray]:
        """The samples that lie evenly over the test split, without the mistakes that follow them."""
        assert self.samples is not None
        end = int(self.samples.get("fixed", len(self.samples["image"])))
        return {name: self.samples[name][:end] for name in ("image", "label", "index")}

    def image_name(self, index: int) -> str:
        """What a test image is found by: its file's name, or its place in the data set."""
        if self.names is None or self.index is None:
            return f"image {index}"
        found = np.flatnonzero(self.index == index)
        return str(self.names[found[0]]) if len(found) else f"image {index}"

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.thresholds is not None

    @property
    def class_sizes(self) -> np.ndarray | None:
        """Training images of each class, int [k]; runs of before do not say."""
        sizes = self.summary.get("train_of_each_class")
        return np.asarray(sizes, int) if sizes and len(sizes) == len(self.class_names) else None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.summary)

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of each test image, int [n]."""
        assert self.logits is not None
        return self.logits.argmax(axis=-1)

    @property
    def correct(self) -> np.ndarray:
        """Which test images the run has right, bool [n]; of several labels all of them."""
        if self.thresholds is not None and self.logits is not None and self.labels is not None:
            return multi_label.are_right(self.logits, self.labels, self.thresholds)
        return self.predictions == self.labels


def read_runs(workdirs: Sequence[str | os.PathLike[str]]) -> list[RunFiles]:
    """Returns the runs in the order given; raises UserError for what is not a run, or for runs of different data."""
    if not workdirs:
        raise UserError("no --workdir; expected the directory of a run, for example --workdir runs/digits")
    paths = [_directory(workdir) for workdir in workdirs]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"the run {str(path)!r} was given twice; expected different runs")
    runs = [read_run(path, label) for path, label in zip(paths, _labels(paths), strict=True)]
    for run in runs[1:]:
        _check_same_data(runs[0], run)
    return runs


def _directory(workdir: str | os.PathLike[str]) -> Path:
    path = expand(workdir, "workdir")
    if not path.is_dir():
        raise UserError(f"no run in {os.fspath(workdir)!r}: no such directory.{near(path)}")
    return path.resolve()


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for depth in range(1, max(len(p.parts) for p in paths) + 1):
        labels = ["/".join(p.parts[-depth:]) for p in paths]
        if len(set(labels)) == len(labels):
            break
    return labels


def read_run(path: Path, label: str) -> RunFiles:
    """Returns what the files of a run say; raises UserError where they are missing or damaged."""
    run_files.refuse_weights(path)
    run_files.refuse_damaged(path)
    config = _flat(run_files.read_json(path / "config.json"))
    if "data.name" not in config or "model.name" not in config:
        raise UserError(
            f"{str(path / 'config.json')!r} does not name a model and data; check that {str(path)!r} is a run"
        )
    class_names = imagenet.readable([str(name) for name in run_files.read_json(path / "classes.json", list)])
    summary = run_files.read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    lines = read_lines(path / "metrics.jsonl")
    epochs = [line for line in lines if "train/loss" in line or "val/loss" in line]
    arrays = _read_npz(path / "predictions.npz", ("logits", "labels", "index"), ("names",))
    samples = _read_npz(path / "samples.npz", ("image", "label", "index"), ("fixed",))
    known = {"samples": samples, "thresholds": run_files.read_thresholds(path, len(class_names)), **(arrays or {})}
    run = RunFiles(path, label, config, class_names, epochs, lines, summary, **known)
    if arrays:
        _check_predictions(run)
    return run


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def read_lines(path: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl; a last one that is cut off, as after a power failure, is left out."""
    if not path.exists():
        return []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            lines.append({**line, "step": int(line["step"]), "epoch": int(line["epoch"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            if number == len(texts):
                break
            raise UserError(
                f"{str(path)!r} is damaged in line {number}; expected a JSON object with step and epoch"
            ) from None
    return sorted(lines, key=lambda line: line["step"])


def _read_npz(path: Path, names: Sequence[str], perhaps: Sequence[str] = ()) -> dict[str, np.ndarray] | None:
    return run_files.read_npz(path, names, perhaps) if path.exists() else None


def _check_predictions(run: RunFiles) -> None:
    logits, labels, index = run.logits, run.labels, run.index
    assert logits is not None and labels is not None and index is not None
    k, where = len(run.class_names), str(run.path / "predictions.npz")
    expected = logits.shape if run.several else index.shape
    if logits.ndim != 2 or logits.shape[1] != k or labels.shape != expected or index.shape != logits.shape[:1]:
        shape = f"[n, {k}]" if run.several else "[n]"
        raise UserError(
            f"{where!r} holds logits of shape {logits.shape} and labels {labels.shape}; expected [n, {k}], {shape}"
        )
    if run.names is not None and run.names.shape != index.shape:
        raise UserError(f"{where!r} holds {run.names.shape} names for {len(labels)} images")
    if not len(labels):
        raise UserError(f"{where!r} holds no images; expected at least one")
    if not np.isfinite(logits).all():
        raise UserError(f"{where!r} holds logits that are not finite; did the training diverge?")
    if labels.min() < 0 or labels.max() >= (2 if run.several else k):
        bad = labels.max() if labels.max() >= k else labels.min()
        raise UserError(f"{where!r} holds the label {bad}; the run has classes 0 to {k - 1}")


def same_test_split(a: RunFiles, b: RunFiles) -> bool:
    """Whether two runs predicted the same test images in the same order."""
    return a.logits is not None and b.logits is not None and (
        np.array_equal(a.index, b.index) and np.array_equal(a.labels, b.labels)  # type: ignore[arg-type]
    )  # fmt: skip


def _check_same_data(a: RunFiles, b: RunFiles) -> None:
    """Raises UserError where two runs are of different data sets."""
    if reason := other_data(a, b):
        raise UserError(
            f"the runs {a.label!r} and {b.label!r} use different data sets ({reason})\n"
            "a report compares runs on the same data; write one report per data set"
        )


def other_data(a: RunFiles, b: RunFiles) -> str:
    """How two runs are of different data sets: by class names, by name, by test images; "" where nothing says so."""
    names = [run.config["data.name"] for run in (a, b)]
    both = a.logits is not None and b.logits is not None
    shared = len(a.labels) == len(b.labels) if both else False  # type: ignore[arg-type]
    same = [a.config.get(word) == b.config.get(word) for word in ("data.fold", "data.test_limit")]
    whole = both and a.finished and b.finished and not any(run.config.get("fast_dev_run") for run in (a, b))
    if a.class_names == b.class_names and same_test_split(a, b):
        return ""  # the same images, wherever they were read from
    if a.class_names != b.class_names:
        reason = f"{names[0]} with {len(a.class_names)} classes, {names[1]} with {len(b.class_names)}"
        return reason + ("" if len(a.class_names) != len(b.class_names) else " others")
    if names[0] != names[1]:
        return f"{names[0]} and {names[1]}"
    if shared and same[0]:
        return f"both {names[0]}, with different test labels"
    if whole and all(same):
        return f"both {names[0]}, with {len(a.labels):,} and {len(b.labels):,} test images"  # type: ignore[arg-type]
    return ""  # a dry run, or an unfinished one: nothing says that they differ


def defaults() -> dict[str, Any]:
    """Every config option with its default, flat."""
    return _flat(config_lib.to_dict(config_lib.default()))
