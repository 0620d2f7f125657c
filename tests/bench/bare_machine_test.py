"""Rates need nothing that a bare GPU machine lacks, and the check of the kernel knows what is right."""

import subprocess
import sys

from tests.helpers import ROOT, tool

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


def test_rates_need_nothing_that_only_data_and_reports_need(tmp_path):
    words = ["bench", "--model", "resnet18", "--field", "layers=[1]", "--field", "channels=[8]", "--image-size", "16",
             "--batch-size", "2", "--mode", "infer", "--repeats", "1", "--seconds", "0.01", "--compile-times", "none",
             "--json", str(tmp_path / "found.json")]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", BLOCKED, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found.json").exists()


def test_the_check_of_the_kernels_on_a_gpu_knows_what_is_right(monkeypatch):
    check = tool("check_kernels")
    monkeypatch.setattr(check.cudnn_attention, "KERNEL", "xla")
    for case in (check.windows(6, 3, 1, 1, True), check.tokens(5, 1, 1)):
        row = check.check(case, check.compiled(case, False), False)
        assert row["good"] and 1e-5 < row["bfloat16_out"] < 3e-2
        assert row.get("float32_out", 0) < 1e-5 and ("float32_out" in row) == case.repeats
        wrong = case._replace(kernel=lambda *args, kernel=case.kernel: 1.1 * kernel(*args))
        assert not check.check(wrong, check.compiled(wrong, False), False)["good"]
