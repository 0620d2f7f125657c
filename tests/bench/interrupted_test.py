"""A bench that is cut off keeps its rows, leaves nothing running, and lets timm have memory of the GPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = ["bench", "--model", "vit_tiny_patch16_224", "--field", "depth=1", "--field", "embed_dim=16", "--field",
        "num_heads=2", "--image-size", "32", "--batch-size", "2", "--repeats", "1", "--seconds", "0.01",
        "--compile-times", "none", "--mode", "train", "--compare", "timm"]  # fmt: skip
# Stands for torch and timm: the second model asked for hangs, with a worker beside it, as torch.compile has.
TORCH = """
import contextlib, types
__version__ = "0"
flags = types.SimpleNamespace(matmul=types.SimpleNamespace())
backends = types.SimpleNamespace(cuda=flags, cudnn=types.SimpleNamespace())
device = lambda name: types.SimpleNamespace(type=name)
get_num_threads = lambda: 1
channels_last = None
_dynamo = types.SimpleNamespace(reset=lambda: None)
"""
TIMM = """
import os, pathlib, subprocess, time
__version__ = "0"
asked = []
def create_model(*args, **fields):
    asked.append(args)
    if len(asked) == 1:
        raise RuntimeError("no such model")
    worker = subprocess.Popen(["sleep", "600"])
    pathlib.Path(os.environ["SEEN"]).write_text(f"{os.getpid()} {worker.pid}")
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_bench_that_is_stopped_keeps_its_rows_and_leaves_no_orphan(tmp_path, signum):
    for name, text in (("torch", TORCH), ("timm", TIMM)):
        (tmp_path / f"{name}.py").write_text(text)
    seen, file = tmp_path / "seen", tmp_path / "a.json"
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "SEEN": str(seen), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "main.py"), *TINY, "--json", str(file)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not (seen.exists() and len(seen.read_text().split()) == 2):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        children = [int(pid) for pid in seen.read_text().split()]
        assert all(map(alive, children))
        process.send_signal(signum)
        assert process.wait(20) == {signal.SIGINT: 130}.get(signum, -signum)
        end = time.monotonic() + 10
        while any(map(alive, children)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(map(alive, children)), "timm, or a worker of it, goes on without us"
    finally:
        process.kill()
        for pid in map(int, seen.read_text().split() if seen.exists() else ()):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
    found = json.loads(file.read_text())
    assert [row["mode"] for row in found["results"]] == ["train"] and found["complete"] is False
    assert [row["error"] for row in found["timm"]["results"]] == ["RuntimeError: no such model"]
    assert found["timm"]["ratios"][0]["eager_error"] == "RuntimeError: no such model"


@pytest.mark.parametrize("compare", [True, False], ids=["with timm", "alone"])
def test_beside_timm_jax_does_not_take_the_whole_gpu(compare, tmp_path):
    """XLA reads the word when the backend starts; three quarters of the card would be gone before timm begins."""
    words = [*TINY, "--torch-python", sys.executable] if compare else TINY[:-2]
    code = (
        "import os, sys\n"
        "from jax._src import xla_bridge\n"
        "from jaxvit.bench import compare, report\n"
        "from jaxvit import cli\n"
        "def run(*given):\n"
        "    print(os.environ.get('XLA_PYTHON_CLIENT_PREALLOCATE'), xla_bridge.backends_are_initialized())\n"
        "    raise SystemExit(0)\n"
        "report.run = compare.check_timm = run\n"
        "cli.main(sys.argv[1:])\n"
    )
    environment = {word: value for word, value in os.environ.items() if word != "XLA_PYTHON_CLIENT_PREALLOCATE"}
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == (["false", "False"] if compare else ["None", "True"])
