"""Names of the runs in a report."""

from jaxvit.reports.runs import read_runs
from tests.helpers.fake_runs import write_run


def test_labels_are_the_shortest_that_tell_apart(tmp_path):
    runs = [write_run(tmp_path / a / "run") for a in ("x", "y")]
    assert [run.label for run in read_runs(runs)] == ["x/run", "y/run"]
