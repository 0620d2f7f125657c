"""TensorBoard and Weights & Biases get the same scalars, images and final table."""

import json
import shutil
import sys

import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.workdir import trackers


class Noted:
    """A tracker that remembers."""

    def __init__(self):
        self.seen = {"scalars": [], "images": [], "tables": []}

    def scalars(self, step, values):
        self.seen["scalars"].append((step, dict(values)))

    def image(self, step, name, image):
        self.seen["images"].append((step, name, image.shape, image.dtype))

    def table(self, step, name, rows):
        self.seen["tables"].append((step, name, dict(rows)))

    def close(self):
        pass


def ending():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 3)).astype(np.float32)
    labels, index = np.arange(20) % 3, np.arange(100, 120)
    samples = {"image": rng.integers(0, 255, (9, 8, 8, 3), dtype=np.uint8), "label": labels[:9], "index": index[:9]}
    described = {"model": "test_vit", "parameters": 7, "final": {"step": 40, "test/accuracy": 0.25}}
    return described, samples, logits, labels, index, ["cat", "$x^2$", "a|b"]


def test_the_end_of_a_run_is_shown():
    noted = Noted()
    trackers.show([noted], *ending())
    assert noted.seen["scalars"] == [(40, {"test/accuracy": 0.25})]
    assert noted.seen["tables"] == [
        (40, "final", {"model": "test_vit", "parameters": 7, "step": 40, "test/accuracy": 0.25})
    ]
    assert [name for _, name, _, _ in noted.seen["images"]] == ["test/samples", "test/confusion"]
    assert all(shape[-1] == 3 and dtype == np.uint8 for _, _, shape, dtype in noted.seen["images"])


def test_a_mosaic_frames_what_is_wrong():
    picture = trackers.mosaic(np.zeros((3, 4, 6, 1), np.uint8), np.array([False, True, False]), columns=2)
    assert picture.shape == (2 * (4 * 8 + 4), 2 * (6 * 8 + 4), 3)  # eightfold
    assert tuple(picture[0, 0]) == (255, 255, 255) and tuple(picture[0, 52]) == (213, 94, 0)
    assert not picture[2:34, 2:50].any()


def test_the_confusion_matrix_has_the_names_of_its_classes():
    labels, said = np.arange(3), np.array([0, 1, 1])
    one, other = (trackers.confusion_picture(labels, said, names) for names in (["a", "b", "c"], ["a", "b", "longer"]))
    assert one.shape == other.shape and not np.array_equal(one, other)
    large = trackers.confusion_picture(np.arange(300), np.arange(300), [str(i) for i in range(300)])
    assert max(large.shape) <= 1100


def test_tensorboard_files_hold_scalars_images_and_the_table(tmp_path):
    board = trackers.TensorBoard(tmp_path)
    board.scalars(3, {"val/loss": 0.5})
    trackers.show([board], *ending())
    board.close()
    content = b"".join(f.read_bytes() for f in tmp_path.iterdir())
    for word in (b"val/loss", b"test/accuracy", b"test/samples", b"test/confusion", b"final", b"| parameters | 7 |"):
        assert word in content


def test_wandb_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = {"wandb": {"project": "p", "name": None, "mode": "offline"}}
    with pytest.raises(UserError, match="not installed\npip install 'jaxvit\\[wandb\\]'"):
        trackers.make_trackers(tmp_path, 0, words)


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_gets_the_same_and_goes_on_under_its_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = []
    for _ in range(2):
        run = trackers.WeightsAndBiases(tmp_path, {"seed": 0}, project="p", name=None, mode="offline")
        run.scalars(3, {"val/loss": 0.5})
        trackers.show([run], *ending())
        run.close()
        ids.append(json.loads((tmp_path / "wandb" / "id.json").read_text())["id"])
    assert ids[0] == ids[1]
    files = [f for f in (tmp_path / "wandb").rglob("*.wandb") if not f.is_symlink()]
    assert files and all(ids[0] in f.name for f in files)
    content = b"".join(f.read_bytes() for f in files)
    for word in (b"val/loss", b"test/accuracy", b"test/samples", b"test/confusion", b"final"):
        assert word in content
    assert list((tmp_path / "wandb").rglob("*.png")) and list((tmp_path / "wandb").rglob("*.table.json"))


def test_a_copied_workdir_is_another_run_and_a_moved_one_the_same(tmp_path, capsys):
    (tmp_path / "a/wandb").mkdir(parents=True)
    first = trackers.run_id(tmp_path / "a")
    assert trackers.run_id(tmp_path / "a") == first
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = trackers.run_id(tmp_path / "b")
    assert second != first and trackers.run_id(tmp_path / "b") == second
    assert f"{tmp_path / 'b'} is a copy of {tmp_path / 'a'}; it becomes a new run" in capsys.readouterr().err
    shutil.move(tmp_path / "a", tmp_path / "c")
    assert trackers.run_id(tmp_path / "c") == first and capsys.readouterr().err == ""
    (tmp_path / "c/wandb/id.json").write_text(json.dumps("abcd1234"))  # as it was once written
    assert trackers.run_id(tmp_path / "c") == "abcd1234"


@pytest.mark.parametrize("content", [b"", b'{"id": "abcd12', b'{"id": 3}', b"[]", b"\xff\x00", b'{"id": "a/../b"}'])
def test_a_damaged_id_is_told_and_made_again(tmp_path, capsys, content):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/id.json").write_bytes(content)
    known = trackers.run_id(tmp_path)
    assert "id.json is damaged; the run continues as a new one" in capsys.readouterr().err
    assert trackers.run_id(tmp_path) == known and capsys.readouterr().err == ""
