"""What should not be in a workdir is said at the start, in one line and the remedy."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from jaxvit import cli, inference, train
from jaxvit.errors import UserError
from jaxvit.reports import runs
from jaxvit.workdir import manifest, resume, run_files, trackers
from tests.helpers import tiny_config, write_npz


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    base = tmp_path_factory.mktemp("finished")
    config = tiny_config(write_npz(base / "data"))
    train.train_and_evaluate(config, base / "run")
    return config, base / "run"


NAMES = (*resume.DIRECTORIES, *resume.FILES)


def replace(path, how):
    """Puts a thing of another kind in the place of `path`."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "directory":
        path.mkdir()
    elif how == "file":
        path.write_text("x")
    elif how == "link":
        path.symlink_to("nowhere")
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("name", NAMES)
def test_another_kind_of_thing_is_refused(tmp_path, finished, name):
    config, run = finished
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    for how in ("link", "fifo", "file" if name in resume.DIRECTORIES else "directory"):
        replace(workdir / name, how)
        with pytest.raises(UserError) as caught:
            train.train_and_evaluate(config, workdir)
        first, second = str(caught.value).splitlines()
        assert first.startswith(f"'{workdir / name}' is a ") and second.startswith("move it away")
    assert run.is_dir()


@pytest.mark.parametrize("name", ["config.json", "seed0/config.json"])
def test_the_runs_below_a_directory_that_is_not_one_are_named(tmp_path, name):
    for row in "abcd":
        run = tmp_path / row / name
        run.parent.mkdir(parents=True)
        run.write_text("{}")
    with pytest.raises(UserError) as error:
        run_files.read_json(tmp_path / "config.json")
    said = str(error.value)
    assert str((tmp_path / "a" / name).parent) in said and str((tmp_path / "d" / name).parent) not in said
    assert "--report-only" not in said
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UserError, match="--report-only"):
        run_files.read_json(tmp_path / "config.json")


def test_a_step_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run/checkpoints/last").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last/6").write_text("x")
    with pytest.raises(UserError, match="last/6' is a file; expected a directory"):
        train.train_and_evaluate(tiny_config(write_npz(tmp_path / "data")), tmp_path / "run")


def test_links_to_what_is_expected_are_obeyed(tmp_path, finished):
    config, run = finished
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    shutil.move(workdir / "checkpoints", tmp_path / "elsewhere")
    (workdir / "checkpoints").symlink_to(tmp_path / "elsewhere")
    resume.inspect(workdir)


@pytest.mark.parametrize(
    ("name", "way", "said"),
    [
        ("checkpoints/best", os.W_OK, "may not be written"),
        ("checkpoints", os.X_OK, "may not be entered"),
        ("config.json", os.R_OK, "may not be read"),
        ("metrics.jsonl", os.W_OK, "may not be written"),
    ],
)
def test_what_may_not_be_used_is_refused(finished, monkeypatch, name, way, said):
    """By the system's answer, as root is refused nothing."""
    config, run = finished
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, asked: access(path, asked) and (path, asked) != (run / name, way))
    with pytest.raises(UserError, match=f"{name}' {said} by this user\n"):
        train.train_and_evaluate(config, run)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root is refused nothing")
def test_permissions_are_refused_for_real(tmp_path):
    (tmp_path / "checkpoints/best").mkdir(parents=True)
    (tmp_path / "checkpoints/best").chmod(0o500)
    with pytest.raises(UserError, match="may not be written"):
        resume.inspect(tmp_path)


def test_files_that_a_protected_run_has_may_be_read_only(finished, monkeypatch):
    config, run = finished
    (run / "predictions.npz").chmod(0o400)
    assert train.train_and_evaluate(config, run)["test/accuracy"] >= 0


def test_a_socket_with_a_temporary_name_does_not_stop_a_run(tmp_path):
    (tmp_path / "run/.a.tmp").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "run/.b.tmp"))
    final = train.train_and_evaluate(tiny_config(write_npz(tmp_path / "data"), num_epochs=1), tmp_path / "run")
    assert "test/accuracy" in final


def test_the_command_line_says_it_in_two_lines(tmp_path, capsys):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/best").write_text("x")
    (tmp_path / "c.py").write_text("from jaxvit.config import default as get_config\n")
    assert cli.main(["--config", str(tmp_path / "c.py"), "--workdir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "best' is a file; expected a directory" in said and said.count("\n") == 2


def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_anew_with_a_word(tmp_path, capsys):
    config = tiny_config(write_npz(tmp_path / "data"), num_epochs=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1, "epoch": 1}\n' * 25)
    train.train_and_evaluate(config, tmp_path / "run")
    said = capsys.readouterr().err
    assert "ended before its first checkpoint; its 25 lines of metrics.jsonl are dropped" in said
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["predictions.npz", "samples.npz"])
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "no manifest"])
@pytest.mark.parametrize("how", ["flip", "half", "empty"])
def test_damaged_arrays_are_named_and_made_again(tmp_path, finished, capsys, name, how, is_sealed):
    if (how, name) != ("half", "predictions.npz") and is_sealed:
        pytest.skip("one of them is enough: the hash is of the whole file")
    config, run = finished
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / name
    before = path.read_bytes()
    damaged = bytearray(before)
    damaged[200] ^= 1
    path.write_bytes({"flip": bytes(damaged), "half": before[: len(before) // 2], "empty": b""}[how])
    if not is_sealed:
        (tmp_path / "run/manifest.json").unlink()
        with pytest.raises(UserError, match=f"{name}' is damaged: .*\nthe training command creates it again"):
            run_files.read_npz(path, resume.ARRAYS[name])
    train.train_and_evaluate(config, tmp_path / "run")
    assert f"{name} has changed since the run wrote it; it is created again" in capsys.readouterr().err
    with np.load(path) as stored, np.load(run / name) as whole:
        for key in whole.files:
            np.testing.assert_array_equal(stored[key], whole[key])


def test_a_finished_run_that_loses_its_best_weights_tests_the_next_best(tmp_path, finished, capsys):
    config, run = finished
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    best = sorted((workdir / "checkpoints/best").glob("[0-9]*"), key=lambda path: int(path.name))
    for path in best:
        shutil.rmtree(path)
        path.mkdir()
    train.train_and_evaluate(config, workdir)
    printed = capsys.readouterr().err
    assert "is lost; the next best is used" in printed and "already finished" not in printed
    final = run_files.read_json(workdir / "summary.json")["final"]
    assert final["best_epoch"] == final["epochs"]  # no best is left: the last weights
    assert train.train_and_evaluate(config, workdir) == final
    assert "already finished" in capsys.readouterr().err


@pytest.mark.parametrize("sign", list("[]*?\\"))
def test_a_path_that_no_checkpoint_can_be_read_back_from_is_refused(tmp_path, sign):
    with pytest.raises(UserError, match="no checkpoint .*\nchoose a path without"):
        run_files.make_workdir(tmp_path / f"a{sign}b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["gs:/x", "logs:", "a/s3:/b", "/s3/run", "/hf/x"])
def test_a_path_that_is_read_as_a_buckets_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="is read as the name of a store in a cloud"):
        run_files.make_workdir(tmp_path / name)  # an absolute name stands alone
    assert not list(tmp_path.iterdir())


def test_a_manifest_that_cannot_be_written_is_named_and_not_its_temporary_file(tmp_path):
    (tmp_path / "last-3.json").mkdir()
    with pytest.raises(OSError) as caught:
        manifest.write(tmp_path / "last-3.json", {})
    assert caught.value.filename == str(tmp_path / "last-3.json") and ".tmp" not in str(caught.value)
    steps = tmp_path / "run/checkpoints/manifests"
    steps.mkdir(parents=True)
    (steps / "last-3.json").mkdir()
    with pytest.raises(UserError, match="manifests/last-3.json' is a directory; expected a file"):
        train.train_and_evaluate(tiny_config(write_npz(tmp_path / "data")), tmp_path / "run")


def test_events_lie_in_the_workdir_whatever_its_name(tmp_path, monkeypatch):
    """TensorboardX takes what stands before a colon for the name of a store."""
    monkeypatch.chdir(tmp_path)
    trackers.TensorBoard(Path("gs:run/events")).close()
    assert len(list((tmp_path / "gs:run/events").iterdir())) == 1


@pytest.mark.parametrize(
    "mark, holds", [("study.json", "a study"), ("study.db", "a sweep"), ("model.safetensors", "exported weights")]
)
def test_what_holds_something_else_is_no_workdir(tmp_path, mark, holds):
    """A run in the directory of a study would end the study."""
    run_files.check_free(tmp_path, "a run")
    (tmp_path / "config.json").write_text("{}")  # of a run, or of weights
    for what in ("a study", "a sweep"):
        with pytest.raises(UserError, match="holds a run; "):
            run_files.check_free(tmp_path, what)
    run_files.check_free(tmp_path, "a run")
    (tmp_path / mark).touch()
    with pytest.raises(UserError, match=f"holds {holds}; "):
        train.train_and_evaluate(tiny_config("digits"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    if holds == "exported weights":
        for read in (inference.from_run, runs.read_runs):
            with pytest.raises(UserError, match="holds exported weights and no run"):
                read(tmp_path if read is inference.from_run else [tmp_path])
    else:
        run_files.check_free(tmp_path, holds)  # where a run got in before
    (tmp_path / "checkpoints").mkdir()
    run_files.check_free(tmp_path, "a run")
