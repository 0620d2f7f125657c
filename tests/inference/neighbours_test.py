"""Nearest images, k nearest neighbours and the linear probe, against computations by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxvit.errors import UserError
from jaxvit.inference import neighbours


def test_nearest_is_by_the_angle_whatever_the_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(23, 5)), rng.normal(size=(4, 5))
    bank[7] = 3 * bank[2]  # the same direction: the first row wins
    queries[0] = bank[2]
    cosines = np.array([[q @ b / np.linalg.norm(q) / np.linalg.norm(b) for b in bank] for q in queries])
    for rows in (3, 100):
        monkeypatch.setattr(neighbours, "ROWS", rows)
        found, values = neighbours.nearest(bank, queries, 6)
        np.testing.assert_array_equal(found[1:], np.argsort(-cosines, axis=1, kind="stable")[1:, :6])
        np.testing.assert_allclose(values, np.sort(cosines, axis=1)[:, ::-1][:, :6], atol=1e-12)
        assert set(found[0, :2]) == {2, 7}
    assert neighbours.nearest(bank[:3], queries, 6)[0].shape == (4, 3)


def test_features_are_standardised_before_they_are_compared():
    train = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1000.0], [1.0, 1000.0]])
    labels = np.array([0, 1, 0, 1])
    test = np.array([[0.9, 400.0], [0.1, 600.0]])  # unscaled, the second column would decide
    assert neighbours.knn(train, labels, test, 1).tolist() == [1, 0]
    assert neighbours.probe(train, labels, test).tolist() == [1, 0]
    with pytest.raises(UserError, match="more neighbours than there are training images, 4"):
        neighbours.knn(train, labels, test, 5)
    with pytest.raises(UserError, match="two classes or more"):
        neighbours.probe(train, np.zeros(4), test)


def test_the_picture_has_a_row_for_each_query():
    grey, wide = np.full((4, 4, 1), 90, np.uint8), Image.new("RGB", (300, 100), "red")
    png = neighbours.picture([[(wide, ["a photo"]), (grey, ["x", "y", "z"])], [(grey, []), (wide, [])]])
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    side, gap = neighbours.SIDE, neighbours.GAP
    assert sheet.shape[1] == 2 * (side + gap) + gap
    assert sheet[gap + side // 2, gap + side // 2].tolist() == [255, 0, 0]
    assert sheet[gap + 2, gap + 2].tolist() == [255, 255, 255]  # a wide image keeps its shape
    assert sheet[gap + 2, 2 * gap + side + 2].tolist() == [90, 90, 90]
