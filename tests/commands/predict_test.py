"""main.py predict."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvit import cli
from tests.helpers.cli_files import make_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("cli"))


def test_predict_prints_a_table_and_writes_csv(files, capsys, tmp_path):
    folder = tmp_path / "my [red] photos ü"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((5 + i, 20, 3), 80 * i, np.uint8)).save(folder / f"{i}.png")
    out = tmp_path / "out.csv"
    argv = ["predict", "--workdir", files / "run", folder, files / "photo.png", "--top", "2", "--csv", out]
    assert cli.main([str(word) for word in argv]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "my [red] photos ü/0.png" in captured.out
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "rank", "label", "name", "probability"]
    assert [row[:2] for row in rows[1:3]] == [[str(folder / "0.png"), "1"], [str(folder / "0.png"), "2"]]
    assert len(rows) == 9 and all(float(a[4]) >= float(b[4]) for a, b in zip(rows[1::2], rows[2::2], strict=True))
    assert os.listdir(tmp_path).count("out.csv") == 1 and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("good", "code"), [(3, 1), (100, 0)])
def test_predict_does_the_rest_where_files_cannot_be_read(files, capsys, tmp_path, good, code):
    """The bad ones are listed; more than one in a hundred of them is exit code 1; hidden files are left out."""
    folder, out, listed = tmp_path / "photos", tmp_path / "out.csv", tmp_path / "out.skipped.txt"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    picture = Image.fromarray(np.full((8, 8, 3), 90, np.uint8))
    for i in range(good):
        picture.save(folder / f"{i:03d}.jpe", "JPEG")
    picture.save(folder / "no_ending", "PNG")
    picture.save(folder / ".ipynb_checkpoints/x.png")
    (folder / "._000.jpg").write_bytes(b"\0\5\x16\7")
    (folder / "050.jpg").write_bytes(b"GIF89a")
    argv = [
        "predict",
        "--workdir",
        str(files / "run"),
        str(folder),
        "--top",
        "1",
        "--csv",
        str(out),
        "--batch-size",
        "2",
    ]
    assert cli.main(argv) == code
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"skipped {folder / '050.jpg'}: a GIF file, which is not read; convert it to PNG or JPEG."
    assert said[1] == f"1 of {good + 2} image files cannot be read; listed in {listed}" and len(said) == 2
    rows = list(csv.reader(out.read_text().splitlines()))[1:]
    assert [Path(row[0]).name for row in rows] == [*(f"{i:03d}.jpe" for i in range(good)), "no_ending"]
    assert listed.read_text().startswith(f"{folder / '050.jpg'}\ta GIF file")
    (folder / "050.jpg").unlink()
    assert cli.main(argv) == 0 and not listed.exists()
    assert len(list(csv.reader(out.read_text().splitlines()))) == good + 2
