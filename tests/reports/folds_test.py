"""The folds of a cross-validation in one report."""

import csv

import numpy as np
import pytest

from jaxvit import reports
from jaxvit.errors import UserError
from jaxvit.reports import folds, runs
from tests.helpers.fake_runs import write_run


def test_folds_are_pooled(tmp_path):
    from sklearn.metrics import balanced_accuracy_score, f1_score

    for i in (1, 2, 3):
        write_run(tmp_path / f"f{i}", n=40 + 4 * (i == 3), skill=float(i), data__fold=f"{i}/3")
        with np.load(tmp_path / f"f{i}" / "predictions.npz") as found:
            arrays = dict(found)
        name = "labels" if "labels" in arrays else "label"
        arrays[name] = np.roll(arrays[name], i)  # other images: other labels in the same places
        np.savez(tmp_path / f"f{i}" / "predictions.npz", **arrays)
    paths = [tmp_path / f"f{i}" for i in (1, 2, 3)]
    read = runs.read_runs(paths)  # folds of equal size are not taken for another data set
    hits = [run.logits.argmax(-1) == run.labels for run in read]
    found = folds.table(folds.recipes(read))
    assert found.rows[0][1] == "3 of 3" and found.rows[0][5] == "124"
    reports.write_report(paths, tmp_path / "out")
    with open(tmp_path / "out" / "folds.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["all_images"]) == pytest.approx(np.concatenate(hits).mean())
    labels, said = (np.concatenate(x) for x in zip(*((run.labels, run.logits.argmax(-1)) for run in read), strict=True))
    assert float(row["balanced_accuracy"]) == pytest.approx(balanced_accuracy_score(labels, said))
    assert float(row["macro_f1"]) == pytest.approx(f1_score(labels, said, average="macro"))
    assert float(row["mean"]) == pytest.approx(np.mean([h.mean() for h in hits]))
    assert float(row["sd"]) == pytest.approx(np.std([h.mean() for h in hits], ddof=1))
    assert folds.table(folds.recipes(read[:1])) is None


def test_other_data_stay_refused(tmp_path):
    write_run(tmp_path / "a", data__fold="1/2", data="digits")
    write_run(tmp_path / "b", data__fold="2/2", data="cifar10", skill=1.0)
    with np.load(tmp_path / "b" / "predictions.npz") as found:
        arrays = dict(found)
    name = "labels" if "labels" in arrays else "label"
    arrays[name] = np.roll(arrays[name], 1)
    np.savez(tmp_path / "b" / "predictions.npz", **arrays)
    with pytest.raises(UserError, match="different data sets"):
        runs.read_runs([tmp_path / "a", tmp_path / "b"])


def test_folds_of_several_labels_against_scikit_learn(tmp_path):
    from sklearn.metrics import average_precision_score

    logits, labels, rng = [], [], np.random.default_rng(0)
    for i in (1, 2):
        path = write_run(tmp_path / f"f{i}", classes=4, n=30, data__fold=f"{i}/2", loss__name="bce")
        (path / "thresholds.json").write_text("[0.5, 0.4, 0.3, 0.6]")
        labels.append((rng.random((30, 4)) < 0.4).astype(np.uint8))
        logits.append((rng.normal(size=(30, 4)) + labels[-1]).astype(np.float32))
        np.savez(path / "predictions.npz", logits=logits[-1], labels=labels[-1], index=2 * np.arange(30) + i)
    (found,) = folds.table(folds.recipes(runs.read_runs([tmp_path / "f1", tmp_path / "f2"]))).csv[2]
    of_each = [average_precision_score(y, x) for x, y in zip(logits, labels, strict=True)]
    assert found[3] == pytest.approx(np.mean(of_each)) and found[4] == pytest.approx(np.std(of_each, ddof=1))
    assert found[5] == pytest.approx(average_precision_score(np.concatenate(labels), np.concatenate(logits)))
