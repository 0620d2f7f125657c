"""Reports of a run that was trained: maps over its sample, and looks into its model."""

import dataclasses
import re

import numpy as np
import pytest

from jaxvit import explain, inference
from jaxvit.reports import deep, neighbours, numbers, write_report
from jaxvit.reports.runs import read_runs
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
    assert {"cam", "neighbours_run", "pca_run", "tsne_run", "cka_run_run", "filters_run", "positions_run"} <= names
    assert len([file for file in files if file.name.startswith("cam_")]) == 8
    assert "no maps" not in files[0].read_text(encoding="utf-8")


def test_mistakes_stand_beside_the_training_images_that_are_nearest(run, monkeypatch):
    files, classifier, images = read_runs([run])[0], inference.from_run(run), deep.test_images(read_runs([run])[0])
    (grid,) = neighbours.of_run(files, classifier, images, images.train)
    across = 1 + neighbours.NEAREST
    assert grid.across == len(grid.columns) == across and len(grid.pictures) % across == 0
    train = images.train
    mean, std = (np.float32(classifier.data_config[word]) for word in ("mean", "std"))

    def features(pixels):
        prepared = (pixels.astype(np.float32) / 255 - mean) / std
        return np.asarray(explain.features(classifier.model, classifier.variables, prepared), np.float64)

    bank = features(train.images)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    wrong = numbers.confident_mistakes(numbers.softmax(files.logits), files.labels)[: neighbours.MISTAKES]
    at_hand, alike = images.by_index, 0
    assert len(grid.pictures) == across * len(wrong) > 0
    for n, i in enumerate(wrong):
        query = features(at_hand[int(files.index[i])][None])[0]
        order = np.argsort(-(bank @ query), kind="stable")[: neighbours.NEAREST]
        cells = grid.pictures[n * across : (n + 1) * across]
        assert cells[0].lines[0] == f"true: {files.class_names[files.labels[i]]}"
        cosines = [f"cosine {value:.2f}" for value in bank[order] @ query / np.linalg.norm(query)]
        assert [cell.lines[0] for cell in cells[1:]] == cosines
        alike += [cell.lines[1] for cell in cells[1:]] == train.image_names(order).tolist()
    assert alike >= len(wrong) - 1  # two images may be equally near in float32
    assert f"of {len(train)} training images by" in grid.caption
    monkeypatch.setattr(neighbours, "MOST", 9)
    (grid,) = neighbours.of_run(files, classifier, images)  # reads the data again
    assert f"of 9 training images of {len(train)}, balanced over the classes" in grid.caption
    assert neighbours.blocks([files], {}, images) == neighbours.blocks([files], {}, "gone") == []


def test_the_data_may_be_gone(run, tmp_path):
    files = write_report([_moved(run, tmp_path)], tmp_path / "out", deep=True)
    names = {re.sub(r"_\d+$", "", file.stem) for file in files}
    assert "cam" in names and "filters_copy" in names and "pca_copy" not in names
    assert "Without test images" in files[0].read_text(encoding="utf-8")


def test_images_that_stand_elsewhere_now_are_not_those_of_the_run(run):
    files = read_runs([run])[0]
    assert isinstance(deep.test_images(files), deep.TestImages)
    moved = dataclasses.replace(files, names=np.roll(files.names, 1))  # as where a photo came and another went
    assert "not those of the run" in deep.test_images(moved)
    others = dataclasses.replace(files, labels=np.roll(files.labels, 1))  # the same places in other arrays
    assert "not those of the run" in deep.test_images(others)


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
    assert sheet.shape == (2 * t + 1, 3 * t + 2, 4)
    assert sheet[0, 0, 0] == 0 and sheet[t + 1, t + 1, 0] == 80
    assert (sheet[0, [0, t, t + 1], 3] == [255, 0, 255]).all() and sheet[t + 1, -1, 3] == 0  # gaps are clear
