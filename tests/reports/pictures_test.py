"""Pictures of a report."""

import re

from jaxvit.reports import write_report
from tests.helpers.fake_runs import write_run


def test_augmentations_are_shown(tmp_path):
    run = write_run(tmp_path / "a", augment__flip=True, augment__crop_padding=2)
    files = write_report([run], augmentations=True)
    assert len([f for f in files if f.name.startswith("augmentations_a")]) == 5 * 8


def test_pictures_stand_above_their_names(tmp_path):
    """So that the tops of neighbours align, however many lines a name takes."""
    page = write_report([write_run(tmp_path / "a", skill=1.0)])[0].read_text(encoding="utf-8")
    starts = re.findall(r'<div class="picture"><(\w+)', page)
    assert starts and set(starts) == {"img"}
