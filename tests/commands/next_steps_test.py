"""What to do after training."""

import json
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvit import cli, config
from jaxvit.commands import next_steps, parser
from jaxvit.runtime import verbosity
from jaxvit.train import summary
from tests.helpers import tiny_config, write_npz


def a_run(path, *, num_val=10, name="0.png", **words):
    """A run's config, and the files that are looked at."""
    path.mkdir(parents=True)
    (path / "summary.json").write_text(json.dumps({"num_val": num_val}))
    np.savez(path / "samples.npz", name=np.array([name]))
    found = config.default()
    for word, value in words.items():
        found.update_from_flattened_dict({word.replace("__", "."): value})
    return found


def test_three_commands_for_each_kind_of_run(tmp_path):
    run = tmp_path / "run"
    found = a_run(run, augment__flip=True)
    first, second, third = next_steps.commands("run", run, found)
    assert (first, second) == (["report", "--workdir", "run"], ["explain", "--workdir", "run", "--samples", "16"])
    assert third == ["eval", "--workdir", "run", "--tta", "flip"]
    found.augment.flip = False  # a digit that is flipped is another one
    assert next_steps.commands("run", run, found)[2] == ["eval", "--workdir", "run", "--split", "val"]
    (run / "calibration.json").write_text("{}")
    assert next_steps.commands("run", run, found)[2][-2:] == ["--temperature", "run"]


def test_without_validation_images_the_weights_are_passed_on(tmp_path):
    found = a_run(tmp_path / "run", num_val=0)
    assert next_steps.commands("run", tmp_path / "run", found)[2] == ["convert", "--from", "run", "--to", "run/timm"]


@pytest.mark.parametrize("place", ["photos", "photos/test"])
def test_photos_are_predicted(tmp_path, place):
    (tmp_path / place / "bee").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / place / "bee" / "0.png")
    found = a_run(tmp_path / "run", name="bee/0.png", data__name=f"folder:{tmp_path}/photos")
    words = next_steps.commands("run", tmp_path / "run", found)[1]
    assert words == ["predict", "--workdir", "run", str(tmp_path / place / "bee/0.png")]


def test_a_dry_run_has_no_next_step(tmp_path, capsys):
    next_steps.show(str(tmp_path / "run"), a_run(tmp_path / "run", fast_dev_run=True))
    assert capsys.readouterr().err == ""


def test_commands_begin_as_the_user_began_them(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "../main.py"])
    monkeypatch.setattr(sys, "argv", ["../main.py"])
    assert parser.program() == "python3 ../main.py"
    script = tmp_path / "an env" / "jaxvit"  # not on the path
    script.parent.mkdir()
    script.touch()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert parser.program() == f"'{script}'"
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    assert parser.program() == "jaxvit"
    monkeypatch.setattr(sys, "argv", ["/usr/lib/pytest/__main__"])
    assert parser.program() == "jaxvit"


def test_quiet_leaves_one_line(monkeypatch, capsys):
    described = {"final": {"test/mAP": 0.5}, "best": None, "num_test": 450, "epochs": 3, "fast_dev_run": False}
    monkeypatch.setattr(verbosity, "level", verbosity.QUIET)
    summary.print_footer(Path("run"), described)
    assert capsys.readouterr().err == "run: test mAP 50.00% over 450 images\n"
    assert "not tested" in summary.result(Path("run"), {**described, "final": {}})


@pytest.mark.slow
def test_the_commands_work_as_they_are_printed(tmp_path, monkeypatch, capsys):
    words = tiny_config(write_npz(tmp_path / "data"), num_epochs=1).to_dict()
    (tmp_path / "a run.json").write_text(json.dumps(words))
    monkeypatch.setattr(sys, "argv", ["jaxvit"])
    run = str(tmp_path / "the run")
    assert cli.main(["--config", str(tmp_path / "a run.json"), "--workdir", run]) == 0
    said = capsys.readouterr().err
    printed = [line[11:] for line in said[said.index("\nnext ") :].strip().splitlines()]
    assert len(printed) == 3
    for line in printed:
        assert cli.main(shlex.split(line)[1:]) == 0, line
    assert (tmp_path / "the run/report/index.html").is_file()


@pytest.mark.parametrize("age", [-100, 100, None])
def test_a_report_of_an_unfinished_run_is_told_to_be_old(tmp_path, capsys, age):
    run = tmp_path / "run"
    found, page = a_run(run), run / "report/index.html"
    page.parent.mkdir()
    if age is not None:
        page.write_text("")
        at = (run / "summary.json").stat().st_mtime + age
        os.utime(page, (at, at))
    next_steps.show(str(run), found)
    said = " ".join(capsys.readouterr().err.split())
    assert ("older than the run" in said) == (age == -100)
    assert ("written by the first command below" in said) == (age is None)
