"""The command line: what it prints and writes, its exit codes, and what it says of mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxvit import cli
from tests.helpers.cli_files import make_files
from tests.helpers.commands import failed

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory with data, a config, a finished run, and files that are not what they should be."""
    root = make_files(tmp_path_factory.mktemp("cli"))
    for bad, text in {
        "unknown.yaml": "batchsize: 3", "broken.yaml": "model: [1,", "null.json": '{"seed": null}',
        "section.yaml": "optim: 3", "number.yaml": "model: {name: 3}", "list.yaml": "[1]", "broken.json": "{",
        "syntax.py": "def get_config(:", "exit.py": "raise SystemExit(3)", "lines.py": "raise ValueError('a\\nb\\nc')",
        "empty.py": "", "other.py": "def get_config():\n  return 3",
    }.items():  # fmt: skip
        (root / bad).write_text(text)
    return root


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "--config"),
        (["--config", "run.yaml"], "--workdir"),
        (["--workdir", "new"], "--config"),
        (["evall"], "'eval'"),
        (["train", "--config", "run.yaml"], "training has no command name"),
        (["--config", "run.yaml", "--workdir", "new", "--wrokdir=3"], "'--workdir'"),
        (["--config", "run.yaml", "--workdir", "new", "extra"], "extra"),
        (["--config", "run.yaml", "--workdir", ""], "workdir is empty"),
        (["--config", "run.yaml", "--workdir", "run.yaml"], "cannot write"),
        (["--config", "run.yaml", "--workdir", "run.yaml/below"], "cannot write"),
        (["--config", "run.yaml", "--workdir", "a\0b"], "null"),
        (["--config", "rum.yaml", "--workdir", "new"], "no config file"),
        (["--config", "nothing", "--workdir", "new"], "directory"),
        (["--config", "unknown.yaml", "--workdir", "new"], "'batch_size'"),
        (["--config", "broken.yaml", "--workdir", "new"], "cannot read"),
        (["--config", "broken.json", "--workdir", "new"], "cannot read"),
        (["--config", "null.json", "--workdir", "new"], "seed"),
        (["--config", "section.yaml", "--workdir", "new"], "optim"),
        (["--config", "number.yaml", "--workdir", "new"], "expected text"),
        (["--config", "list.yaml", "--workdir", "new"], "options with values"),
        (["--config", "syntax.py", "--workdir", "new"], "SyntaxError"),
        (["--config", "exit.py", "--workdir", "new"], "SystemExit"),
        (["--config", "lines.py", "--workdir", "new"], "ValueError: a b c"),
        (["--config", "empty.py", "--workdir", "new"], "get_config"),
        (["--config", "other.py", "--workdir", "new"], "ConfigDict"),
        (["predict", "photo.png"], "--workdir"),
        (["predict", "--workdir", "run"], "no images"),
        (["predict", "--workdir", "run", "gone.png"], "no file"),
        (["predict", "--workdir", "run", "text.jpg"], "not a readable image"),
        (
            ["predict", "--workdir", "run", "text.jpg", "text.jpg", "--csv", "out.csv"],
            "the other 1 cannot be read either",
        ),
        (["predict", "--workdir", "run", "nothing"], "no images in folder"),
        (["predict", "--workdir", "nothing", "photo.png"], "config.json"),
        (["predict", "--workdir", "gone", "photo.png"], "no such directory"),
        (["predict", "--workdir", "", "photo.png"], "workdir is empty"),
        (["predict", "--workdir", "run", ""], "the path is empty"),
        (["configs", "--copy", ""], "the path is empty"),
        (["predict", "--workdir", "run", "photo.png", "--csv", "gone/out.csv"], "no directory"),
        (["predict", "--workdir", "run", "photo.png", "--csv", "nothing"], "is a directory"),
        (["predict", "--workdir", "run", "photo.png", "--top", "0"], "--top"),
        (["predict", "--workdir", "run", "photo.png", "--batch-size", "x"], "--batch-size"),
        (["predict", "--workdir", "run", "--model", "resnet18", "photo.png"], "one of"),
        (["predict", "--workdir", "run", "--checkpoint", "x.npz", "photo.png"], "--checkpoint"),
        (["predict", "--model", "resnet19", "--checkpoint", "text.jpg", "photo.png"], "'resnet18'"),
        (["predict", "--model", "resnet18", "--checkpoint", "text.jpg", "photo.png"], "weight file"),
        (["predict", "--model", "resnet18", "--checkpoint", "gone.npz", "photo.png"], "no such weight file"),
        (["eval"], "--workdir"),
        (["eval", "--model", "resnet18"], "--data"),
        (["eval", "--workdir", "run", "--split", "dev"], "--split"),
        (["eval", "--workdir", "run", "--data", "npz:gone"], "no such directory"),
        (["eval", "--workdir", "run", "--json", "gone/out.json"], "no directory"),
        (["models", "vitt_*"], "no model matches"),
        (["models", "vit_tinyy*"], "'vit_tiny_patch16_224'"),
        (["bench", "--model", "resnet18", "--baseline", "gone.json"], "no file 'gone.json'"),
        (["convert", "--model", "resnet18", "--num-classes", "-1"], "of 0 or more"),
        (["models", "--pretraned"], "--pretraned"),
    ],
)
def test_mistakes_are_named_in_two_lines(files, capsys, monkeypatch, argv, said):
    monkeypatch.chdir(files)
    before = {path: path.stat().st_mtime_ns for path in files.rglob("*") if path.is_file()}
    assert said in failed(capsys, argv)
    assert {path: path.stat().st_mtime_ns for path in files.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("batch_size=0", "above 0"), ("batch_size=many", "a whole number"), ("batch_size=9999999999999", "less than"),
        ("seed=-1", "0 or more"), ("optim.learning_rate=inf", "finite"), ("optim.learning_rate=fast", "a number"),
        ("fast_dev_run=perhaps", "true or false"), ("optim.eps=0", "above 0"), ("pretrained=", "empty"),
        ("model.name=resnet19", "'resnet18'"), ("model.dpth=3", "'depth'"), ("model.dtype=float16", "dtype"),
        ("model.image_size=30", "not divisible"), ("model.num_classes=7", "3 classes"), ("model.in_channels=2", "RGB"),
        ("model.num_heads=3", "num_heads"), ("model.drop_path_rate=2", "drop_path_rate"),
        ("data.nme=digits", "data.name"),
        ("data.image_size=(1,2,3)", "height and width"), ("data.std=(0.5,)", "data.mean"),
        ("data.name=digit", "'digits'"),
        ("data.name=folder:gone", "no such directory"), ("optim.name=addam", "'adam'"), ("optim.freeze=[", "freeze"),
        ("augment.crop_padding=8", "8x8"), ("parallel.num_devices=999", "999"), ("optim.accum_steps=3", "accum_steps"),
        ("optim.lr=1", "'optim.learning_rate'"),
        ("pretrained=gone.safetensors", "gone.safetensors"), ("optim.mu_dtype=float7", "mu_dtype"),
    ],
)  # fmt: skip
def test_bad_values_leave_no_run(files, capsys, tmp_path, monkeypatch, override, said):
    monkeypatch.chdir(files)
    workdir = tmp_path / "new" / "deep" / "run"
    assert said in failed(capsys, ["--config", "run.yaml", "--workdir", workdir, f"--config.{override}"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("argv", [["--help"], ["eval", "--help"], ["predict", "-h"], ["models", "--help"]])
def test_help(capsys, argv):
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_what_normalises_is_numbers(files, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(files)
    words = ["--config.data.mean=('a',)", "--config.data.std=(1,)"]
    argv = ["--config", "run.yaml", "--workdir", tmp_path / "new", *words]
    assert "data.mean is ('a',); expected numbers" in failed(capsys, argv)


def test_of_a_long_list_an_entry_is_shown(capsys):
    assert cli._fail("weights do not fit:\n  missing a\n  missing b\n  ... and 7 more", 2) == 2
    assert capsys.readouterr().err.splitlines() == ["error: weights do not fit:", "missing b ... and 7 more"]


def test_a_failed_start_does_not_claim_the_workdir(files, capsys, tmp_path):
    argv = ["--config", str(files / "run.yaml"), "--workdir", str(tmp_path / "run")]
    (tmp_path / "run").mkdir()
    values = json.loads((files / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps({**values, "batch_size": 999}))
    assert cli.main(argv) == 0
    assert "a different config" in failed(capsys_clear(capsys), [*argv, "--config.seed=1"])
    assert cli.main(argv) == 0
    assert "already finished" in capsys.readouterr().err


def capsys_clear(capsys):
    """Drops what was printed so far."""
    capsys.readouterr()
    return capsys


def test_unforeseen_errors_are_one_line_unless_asked(capsys, monkeypatch):
    for error, said, code in (
        (OSError(28, "No space left on device", "x.npz"), "x.npz: No space left", 1),
        (PermissionError(13, "Permission denied", "x.npz"), "x.npz: Permission denied", 2),
        (MemoryError(), "out of memory", 2),
        (TypeError("odd\nthing"), "TypeError: odd thing", 1),
    ):

        def fail(argv, error=error):
            raise error

        monkeypatch.setattr(cli, "_dispatch", fail)
        assert cli.main([]) == code
        printed = capsys.readouterr().err
        assert said in printed and len(printed.splitlines()) <= 2
    monkeypatch.setenv("JAXVIT_TRACEBACK", "1")
    with pytest.raises(TypeError):
        cli.main([])


def start(*argv, **options):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *map(str, argv)], env=environment, stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGUSR1, 143, marks=pytest.mark.slow),
    ],
)
def test_signals_keep_the_last_checkpoint(files, tmp_path, signum, code):
    argv = ["--config", files / "run.yaml", "--workdir", tmp_path / "run", "--config.num_epochs=100000"]
    with start(*argv, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signum)
        said = process.stderr.read()
        assert process.wait(60) == code
    assert "stopped at step" in said and "Traceback" not in said
    assert list((tmp_path / "run/checkpoints/last").glob("[0-9]*"))
    assert not (tmp_path / "run/summary.json").exists()


def test_a_reader_that_leaves_is_no_error(tmp_path):
    with start("models", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(60) == 0
    assert said == b""


def test_help_is_quick():
    begun = time.monotonic()
    with start("--help", stdout=subprocess.DEVNULL) as process:
        assert process.wait(60) == 0
    assert time.monotonic() - begun < 3


def test_a_value_that_begins_with_a_dash_is_told_how_to_write(capsys):
    assert cli.main(["explain", "--model", "resnet18", "--class", "-dash", "x.png"]) == 2
    assert (
        "--class: expected one argument (one that begins with '-' is written --class=-VALUE)" in capsys.readouterr().err
    )
