"""The drawings of a report: what their axes show."""

import json
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxvit.reports import figures
from jaxvit.reports.runs import read_runs
from tests.helpers.fake_runs import write_run


@pytest.fixture
def axes(monkeypatch):
    """The axes of each drawing, in its order."""
    drawn = []

    def draw(make, size=figures.PANEL, layout="constrained"):
        figure = Figure(figsize=size, layout=layout)
        make(figure)
        drawn.append(figure.axes[0])
        return "<svg/>"

    monkeypatch.setattr(figures, "draw", draw)
    return drawn


def write(path, losses, rates, log_every=None):
    """A run of 10 steps an epoch with these means of its epochs, and a line of each so many steps."""
    run = write_run(path, epochs=len(losses))
    lines = [
        {"step": 10 * e, "epoch": e, "train/loss": loss, "val/loss": loss + 0.1, "train/learning_rate": rate}
        for e, (loss, rate) in enumerate(zip(losses, rates, strict=True), 1)
    ]
    for step in range(log_every or 0, 10 * len(losses) + 1, log_every or 10**9):
        lines.append({"step": step, "epoch": 1, "train/batch_loss": 1.0, "train/learning_rate": 1e-3 * step})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def cosine(peak, epochs=20):
    return [0.5 * peak * (1 + math.cos(math.pi * e / epochs)) for e in range(1, epochs + 1)]


def test_the_loss_fills_its_axis(axes, tmp_path):
    figures.curves("loss", read_runs([write(tmp_path / "a", [2.30, 2.28, 2.26], [0.1] * 3)]))
    low, high = axes[0].get_ylim()
    assert 2.2 < low < 2.26 and 2.4 < high < 2.45
    figures.curves("loss", read_runs([write(tmp_path / "b", [2.3, 0.5, 0.001], [0.1] * 3)]))
    assert axes[1].get_ylim()[0] >= 0  # no room for losses that cannot be


def test_means_of_epochs_stand_at_their_epochs(axes, tmp_path):
    figures.curves("learning_rate", read_runs([write(tmp_path / "a", [2, 1, 1], [0.3, 0.2, 0.1], log_every=10)]))
    assert [line.get_xdata().tolist() for line in axes[0].lines] == [[1, 2, 3]]
    assert axes[0].lines[0].get_marker() == "o"


def test_rates_of_single_steps_stand_where_they_were_taken(axes, tmp_path):
    figures.curves("learning_rate", read_runs([write(tmp_path / "a", [2, 1, 1], [0.3, 0.2, 0.1], log_every=2)]))
    (line,) = axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), np.arange(2, 31, 2) / 10)
    np.testing.assert_allclose(line.get_ydata(), 1e-3 * np.arange(2, 31, 2))


def test_recall_stands_at_the_size_of_its_class(axes, tmp_path):
    runs = read_runs([write_run(tmp_path / "a", sizes=(500, 100, 20, 0)), write_run(tmp_path / "b")])
    assert figures.recall_by_size(runs, [np.array([1.0, 0.8, 0.5, 0.0]), np.ones(4)])
    (line,) = axes[0].lines  # the other run does not say how large its classes were
    assert line.get_xdata().tolist() == [500, 100, 20, 0] and line.get_ydata().tolist() == [1.0, 0.8, 0.5, 0.0]
    assert figures.recall_by_size(runs[1:], [np.ones(4)]) is None


def test_names_of_classes_do_not_cover_each_other(axes, tmp_path):
    sizes, recall = (1, 12, 13, 12, 2), np.array([np.nan, 1.0, 1.0, 0.3, 0.1])
    names = ["alone", "bären & co", "Œuvre", "Hunde", "two"]
    (run,) = read_runs([write_run(tmp_path / "a", sizes=sizes, classes=5, names=names)])
    figures.recall_by_size([run], [recall])
    axes[0].figure.draw_without_rendering()
    assert [text.get_text() for text in axes[0].texts] == [
        "two",
        "Hunde",
        "bären & co\nŒuvre",
    ]  # the first is not tested
    boxes, inside = [text.get_window_extent() for text in axes[0].texts], axes[0].get_window_extent()
    assert not boxes[1].overlaps(boxes[2])
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and box.y1 <= inside.y1 for box in boxes)


def test_one_epoch_has_whole_ticks(axes, tmp_path):
    figures.curves("learning_rate", read_runs([write(tmp_path / "a", [2], [0.3])]))
    low, high = axes[0].get_xlim()
    assert [tick for tick in axes[0].get_xticks() if low <= tick <= high] == [1]


def test_rates_a_decade_apart_have_a_logarithmic_axis(axes, tmp_path):
    losses = [1.0] * 20
    runs = [write(tmp_path / name, losses, cosine(peak)) for name, peak in (("sgd", 0.1), ("adamw", 5e-4))]
    figures.curves("learning_rate", read_runs(runs))
    low, high = axes[0].get_ylim()
    assert axes[0].get_yscale() == "log" and 1e-7 < low < 5e-6 and high > 0.1
    for run in runs:  # the end of a cosine, zero, is no reason
        figures.curves("learning_rate", read_runs([run]))
    falls = write(tmp_path / "steps", losses, [0.1] * 5 + [1e-3] * 10 + [1e-4] * 5)
    figures.curves("learning_rate", read_runs([falls]))
    assert [axis.get_yscale() for axis in axes[1:]] == ["linear", "linear", "log"]


def test_long_names_stand_whole_in_the_legend(axes, tmp_path):
    names = [f"a name of a run, number {i}" for i in range(3)]
    figures.curves("loss", read_runs([write(tmp_path / name, [2, 1], [0.1] * 2) for name in names]))
    assert axes[0].get_legend_handles_labels()[1] == names
    (legend,) = axes[0].figure.legends
    figure = axes[0].figure
    figure.draw_without_rendering()
    box, page = legend.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1


@pytest.mark.parametrize("k", [2, 12, 20, 21, 60])
def test_a_matrix_is_as_wide_as_its_title(axes, k):
    figures.matrix(np.eye(k), [f"class {i}" for i in range(k)], "a run: share of each true class (%)", shares=True)
    figure = axes[0].figure
    figure.draw_without_rendering()
    assert axes[0].title.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(("shares", "labels"), [(True, ["0", "25", "100 %"]), (False, ["0", "10", "40"])])
def test_the_scale_of_a_matrix_shows_that_its_colours_are_not_linear(axes, shares, labels):
    figures.matrix(np.eye(2) * (1 if shares else 40), ["a", "b"], "a run", shares=shares)
    scale = axes[0].figure.axes[1]
    assert [label.get_text() for label in scale.get_xticklabels()] == labels
    (image,) = axes[0].images
    assert image.norm(scale.get_xticks()).tolist() == [0, 0.5, 1]


def test_numbers_stand_out_from_their_cells(axes):
    """A contrast of 4.5:1 (WCAG 2.1, 1.4.3) at every share."""
    figures.matrix(np.linspace(0.01, 1, 100).reshape(10, 10), [str(i) for i in range(10)], "a run", shares=True)
    (image,) = axes[0].images
    cells = image.to_rgba(image.get_array())[..., :3]
    linear = np.where(cells <= 0.04045, cells / 12.92, ((cells + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    assert len(axes[0].texts) == 100
    for text in axes[0].texts:
        x, y = map(int, text.get_position())
        ink = {"#000000": 0.0, "#ffffff": 1.0}[text.get_color()]
        high, low = max(ink, linear[y, x]), min(ink, linear[y, x])
        assert (high + 0.05) / (low + 0.05) > 4.5
