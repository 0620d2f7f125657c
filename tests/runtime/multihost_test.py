"""Several processes on this machine: equal to one, stopped together, ended together, resumed in other numbers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvit import config as config_lib
from jaxvit.errors import UserError
from jaxvit.runtime import multihost
from tests.helpers import write_npz
from tests.helpers.placements import difference, run_config, steps_of

MAIN = Path(__file__).resolve().parent.parent.parent / "main.py"
TOOL = MAIN.parent / "tools" / "kill_test.py"
MARKS = ["prepare", "step", "evaluate", "save"]  # the first of the tool's
SRUN = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
        "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}  # fmt: skip


def write_config(tmp_path, **words):
    """Writes a config of 20 steps an epoch as JSON; returns its path."""
    name = write_npz(tmp_path / "data", num_train=words.pop("num_train", 356), num_test=21)
    config = run_config(name, **words)
    config.parallel.num_devices = None
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_lib.to_dict(config)))
    return path


def start(config, workdir, processes, devices, *overrides, marked=None):
    """Starts the processes, each with `devices` virtual ones; that of number `marked` = (number, pipe) says its place.

    It does so as a child of tools/kill_test.py: one byte on the pipe for each step, save and evaluation.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    words = ["--config", str(config), "--workdir", str(workdir), *overrides]
    words += ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(processes)]
    started = []
    for i in range(processes):
        pipes = () if marked is None or marked[0] != i else (marked[1],)
        program = [str(TOOL), "--child", str(pipes[0])] if pipes else [str(MAIN)]
        started.append(
            subprocess.Popen(
                [sys.executable, *program, *words, "--process-id", str(i)],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, pass_fds=pipes,
            )
        )  # fmt: skip
    return started


def outcome(started, timeout=900):
    """Returns [(exit code, what it said)]."""
    try:
        said = [process.communicate(timeout=timeout)[0] for process in started]
        return [(process.returncode, text) for process, text in zip(started, said, strict=True)]
    finally:
        for process in started:
            process.kill()


def run(config, workdir, processes, devices, *overrides):
    ended = outcome(start(config, workdir, processes, devices, *overrides))
    assert [code for code, _ in ended] == [0] * processes, ended
    return ended


def wait_for_step(workdir, step, timeout=600):
    """Waits until metrics.jsonl has a line of that step."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if (workdir / "metrics.jsonl").exists() and len(steps_of(workdir)) >= step:
            return
        time.sleep(0.05)
    raise AssertionError("the run did not get there")


def predictions(workdir):
    with np.load(workdir / "predictions.npz") as file:
        return {name: file[name] for name in file.files}


def assert_same(one, other, tolerance=1e-9):
    assert difference(steps_of(one), steps_of(other)).max() < tolerance
    a, b = predictions(one), predictions(other)
    np.testing.assert_array_equal(a["index"], b["index"])
    np.testing.assert_allclose(a["logits"], b["logits"], atol=1e-5)


@pytest.mark.parametrize(
    "processes, devices, words",
    [
        (2, 1, []),
        pytest.param(4, 1, ["--config.parallel.fsdp=4"], marks=pytest.mark.slow),
        pytest.param(2, 2, ["--config.parallel.fsdp=2", "--config.data.resident_mb=0"], marks=pytest.mark.slow),
        pytest.param(2, 2, ["--config.parallel.mode=pmap"], marks=pytest.mark.slow),
    ],
)
def test_several_processes_equal_one(tmp_path, processes, devices, words):
    config = write_config(tmp_path, dtype="float64")
    ended = run(config, tmp_path / "several", processes, devices, *words)
    assert "epoch 1/1" in ended[0][1] and "epoch 1/1" not in ended[1][1]
    alone = [word for word in words if "fsdp" not in word]
    run(config, tmp_path / "one", 1, 4 if "--config.parallel.mode=pmap" in words else 1, *alone)
    assert_same(tmp_path / "one", tmp_path / "several")


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_other_numbers_go_on(tmp_path):
    config = write_config(tmp_path, dtype="float64", method="clip", augment__flip=True)
    overrides = ["--config.num_epochs=6"]
    run(config, tmp_path / "whole", 1, 1, *overrides)
    workdir = tmp_path / "parts"
    for after, processes, devices in ((10, 2, 2), (50, 4, 1)):
        started = start(config, workdir, processes, devices, *overrides)
        wait_for_step(workdir, after)
        started[1].send_signal(signal.SIGTERM)
        ended = outcome(started)
        assert [code for code, _ in ended] == [143] * processes, ended
    run(config, workdir, 2, 1, *overrides, "--config.parallel.fsdp=2")
    assert_same(tmp_path / "whole", workdir)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """From a batch size to (config, workdir) of an uninterrupted run of two epochs on one device."""
    made = {}

    def whole(batch_size):
        if batch_size not in made:
            path = tmp_path_factory.mktemp("whole")
            words: dict = {"batch_size": batch_size, "num_train": 356 * batch_size // 16, "num_epochs": 2}
            made[batch_size] = write_config(path, dtype="float64", **words), path / "run"
            run(*made[batch_size], 1, 1)
        return made[batch_size]

    return whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "processes, victim, moment, count",
    [
        (2, 0, "step", 23),
        (2, 1, "step", 23),
        (2, 0, "save", 5),
        (2, 1, "save", 5),
        (2, 0, "evaluate", 1),
        (2, 1, "evaluate", 1),
        (4, 0, "evaluate", 1),
        (4, 3, "save", 4),
        (3, 1, "step", 23),
    ],
)
def test_a_killed_process_ends_the_others_and_the_run_goes_on(tmp_path, wholes, processes, victim, moment, count):
    """SIGKILL to one of several: the others say so and end; fewer processes with more devices go on from there."""
    config, whole = wholes(12 if processes == 3 else 16)
    overrides = ["--config.checkpoint.every_steps=5"]
    workdir = tmp_path / "run"
    read, write = os.pipe()
    started = start(config, workdir, processes, 1, *overrides, marked=(victim, write))
    os.close(write)
    code, seen = MARKS.index(moment), 0
    while seen < count:
        content = os.read(read, 1)
        assert content, outcome(started)
        seen += content[0] == code
    started[victim].kill()
    os.close(read)
    killed = time.monotonic()
    ended = outcome(started, timeout=60)
    assert time.monotonic() - killed < 60
    assert ended[victim][0] == -signal.SIGKILL
    for number, (code, said) in enumerate(ended):
        if number != victim:
            *_, first, second = said.splitlines()
            assert code not in (0, None), said
            assert "another" in first and "of this run" in first and "resumes" in second, said
    finished = run(config, workdir, 1, processes, *overrides)
    assert "resumed at step" in finished[0][1]
    assert_same(whole, workdir)


def test_a_missing_flag_and_absent_others_are_named(monkeypatch):
    with pytest.raises(UserError, match="--process-id is missing"):
        multihost.start("127.0.0.1:1", 2, None)
    with pytest.raises(UserError, match="--process-id is 2; expected 0 to 1"):
        multihost.start("127.0.0.1:1", 2, 2)
    with pytest.raises(UserError, match="expected HOST:PORT"):
        multihost.start("10.0.0.1", 2, 0)


@pytest.mark.slow
def test_those_that_wait_in_vain_say_so(tmp_path):
    program = "from jaxvit import cli; from jaxvit.runtime import multihost; multihost.START_SECS = 2; cli.main()"
    flags = ["--coordinator", "127.0.0.1:1", "--num-processes", "2", "--process-id", "1"]
    argv = ["--config", str(write_config(tmp_path)), "--workdir", str(tmp_path / "run"), *flags]
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=100, cwd=MAIN.parent
    )
    *_, first, second = done.stderr.splitlines()
    assert done.returncode not in (0, None)
    assert "other processes" in first and "check that all of them were started" in second, done.stderr


@pytest.mark.parametrize(
    "environment, cluster",
    [
        ({}, None),
        (SRUN, "SLURM"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU pod"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    ],
)
def test_what_started_several_processes_is_recognised(environment, cluster):
    assert multihost.detect(environment | {"JAX_PLATFORMS": "cpu"}) == cluster
