"""Whole studies: what is recorded of rows that fail, what is skipped and resumed, what the report says."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvit import cli
from tests.helpers.studies import example

ROOT = Path(__file__).resolve().parents[2]
STUDY = """
from jaxvit.studies import Row, Study

DEIT = "deit_tiny_patch16_224"
TINY = {"model.name": "vit_tiny_patch16_224", "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1,
        "model.num_heads": 2}
STUDY = Study(
    title="Tiny", source="nobody", columns=("accuracy", "parameters"), throughput=True, by_epoch=True,
    words={"num_epochs": EPOCHS, "batch_size": 16, "data.per_class": 8, "parallel.num_devices": 1, **TINY},
    rows=[
        Row(name="bad", label="Bad", words={"optim.name": "sgd", "optim.learning_rate": 1e30}),
        Row(name="gone", label="Gone", words={"model.name": DEIT, "pretrained": DEIT + ".fb_in1k"}),
        Row(name="pupil", label="Pupil", teacher="bad", remark="Its teacher diverges."),
        Row(name="good", label="Good <b>", published={"accuracy": 50.5}, neighbours=3),
    ],
)
"""


def study_file(directory, epochs=2, text=STUDY):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "tiny.py"
    path.write_text(text.replace("EPOCHS", str(epochs)))
    return path


def environment():
    """Of a child: one device, no hub, a compile cache shared with the tests."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = ""
    return env


def start(*words):
    command = [sys.executable, "main.py", "study", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*words):
    child = start(*words)
    out, err = child.communicate(timeout=600)
    return child.returncode, out, err


def status(workdir):
    return {key: record["status"] for key, record in json.loads((workdir / "study.json").read_text())["runs"].items()}


def nearest(workdir, k):
    """What the command `features --knn` says of the run."""
    out = workdir.parent / "features.npz"
    assert cli.main(["features", "--workdir", str(workdir), "--out", str(out), "--knn", str(k), "--json",
                     str(out.with_suffix(".json"))]) == 0  # fmt: skip
    return json.loads(out.with_suffix(".json").read_text())["knn"]["accuracy"]


def test_rows_that_fail_are_recorded_and_the_rest_goes_on(tmp_path):
    file, workdir = study_file(tmp_path), tmp_path / "study"
    code, out, err = run(file, "--workdir", workdir)
    assert code == 1, err
    assert status(workdir) == {
        "bad/seed0": "diverged", "gone/seed0": "weights missing", "pupil/seed0": "teacher missing",
        "good/seed0": "done",
    }  # fmt: skip
    assert "row 4/4  good/seed0" in err and "Traceback" not in err and out.strip().endswith("report/index.html")
    assert not (workdir / "gone").exists()  # never trained from scratch instead
    page = (workdir / "report/index.html").read_text(encoding="utf-8")
    for word in ("diverged", "weights missing", "teacher missing", "50.5", "Its teacher diverges."):
        assert word in page
    assert "Good &lt;b&gt;" in page
    with open(workdir / "report/published_and_ours.csv", newline="") as opened:
        good = next(row for row in csv.DictReader(opened) if row["row"] == "good")
    with np.load(workdir / "good/seed0/predictions.npz") as stored:
        accuracy = 100 * np.mean(stored["logits"].argmax(1) == stored["labels"])
    command = json.loads((workdir / "good/seed0/summary.json").read_text())["command"]
    assert command.endswith(f"main.py study {file} --workdir {workdir} --rows good --seeds 0,")
    assert float(good["accuracy"]) == pytest.approx(accuracy) and float(good["published_accuracy"]) == 50.5
    record = json.loads((workdir / "study.json").read_text())["runs"]["good/seed0"]
    assert record["test_images_per_second"] > 0
    assert record["knn_accuracy"] == pytest.approx(nearest(workdir / "good/seed0", 3))


class TestAfterARun:
    """What a second command does; nothing here trains."""

    @pytest.fixture(scope="class")
    def finished(self, tmp_path_factory):
        """A study of one row, done, with the files of a run that nobody trained."""
        from jaxvit import config as config_lib
        from jaxvit.studies import study as studies
        from tests.helpers.fake_runs import write_run

        root = tmp_path_factory.mktemp("finished")
        text = re.sub(r'(?m)^        Row\(name="(bad|gone|pupil)".*\n', "", STUDY)
        file = study_file(root, text=text)
        study, path = studies.load(str(file))
        config = studies.row_config(study, path, study.rows[0], 0, studies.Options())
        write_run(root / "study/good/seed0", classes=10)
        (root / "study/good/seed0/config.json").write_text(json.dumps(config_lib.to_dict(config)))
        options = {"smoke": False, "epochs": None, "data": None, "overrides": []}
        runs = {"good/seed0": {"status": "done", "reason": ""}}
        record = {"study": "tiny", "options": options, "runs": runs, "costs": {}, "wall_seconds": 1.0}
        (root / "study/study.json").write_text(json.dumps(record))
        return root

    def test_what_is_finished_is_left_alone(self, finished, capsys):
        assert cli.main(["study", str(finished / "tiny.py"), "--workdir", str(finished / "study")]) == 0
        said = capsys.readouterr()
        assert "good/seed0: done before" in said.err and "Good" in (finished / "study/report/report.md").read_text()
        with open(finished / "study/report/shapes.csv", newline="") as opened:
            row = next(csv.DictReader(opened))
        assert row["image"] == "8×8" and int(row["parameters"]) > 0 and int(row["macs"]) > 0

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--epochs", "3"], "holds this study with epochs off, now 3"),
            (["--smoke"], "holds this study with smoke off, now on"),
            (["--config.batch_size=8"], "holds this study with overrides off"),
            (["--rows", "god"], "Did you mean 'good'"),
            (["--seeds", "x"], "expected a number of seeds"),
            (["--seeds", "1,1"], "different seeds"),
            (["--checkpoints", "nowhere"], "is not a directory"),
            (["--data", "npz:nowhere"], "holds this study with data off"),
            (["--data", "csv:nowhere.csv"], "holds this study with data off"),
            (["--epoch", "3"], "no option '--epoch'"),
        ],
    )
    def test_mistakes_are_told_before_anything_runs(self, finished, capsys, words, said):
        code = cli.main(["study", str(finished / "tiny.py"), "--workdir", str(finished / "study"), *words])
        err = capsys.readouterr().err
        assert code == 2 and said in err and len(err.splitlines()) <= 2

    def test_a_mistake_leaves_no_directory(self, finished, tmp_path, capsys):
        words = ["--workdir", str(tmp_path / "new" / "study"), "--rows", "god"]
        assert cli.main(["study", str(finished / "tiny.py"), *words]) == 2
        assert "Did you mean 'good'" in capsys.readouterr().err and not (tmp_path / "new").exists()

    def test_a_changed_study_is_not_taken_for_the_old_one(self, finished, tmp_path, capsys):
        text = (finished / "tiny.py").read_text().replace('"batch_size": 16', '"batch_size": 4')
        changed = study_file(tmp_path, text=text)
        assert cli.main(["study", str(changed), "--workdir", str(finished / "study")]) == 2
        assert "batch_size: 16 -> 4" in capsys.readouterr().err

    def test_a_damaged_run_does_not_spoil_the_report(self, finished, capsys):
        stored = finished / "study/good/seed0/predictions.npz"
        content = stored.read_bytes()
        stored.write_bytes(content[:100])
        try:
            words = ["study", str(finished / "tiny.py"), "--workdir", str(finished / "study"), "--report-only"]
            assert cli.main(words) == 0
        finally:
            stored.write_bytes(content)
        assert "damaged" in (finished / "study/report/index.html").read_text()

    def test_lists(self, capsys):
        assert cli.main(["study", "--list"]) == 0
        assert "cifar10_vit_vs_swin" in capsys.readouterr().out
        assert cli.main(["study", "cifar10_vit_distillation", "--list"]) == 0
        said = capsys.readouterr().out
        assert "vit_ti_distilled" in said and "vit_tiny_patch16_224" in said
        assert cli.main(["study"]) == 2 and cli.main(["study", "cifar100_asam"]) == 2


KILLED = re.sub(r'(?m)^        Row\(name="(bad|gone|pupil)".*\n', "", STUDY).replace(
    'Row(name="good"', 'Row(name="first", label="First"),\n        Row(name="good"'
)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_study_that_was_stopped_goes_on(tmp_path, number):
    file, workdir = study_file(tmp_path, epochs=80, text=KILLED), tmp_path / "study"
    child = start(file, "--workdir", workdir, "--config.checkpoint.every_steps=10")
    checkpoints = workdir / "first/seed0/checkpoints/last"
    begun = time.monotonic()
    while not any(checkpoints.glob("[0-9]*")) and time.monotonic() - begun < 120:
        time.sleep(0.1)
    child.send_signal(number)
    err = child.communicate(timeout=120)[1]
    assert child.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert status(workdir) == {"first/seed0": "interrupted"} and "the same command resumes" in err
    code, out, err = run(file, "--workdir", workdir, "--config.checkpoint.every_steps=10")
    assert code == 0 and "resumed at step" in err, err
    assert status(workdir) == {"first/seed0": "done", "good/seed0": "done"}
    again, _, err = run(file, "--workdir", workdir, "--config.checkpoint.every_steps=10")
    assert again == 0 and err.count("done before") == 2 and "train" not in err


@pytest.mark.slow
def test_a_row_whose_process_is_killed_is_recorded_and_the_rest_goes_on(tmp_path):
    file, workdir = study_file(tmp_path, epochs=20, text=KILLED), tmp_path / "study"
    child = start(file, "--workdir", workdir)
    begun = time.monotonic()
    while not (workdir / "first/seed0/metrics.jsonl").exists() and time.monotonic() - begun < 120:
        time.sleep(0.1)
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)  # as the kernel does where memory is full
    err = child.communicate(timeout=300)[1]
    assert child.returncode == 1 and "first/seed0: out of memory: killed by the system" in err
    assert status(workdir) == {"first/seed0": "out of memory", "good/seed0": "done"}
    assert "out of memory" in (workdir / "report/index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(tmp_path):
    file = tmp_path / "my_depth.py"
    file.write_text(example())
    code, out, err = run(file, "--workdir", tmp_path / "run", "--epochs", "1", "--seeds", "2", "--rows", "pupil,frozen")
    assert code == 0, err
    assert status(tmp_path / "run") == dict.fromkeys(
        (f"{row}/seed{seed}" for seed in (0, 1) for row in ("vit_4", "frozen", "pupil")), "done"
    )
    page = (tmp_path / "run/report/index.html").read_text(encoding="utf-8")
    assert "but with --epochs 1." in page and " ± " in page and "ViT, 1 blocks: not run." in page
