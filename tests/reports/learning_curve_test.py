"""Accuracy against training images in a report: which runs make a curve, and what is drawn and told."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvit.reports import learning_curve
from jaxvit.reports.blocks import Figure, Table, Text
from jaxvit.reports.runs import read_run
from tests.helpers.fake_runs import write_run

SIZES = {0.05: 60, 0.1: 120, 0.25: 300, 0.5: 600, 1.0: 1200}


def make_run(path, fraction, seed, wrong, *, tests=400, **words):
    """A run with this share of wrong answers."""
    write_run(path, n=tests, seed=seed, skill=100.0, data__fraction=fraction, **words)
    with np.load(path / "predictions.npz") as stored:
        arrays = dict(stored)
    arrays["logits"][: round(wrong * tests)] *= -1
    np.savez(path / "predictions.npz", **arrays)
    summary = json.loads((path / "summary.json").read_text()) | {"num_train": SIZES[fraction]}
    (path / "summary.json").write_text(json.dumps(summary))
    return read_run(path, path.name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two recipes: one at five sizes with two seeds and epochs that make as many steps, one at two sizes."""
    root, made, names = tmp_path_factory.mktemp("runs"), [], []
    for fraction, images in SIZES.items():
        for seed in (0, 1):
            wrong = 2 * images**-0.5 + 0.01 * seed
            path = root / f"vit_{images}_{seed}"
            made.append(make_run(path, fraction, seed, wrong, epochs=round(4 / fraction)))
            names.append(f"ViT, {100 * fraction:g} %")
    for fraction in (0.05, 1.0):
        made.append(make_run(root / f"cnn_{fraction}", fraction, 0, 0.3, optim__learning_rate=0.5))
        names.append(f"CNN, {fraction}")
    made.append(make_run(root / "other", 1.0, 0, 0.3, optim__weight_decay=0.3))
    return made, [*names, "Other"]


def test_runs_that_differ_in_their_images_alone_are_a_curve(runs):
    found = learning_curve.curves(*runs)
    assert [curve.label for curve in found] == ["ViT", "CNN"]
    assert list(found[0].points) == list(SIZES.values()) and found[0].test_images == 400
    assert found[0].points[300] == pytest.approx([1 - round(400 * (2 * 300**-0.5 + s)) / 400 for s in (0, 0.01)])
    assert [len(values) for values in found[1].points.values()] == [1, 1]


def test_two_lengths_of_training_at_one_size_are_two_curves(runs, tmp_path):
    made, names = runs
    longer = [make_run(tmp_path / f"{f}", f, 0, 0.1, epochs=200) for f in SIZES]
    found = learning_curve.curves([*made[:10], *longer], [*names[:10], *(["longer"] * 5)])
    assert sorted(len(curve.points) for curve in found) == [5]  # the others have no length in common


def test_the_section_has_one_drawing_and_says_what_more_images_give(runs):
    blocks = learning_curve.section(*runs)
    notes = [b.text for b in blocks if isinstance(b, Text) and b.kind == "note"]
    assert notes == ["CNN: no extrapolation; 2 different numbers of training images; the power law needs 4 or more."]
    (figure,) = [b for b in blocks if isinstance(b, Figure)]
    assert "training images" in figure.svg and "stroke-dasharray" in figure.svg and "ViT" in figure.svg
    more, needed, points = [b for b in blocks if isinstance(b, Table)]
    assert more.rows[0][:2] == ["ViT", "1,200"] and len(more.rows) == 1
    times = {row[1]: row for row in more.csv[2]}
    assert [times[k][2] for k in (1, 2, 4, 10)] == [1200, 2400, 4800, 12000]
    for k in (2, 4, 10):
        assert times[k][3] == pytest.approx(1 - 2 * (1200 * k) ** -0.5 - 0.005, abs=0.01)
        assert times[k][4] < times[k][3] < times[k][5]
    marks = [row[1] for row in needed.csv[2]]
    assert marks == [0.95, 0.97, 0.98]
    assert needed.csv[2][0][2] == pytest.approx((2 / 0.045) ** 2, rel=0.3)
    assert len(points.rows) == 7 and points.rows[0][3].startswith("73.75 ± 0.71")


def test_without_different_sizes_there_is_no_section(runs):
    made, names = runs
    assert learning_curve.section(made[:2], names[:2]) == []


def test_the_recipe_trains_as_many_steps_at_every_share():
    from jaxvit.studies import study as studies

    root = Path(__file__).resolve().parents[2]
    study, _ = studies.load(str(root / "configs/studies/how_many_images.py"))
    epochs = {row.words["data.fraction"]: row.words["num_epochs"] for row in study.rows}
    images = [fraction * count for fraction, count in epochs.items()]
    assert len(epochs) >= 4 and max(images) < 1.02 * min(images)
