"""What pictures are said to show: their figures are those of the data."""

import numpy as np

from jaxvit.reports import figures, numbers, words
from jaxvit.reports.runs import read_run
from tests.helpers.fake_runs import write_run


def test_a_confusion_matrix_in_words(tmp_path):
    run = read_run(write_run(tmp_path / "a", classes=3, names=["cat", "dog", "emu"]), "a")
    counts = np.array([[90, 10, 0], [34, 60, 6], [1, 0, 99]])
    text = words.confusion(run, counts, shares=True)
    assert "run a" in text and "83.0 % on the diagonal" in text and "most confused: dog as cat, 34 times" in text
    assert "once" in words.confusion(run, np.array([[9, 1, 0], [0, 9, 0], [0, 0, 9]]), shares=False)
    assert "no confusions" in words.confusion(run, np.eye(3, dtype=int), shares=False)


def test_curves_and_classes_in_words(tmp_path):
    run = read_run(write_run(tmp_path / "a", epochs=3), "a")
    drawn = [("a", kind, x, y) for _, kind, x, y in figures.lines("accuracy", [run])]
    text = words.curves("accuracy", "Accuracy", drawn)
    assert "a, val: 70.0 % at epoch 3" in text and "highest" not in text
    falling = words.curves("loss", "Loss", [("a", "validation", [1, 2, 3], [2.0, 0.5, 0.75])])
    assert "0.75 at epoch 3, lowest 0.5 at epoch 2" in falling
    f1 = numbers.per_class(run.labels, run.predictions, 4)[:, 2]
    text = words.class_bars(run, np.array([0.5, 0.25, 1.0, f1[3]]))
    assert "lowest 0.25 for class 1" in text and "highest 1.00 for class 2" in text
