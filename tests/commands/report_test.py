"""The command report: what it refuses."""

import json

import numpy as np
import pytest

from jaxvit import cli
from jaxvit.errors import UserError
from jaxvit.reports import write_report
from tests.helpers.fake_runs import write_run


def other_data(tmp_path):
    return [write_run(tmp_path / "a"), write_run(tmp_path / "b", classes=5)], "different data sets"


def other_name(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", data="cifar10", n=44)]
    return runs, "different data sets (digits and cifar10)"


def no_run(tmp_path):
    (tmp_path / "a").mkdir()
    return [tmp_path / "a"], "config.json"


def no_directory(tmp_path):
    return [tmp_path / "nowhere"], "no such directory"


def twice(tmp_path):
    run = write_run(tmp_path / "a")
    return [run, run], "twice"


def no_classes(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "classes.json").unlink()
    return [run], "classes.json"


def zero_images(tmp_path):
    run = write_run(tmp_path / "a")
    np.savez(run / "predictions.npz", logits=np.zeros((0, 4)), labels=np.zeros(0, int), index=np.zeros(0, int))
    return [run], "no images"


def label_out_of_range(tmp_path):
    run = write_run(tmp_path / "a")
    np.savez(run / "predictions.npz", logits=np.zeros((1, 4)), labels=np.array([4]), index=np.zeros(1, int))
    return [run], "label 4"


def not_finite(tmp_path):
    run = write_run(tmp_path / "a")
    np.savez(run / "predictions.npz", logits=np.full((1, 4), np.nan), labels=np.array([1]), index=np.zeros(1, int))
    return [run], "not finite"


def damaged(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "predictions.npz").write_bytes(b"PK\x03\x04 no more")
    return [run], "predictions.npz"


def pickled(tmp_path):
    run = write_run(tmp_path / "a")
    np.savez(run / "samples.npz", image=np.array([{}], object), label=np.zeros(1), index=np.zeros(1))
    return [run], "samples.npz"


def damaged_line(tmp_path):
    run = write_run(tmp_path / "a")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(["{", *lines]))
    return [run], "line 1"


def nested_line(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "metrics.jsonl").write_text("[" * 100_000 + "\n" + (run / "metrics.jsonl").read_text())
    return [run], "line 1"


def bad_words(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "config.json").write_text(json.dumps({"seed": 0}))
    return [run], "does not name a model"


CASES = [other_data, other_name, no_run, no_directory, twice, no_classes, zero_images, label_out_of_range, not_finite,
         damaged, pickled, damaged_line, nested_line, bad_words]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_bad_input_is_refused_in_two_lines(case, tmp_path, capsys):
    runs, said = case(tmp_path)
    words = [word for run in runs for word in ("--workdir", str(run))]
    assert cli.main(["report", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) <= 2 and said in "\n".join(error)
    assert not (tmp_path / "out").exists()


def test_several_runs_need_a_place_to_write(tmp_path):
    with pytest.raises(UserError, match="--out"):
        write_report([write_run(tmp_path / "a"), write_run(tmp_path / "b")])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report([tmp_path / "a"], tmp_path / "file")
    with pytest.raises(UserError, match="no --workdir"):
        write_report([])
