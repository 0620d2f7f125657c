"""Photos that cannot be read: skipped, counted, listed."""

import os

import numpy as np
import pytest
from PIL import Image

from jaxvit.data import load_dataset
from jaxvit.errors import UserError


def _fill(directory, n, seed=0, suffix=".jpg", size=(12, 10)):
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(directory / f"{i:03d}{suffix}")


def _plain(root, n=20, classes=("ant", "bee", "cat")):
    for i, name in enumerate(classes):
        _fill(root / name, n, i)
    return f"folder:{root}"


def _broken(root):
    whole = (root / "ant" / "000.jpg").read_bytes()
    broken = {
        "ant/truncated.jpg": whole[: len(whole) * 3 // 4],
        "bee/zero.png": b"",
        "bee/text.jpeg": b"this is no image",
        "cat/gif.png": b"GIF89a" + b"\0" * 30,
    }
    for name, content in broken.items():
        (root / name).write_bytes(content)
    os.symlink(root / "nowhere", root / "cat" / "dangling.jpg")
    Image.new("1", (20_000, 5_000)).save(root / "cat" / "bomb.png")
    return {*broken, "cat/dangling.jpg", "cat/bomb.png"}


def test_a_larger_share_of_broken_files_can_be_allowed(tmp_path):
    name, listed = _plain(tmp_path / "photos", 12), tmp_path / "skipped_files.txt"
    (tmp_path / "photos" / "bee" / "007.jpg").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"1 of 36 .* more than 1 %.*; remove them, or train with data.max_bad_fraction=0.03"
    ) as caught:
        load_dataset(name, skipped_file=str(listed))
    assert "007.jpg (an empty file)" in str(caught.value)
    data = load_dataset(name, skipped_file=str(listed), max_bad_fraction=0.03)
    assert len(data.train) + len(data.val) + len(data.test) == 35 and "bee/007.jpg" in listed.read_text()
    (tmp_path / "photos" / "bee" / "007.jpg").unlink()
    load_dataset(name, skipped_file=str(listed))
    assert not listed.exists()  # nothing was skipped this time
    for wrong in (-0.1, 1.5, True):
        with pytest.raises(UserError, match="data.max_bad_fraction is"):
            load_dataset(name, max_bad_fraction=wrong)


def test_a_few_broken_files_are_skipped_counted_and_listed(tmp_path):
    root, listed = tmp_path / "photos", tmp_path / "run" / "skipped.txt"
    name = _plain(root, 210)
    broken = _broken(root)
    data = load_dataset(name, skipped_file=str(listed))
    (note,) = [note for note in data.notes if "skipped" in note]
    assert "6 of 636" in note and str(listed) in note
    rows = [line.split("\t") for line in listed.read_text().splitlines()]
    assert {row[0] for row in rows} == broken and all(len(row) == 2 and row[1] for row in rows)
    assert len(data.train) + len(data.val) + len(data.test) == 630
    assert not broken & {*data.train.names, *data.val.names, *data.test.names}
    assert load_dataset(name).test.names == data.test.names


def test_many_broken_files_are_an_error_that_names_them(tmp_path):
    name = _plain(tmp_path / "photos", 20)
    (tmp_path / "photos" / "bee" / "007.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="1 of 60 .* more than 1 %") as caught:
        load_dataset(name, skipped_file=str(tmp_path / "list.txt"))
    assert "bee/007.jpg" in str(caught.value) and len(str(caught.value).splitlines()) == 2
    assert "bee/007.jpg" in (tmp_path / "list.txt").read_text()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_stop_the_reader(tmp_path):
    name = _plain(tmp_path, 40)
    os.mkfifo(tmp_path / "ant" / "pipe.jpg")
    os.mkfifo(tmp_path / "ant" / "pipe")
    assert any("not a plain file" in note for note in load_dataset(name).notes)
