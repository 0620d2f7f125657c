"""Reports of a run that was trained: maps over its sample, and looks into its model."""

import re

import numpy as np
import pytest

from jaxvit.reports import deep, write_report
from jaxvit.train.loop import train_and_evaluate
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A two-block ViT after one epoch."""
    path = tmp_path_factory.mktemp("deep")
    config = tiny_config(write_npz(path / "data", num_test=24), num_epochs=1)
    train_and_evaluate(config, path / "run")
    return path / "run"


def test_deep_report_of_a_trained_run(run, tmp_path):
    files = write_report([run], tmp_path, deep=True)
    names = {re.sub(r"_\d+$", "", file.stem) for file in files}
    assert {"cam", "pca_run", "tsne_run", "cka_run_run", "filters_run", "positions_run"} <= names
    assert len([file for file in files if file.name.startswith("cam_")]) == 8
    assert "no maps" not in files[0].read_text(encoding="utf-8")


def test_the_data_may_be_gone(run, tmp_path):
    files = write_report([_moved(run, tmp_path)], tmp_path / "out", deep=True)
    names = {re.sub(r"_\d+$", "", file.stem) for file in files}
    assert "cam" in names and "filters_copy" in names and "pca_copy" not in names
    assert "No test images" in files[0].read_text(encoding="utf-8")


def _moved(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    path = tmp_path / "copy" / "config.json"
    path.write_text(path.read_text().replace('"npz:', '"npz:/nowhere'))
    return tmp_path / "copy"


def test_tiles_keep_every_picture():
    pictures = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, axis=-1) * 20
    sheet = deep._tiles(pictures, 3, gap=1)
    t = deep.TILE
    assert sheet.shape == (2 * t + 1, 3 * t + 2, 3)
    assert sheet[0, 0, 0] == 0 and sheet[t + 1, t + 1, 0] == 80 and sheet[t + 1, -1, 0] == 255
