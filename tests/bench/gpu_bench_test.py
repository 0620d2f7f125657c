"""The list of GPU measurements: every command line is valid, and none needs what a bare GPU machine lacks."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvit import config as config_lib
from jaxvit import config_checks, models
from jaxvit.commands import bench
from tests.helpers import write_npz

ROOT = Path(__file__).resolve().parent.parent.parent
# Packages that data sources, reports and comparisons need, and rates do not.
ABSENT = ("ml_collections", "tensorflow_datasets", "tensorflow", "grain", "array_record", "tensorboardX", "dm_pix",
          "sklearn", "torch", "timm", "optuna", "chex", "wandb")  # fmt: skip
BLOCKED = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from jaxvit.cli import main
sys.exit(main(sys.argv[1:]))
"""


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu_bench = tool("gpu_bench")


@pytest.mark.parametrize("tiny", [False, True], ids=["", "tiny"])
@pytest.mark.parametrize("job", gpu_bench.JOBS, ids=lambda job: job.name)
def test_every_command_line_is_valid(job, tiny, tmp_path):
    args = gpu_bench.parse([str(tmp_path), *(["--tiny"] if tiny else ["--torch-python", sys.executable])])
    words = gpu_bench.command(job, args)[1:]
    assert Path(words[0]).is_file()
    if job.kind == "bench":
        parsed = bench._parse(words[2:])
        (settings,) = bench._wanted(parsed)
        assert settings.dtype == ("float32" if tiny else "bfloat16")
        assert (parsed.compare == "timm") == (not tiny and "timm" in job.words)
    elif job.kind == "train":
        config = config_lib.load(words[2], words[5:], models.model_fields)
        config_checks.validate(config)
        assert config.steps_per_dispatch == int(job.name.split("_")[1])
    else:
        parser = argparse.ArgumentParser()
        for option in ("--model", "--batch-size", "--image-size", "--dtype", "--steps", "--json"):
            parser.add_argument(option)
        parser.add_argument("--field", action="append", type=bench._field, default=[])
        parsed = parser.parse_args(words[1:])
        models.create_model(parsed.model, **dict(parsed.field))


def test_jobs_have_names_of_their_own():
    names = [job.name for job in gpu_bench.JOBS]
    assert len(set(names)) == len(names)
    with pytest.raises(SystemExit):
        gpu_bench.parse(["out", "--only", "vit_base,vit_bass"])


def test_rates_need_nothing_that_only_data_and_reports_need(tmp_path):
    words = ["bench", "--model", "resnet18", "--field", "layers=[1]", "--field", "channels=[8]", "--image-size", "16",
             "--batch-size", "2", "--mode", "infer", "--repeats", "1", "--seconds", "0.01", "--compile-times", "none",
             "--json", str(tmp_path / "found.json")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", BLOCKED, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found.json").exists()


def test_the_check_of_the_kernel_on_a_gpu_knows_what_is_right():
    row = tool("check_kernels").check(6, 3, 1, 1, interpret=True)
    assert row["good"] and row["float32_out"] < 1e-5 < row["bfloat16_out"]


@pytest.mark.slow
def test_every_job_runs_with_a_tiny_model(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "gpu_bench.py"), str(tmp_path), "--tiny", "--minutes", "60"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert {path.stem for path in tmp_path.glob("*.json")} == {job.name for job in gpu_bench.JOBS} | {"index"}


@pytest.mark.slow
def test_the_fast_recipe_runs_by_seeds(tmp_path):
    data = write_npz(tmp_path / "data")
    words = ["--config.model.layers=(1,1)", "--config.model.channels=(8,8)", "--config.batch_size=16",
             "--config.num_epochs=2", "--config.dtype=float32"]  # fmt: skip
    command = [sys.executable, str(ROOT / "tools" / "fast_cifar.py"), str(tmp_path / "out"), "--data", data]
    subprocess.run([*command, "--seeds", "2", *words], check=True)
    found = json.loads((tmp_path / "out" / "fast.json").read_text())
    first, second = found["runs"]
    assert first["wall_seconds"] == found["wall_seconds_first"] > first["train_seconds"]
    assert found["wall_seconds_warm"]["mean"] == second["wall_seconds"]
    assert found["test_accuracy"]["mean"] == pytest.approx((first["test_accuracy"] + second["test_accuracy"]) / 2)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "name a new directory" in again.stderr
