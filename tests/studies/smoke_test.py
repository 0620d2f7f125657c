"""The smoke run of a study."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs/studies").glob("*.py")))
def test_smoke(tmp_path, name):
    begun = time.monotonic()
    code, out, err = run(name, "--smoke", "--workdir", tmp_path)
    assert code == 0, err
    assert set(status(tmp_path).values()) == {"done"}
    assert time.monotonic() - begun < 360
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    for part in ("Published and ours", "How to read it", "Cost of the rows", "Where the models look", "To repeat"):
        assert part in page
    assert (tmp_path / "report/figures/overlays_0.png").exists()
    assert (tmp_path / "report/figures/heat_maps_0.png").exists()
    wanted = json.loads((tmp_path / "study.json").read_text())["costs"]
    assert {key.split("/")[0] for key in status(tmp_path)} == set(wanted)
