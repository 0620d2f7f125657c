"""Rows of features on the disk: whole, resumed, damaged."""

import json

import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.inference import feature_file


def test_what_is_marked_is_there_in_the_next_process(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_file, "SAVE_SECS", 0.0)
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    with feature_file.store(tmp_path / "f.npz", {"of": 1}) as store:
        table = store.table("train", 10, 2)
        table.put(0, rows[:4], np.array([True, False, True, True]))
        monkeypatch.setattr(feature_file, "SAVE_SECS", 1e9)
        table.put(4, rows[4:8], np.ones(4, bool))  # not marked: a power cut may take it
    with feature_file.store(tmp_path / "f.npz", {"of": 1}) as store:
        table = store.table("train", 10, 2)
        assert table.done == 4
        np.testing.assert_array_equal(table.features[:4], rows[:4])
        assert table.usable[:4].tolist() == [True, False, True, True]
        table.put(4, np.concatenate([rows[4:], rows[:2]]), np.ones(8, bool))  # padded beyond the end
        assert table.done == 10
        np.testing.assert_array_equal(table.features, rows)
        with (
            pytest.raises(UserError, match="another process is writing"),
            feature_file.store(tmp_path / "f.npz", {"of": 1}),
        ):
            pass
        assert store.table("train", 10, 3).done == 0  # another model's
    with feature_file.store(tmp_path / "f.npz", {"of": 2}) as store:
        assert store.table("train", 10, 2).done == 0
        (tmp_path / "f.npz.parts" / "train.json").write_text("{")
        assert store.table("train", 10, 2).done == 0
        store.remove()
    assert not (tmp_path / "f.npz.parts").exists()


def test_a_file_is_written_in_blocks_and_read_by_numpy(tmp_path):
    path, rows = tmp_path / "f.npz", np.arange(12, dtype=np.float32).reshape(6, 2)
    feature_file.write(path, {"key": "é\udc80"}, [rows[:4], rows[4:]], 6, 2, names=np.array(["a", "é"]))
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["features"], rows)
        assert arrays["names"].tolist() == ["a", "é"]
        assert json.loads(str(arrays["about"])) == {"key": "é\udc80"}
    assert feature_file.about(path) == {"key": "é\udc80"}
    for content in (path.read_bytes()[:100], b"", rows.dumps()):
        path.write_bytes(content)
        assert feature_file.about(path) == {}
        with pytest.raises(UserError, match="is damaged.*\n--force makes it again"):
            feature_file.read(path)
    with open(path, "wb") as file:
        np.save(file, rows)  # one array
    assert feature_file.about(path) == {}
