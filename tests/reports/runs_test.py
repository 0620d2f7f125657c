"""Names of the runs in a report."""

import pytest

from jaxvit.errors import UserError
from jaxvit.reports.runs import read_runs
from tests.helpers.fake_runs import write_run


def test_labels_are_the_shortest_that_tell_apart(tmp_path):
    runs = [write_run(tmp_path / a / "run") for a in ("x", "y")]
    assert [run.label for run in read_runs(runs)] == ["x/run", "y/run"]


def test_runs_between_which_photos_came_are_not_compared(tmp_path):
    runs = [write_run(tmp_path / str(n), n=n, data="folder:photos") for n in (40, 41)]
    with pytest.raises(UserError, match="both folder:photos, with 40 and 41 test images"):
        read_runs(runs)
    runs[1] = write_run(tmp_path / "dry", n=4, data="folder:photos", fast_dev_run=True)
    assert len(read_runs(runs)) == 2


def test_synsets_of_imagenet_are_shown_by_their_names(tmp_path):
    synsets = ["n01440764", "n02012849", "n03126707", "n01443537"]  # two cranes, a bird and a machine
    (run,) = read_runs([write_run(tmp_path / "run", names=synsets)])
    assert run.class_names == ["tench", "crane (n02012849)", "crane (n03126707)", "goldfish"]
