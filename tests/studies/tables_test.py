"""The tables of a study's report, of runs that nobody trained."""

import numpy as np
import pytest

from jaxvit.reports.runs import read_run
from jaxvit.studies import Row, tables
from tests.helpers.fake_runs import write_run


def result(root, row, skill, **record):
    """A row with one run, and the accuracy of that run in per cent."""
    path = write_run(root / row.name / "seed0", classes=4, skill=skill)
    with np.load(path / "predictions.npz") as stored:
        accuracy = 100 * (stored["logits"].argmax(1) == stored["labels"]).mean()
    return tables.Result(row, [read_run(path, row.name)], {f"{row.name}/seed0": record}, {}), accuracy


def test_the_methods_of_a_subject_stand_in_one_line(tmp_path):
    probe = Row(name="p", label="Cat, probe", subject="Cat", part="Probe", neighbours=7)
    tuned = Row(name="t", label="Cat, tuned", subject="Cat", part="Tuned")
    other = Row(name="o", label="Dog, tuned", subject="Dog", part="Tuned")
    (a, first), (b, second), (c, third) = (
        result(tmp_path, probe, 1.0, knn_accuracy=0.25), result(tmp_path, tuned, 2.0), result(tmp_path, other, 3.0),
    )  # fmt: skip
    table = tables.by_subject([a, b, c])
    assert table is not None
    assert table.columns[1:] == ["7 nearest neighbours", "Probe", "Tuned"]
    assert table.rows == [
        ["Cat", "25.00", f"{first:.2f}", f"{second:.2f}"],
        ["Dog", tables.ABSENT, tables.ABSENT, f"{third:.2f}"],
    ]
    assert table.csv and table.csv[2][0][1:] == [pytest.approx(25.0), pytest.approx(first), pytest.approx(second)]
    assert tables.by_subject([result(tmp_path, Row(name="x", label="X"), 1.0)[0]]) is None
