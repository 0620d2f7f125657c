"""Runs that are killed, damaged or out of disk: the short versions of tools/kill_test.py and tools/damage_test.py."""

import contextlib
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxvit.errors import RunError, UserError
from jaxvit.runtime import interrupt
from jaxvit.train import finish, summary
from jaxvit.train import loop as train
from jaxvit.workdir import run_files
from tests.helpers import tiny_config, write_npz

ROOT = Path(__file__).resolve().parent.parent.parent


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data_name(tmp_path):
    return write_npz(tmp_path / "data")


@pytest.mark.slow
def test_two_kills_leave_no_trace(tmp_path):
    kill_test = tool("kill_test")
    kill_test.SCENARIOS["short"] = {**kill_test.SCENARIOS["adamw_cosine"], "num_epochs": 2}
    moments = iter([{"event": "save", "count": 3, "delay": 0.01}, {"event": "seal", "count": 2, "delay": 0.002}])
    kill_test.draw = lambda rng, start_up: next(moments)
    (tmp_path / "short").mkdir()
    record = kill_test.run_scenario("short", 2, 0, tmp_path)
    assert record["kills"] == 2 and record["arrays_compared"] > 100
    assert [run["differences"] for run in record["runs"]] == [[]]


def test_damages_are_told_and_mended(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    for name in ("prepare", "deferred"):  # the tool replaces them
        monkeypatch.setattr(train, name, getattr(train, name))
    monkeypatch.setattr(summary, "count_macs", summary.count_macs)
    wrong = [record for record in tool("damage_test").damages(5, 7, tmp_path) if record["wrong"]]
    assert not wrong, json.dumps(wrong, indent=1)[:3000]


@pytest.fixture
def no_new_cache_entries():
    """Where files are cut off, a program in the compile cache would be too, and stay so for other tests."""
    word = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, word)
    jax.config.update(word, 1e9)
    yield
    jax.config.update(word, before)


def test_a_full_disk_ends_the_run_and_costs_nothing(tmp_path, data_name, no_new_cache_entries):
    config = tiny_config(data_name)
    train.train_and_evaluate(config, tmp_path / "whole")
    with pytest.raises(RunError, match="File too large\n") as caught:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            train.train_and_evaluate(config, tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(str(caught.value).splitlines()) == 2
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert final == json.loads((tmp_path / "whole/summary.json").read_text())["final"]


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path, data_name):
    (tmp_path / "run").mkdir()
    with run_files.locked(tmp_path / "run"), pytest.raises(UserError, match="another process .*choose another workdir"):
        train.train_and_evaluate(tiny_config(data_name), tmp_path / "run")


def test_metrics_come_back_from_the_checkpoint(tmp_path, data_name, capsys):
    config = tiny_config(data_name, num_epochs=2)
    train.train_and_evaluate(config, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + b"0" + whole[41:])
    train.train_and_evaluate(config, tmp_path / "run")
    assert path.read_bytes() == whole
    said = capsys.readouterr().err
    assert "metrics.jsonl has changed since the run wrote it" in said and "restored from the checkpoint" in said
    assert (tmp_path / "run" / "metrics.jsonl.damaged").is_file()


def test_a_damaged_config_of_another_run_is_not_gone_over(tmp_path, data_name):
    config = tiny_config(data_name, num_epochs=1)
    train.train_and_evaluate(config, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged, and the run had a different config"):
        train.train_and_evaluate(tiny_config(data_name, num_epochs=1, batch_size=8), tmp_path / "run")
    train.train_and_evaluate(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch_size"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file size limit", "full file system"])
def test_a_full_disk_ends_the_command_with_code_1_and_two_lines(tmp_path, data_name, how):
    words = tiny_config(data_name, num_epochs=8, model__embed_dim=128, model__depth=6).to_dict()
    (tmp_path / "run.json").write_text(json.dumps(words))
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, str(ROOT / "main.py"), "--config", str(tmp_path / "run.json")]
    environment = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run([*command, "--workdir", str(tmp_path / "whole")], env=environment, check=True, capture_output=True)

    def start(*before):
        whole = [*before, *command, "--workdir", str(disk / "run")]
        return subprocess.run(whole, env=environment, capture_output=True, text=True)

    if how == "full file system":
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(disk)], capture_output=True)
        if mounted.returncode:
            pytest.skip("mounting is not permitted here")
        (disk / "ballast").write_bytes(b"0" * 2**20 * 95)
    try:
        done = start(*(["sh", "-c", 'ulimit -f 600; exec "$@"', "sh"] if how == "file size limit" else []))
        said = done.stderr[done.stderr.index("error: ") :].splitlines()
        assert done.returncode == 1 and len(said) == 2, done.stderr
        (disk / "ballast").unlink(missing_ok=True)
        assert start().returncode == 0
        final = [json.loads((p / "summary.json").read_text())["final"] for p in (tmp_path / "whole", disk / "run")]
        assert final[0] == final[1]
    finally:
        if how == "full file system":
            subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_signal_during_evaluation_is_answered_there(tmp_path, data_name, monkeypatch):
    """SIGTERM while a split is evaluated: the run stops within it, and goes on from the checkpoint before."""
    config = tiny_config(data_name, num_epochs=2)
    train.train_and_evaluate(config, tmp_path / "whole")
    evaluate = finish.evaluate

    def interrupted(*args, **words):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args, **words)

    with monkeypatch.context() as patch:
        patch.setattr(finish, "evaluate", interrupted)
        with pytest.raises(interrupt.Interrupted) as stop:
            train.train_and_evaluate(config, tmp_path / "run")
    assert stop.value.exit_code == 143
    final = train.train_and_evaluate(config, tmp_path / "run")
    assert final == json.loads((tmp_path / "whole/summary.json").read_text())["final"]


@pytest.mark.parametrize(
    "first, second, meaning, at_once",
    [
        (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, False),
        (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, False),
        (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, True),
        (signal.SIGINT, signal.SIGINT, signal.SIGINT, True),
    ],
)
def test_a_scheduler_may_repeat_itself_and_a_second_ctrl_c_ends_at_once(first, second, meaning, at_once):
    """`sbatch --signal=USR1@120` gives notice, SIGTERM follows at the end: neither breaks off the save."""
    with interrupt.deferred() as flag:
        signal.raise_signal(first)
        assert flag.signum == meaning
        with pytest.raises(KeyboardInterrupt) if at_once else contextlib.nullcontext():
            signal.raise_signal(second)
        assert flag.signum == meaning
