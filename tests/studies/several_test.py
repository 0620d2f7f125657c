"""The report of a study on several labels per image: its own figures and sections, none that need one label."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from jaxvit.reports import several
from jaxvit.reports.runs import read_run
from jaxvit.studies import Row, Study, report
from jaxvit.studies.grids import _of_all_classes
from jaxvit.studies.ledger import Ledger
from tests.helpers.fake_runs import write_run


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two rows with two seeds each, of which nothing was trained."""
    root = tmp_path_factory.mktemp("several")
    options = {"smoke": False, "epochs": None, "data": None, "overrides": []}
    ledger = Ledger(root, "tiny", options)
    costs = {"model": "m", "image_size": [8, 8], "parameters": 1000, "macs": 460_000}
    for row in ("a", "b"):
        ledger.content["costs"][row] = costs
        for seed in (0, 1):
            path = write_run(root / row / f"seed{seed}", classes=3, seed=seed, names=["x", "y", "z"])
            rng = np.random.default_rng(seed)
            labels = (rng.random((40, 3)) < (0.5, 0.3, 0.2)).astype(np.uint8)
            logits = rng.normal(size=(40, 3)).astype(np.float32) + 2 * labels - 1
            np.savez(path / "predictions.npz", logits=logits, labels=labels, index=np.arange(40))
            with np.load(path / "samples.npz") as samples:
                np.savez(path / "samples.npz", image=samples["image"], label=labels[:12], index=np.arange(12))
            (path / "thresholds.json").write_text("[0.5, 0.4, 0.3]")
            ledger.content["runs"][f"{row}/seed{seed}"] = {"status": "done", "reason": ""}
    rows = [Row(name=name, label=f"Row {name}") for name in ("a", "b")]
    columns = ("mAP", "macro_f1", "micro_f1", "exact_match", "accuracy")
    return root, Study(title="Scenes", source="none", rows=rows, columns=columns), ledger


def test_the_report_has_the_figures_and_sections_of_several_labels(study, tmp_path):
    root, what, ledger = study
    report.write(what, tmp_path / "tiny.py", root, ledger)
    page = (root / "report/report.md").read_text()
    titles = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert {"Published and ours", "Classes", "Precision and recall", "Worst mistakes", "Training"} <= set(titles)
    assert not {"Confusion", "Differences", "How many images"} & set(titles)
    assert "Our top-1" not in page and "Training images are augmented" not in page and "| 0.46 |" in page
    with open(root / "report/published_and_ours.csv", newline="") as file:
        row = next(csv.DictReader(file))
    found = {key: [] for key in ("mAP", "macro_f1", "exact_match")}
    for seed in (0, 1):
        with np.load(root / f"a/seed{seed}/predictions.npz") as stored:
            truth, logits = stored["labels"], stored["logits"]
        said = 1 / (1 + np.exp(-logits)) >= (0.5, 0.4, 0.3)
        found["mAP"].append(metrics.average_precision_score(truth, logits))
        found["macro_f1"].append(metrics.f1_score(truth, said, average="macro"))
        found["exact_match"].append(metrics.accuracy_score(truth, said))
    for key, values in found.items():
        assert float(row[key]) == pytest.approx(100 * np.mean(values))
    assert row["accuracy"] == ""


def test_the_area_under_the_drawn_steps_is_the_average_precision(study):
    run = read_run(study[0] / "a/seed0", "a")
    (table,) = [block for block in several.curves([run]) if hasattr(block, "csv")]
    for k, name in enumerate(run.class_names):
        points = [(recall, precision) for _, of, _, recall, precision in table.csv[2] if of == name]
        area = sum((x - before) * y for (x, y), before in zip(points, [0.0, *(x for x, _ in points[:-1])], strict=True))
        assert area == pytest.approx(metrics.average_precision_score(run.labels[:, k], run.logits[:, k]))


def test_pictures_are_of_all_classes_about_equally():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    assert np.bincount(labels[_of_all_classes(labels, 5)]).tolist() == [2, 2, 1]
    several_labels = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert _of_all_classes(several_labels, 4).tolist() == [0, 1, 3, 4]


def test_runs_between_which_the_data_changed_are_named(tmp_path):
    runs = [read_run(write_run(tmp_path / row / "seed0", n=n), row) for row, n in (("a", 40), ("b", 40), ("c", 41))]
    (line,) = report.other_data([SimpleNamespace(runs=[run]) for run in runs])
    assert "c/seed0 (both digits, with 40 and 41 test images)" in line
