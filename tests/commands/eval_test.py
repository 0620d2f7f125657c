"""main.py eval."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvit import cli
from tests.helpers import write_npz

TINY = """
num_epochs: 1
batch_size: 16
model: {name: vit_tiny_patch16_224, patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}
parallel: {num_devices: 1}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory with data, a config, a finished run, and files that are not what they should be."""
    root = tmp_path_factory.mktemp("cli")
    name = write_npz(root / "data")
    (root / "run.yaml").write_text(TINY + f"data: {{name: 'npz:{root / 'data'}'}}\n")
    assert name == f"npz:{root / 'data'}"
    assert cli.main(["--config", str(root / "run.yaml"), "--workdir", str(root / "run")]) == 0
    Image.fromarray(np.full((9, 12, 3), 200, np.uint8)).save(root / "photo.png")
    (root / "text.jpg").write_text("no image")
    (root / "nothing").mkdir()
    for bad, text in {
        "unknown.yaml": "batchsize: 3", "broken.yaml": "model: [1,", "null.json": '{"seed": null}',
        "section.yaml": "optim: 3", "number.yaml": "model: {name: 3}", "list.yaml": "[1]", "broken.json": "{",
        "syntax.py": "def get_config(:", "exit.py": "raise SystemExit(3)", "lines.py": "raise ValueError('a\\nb\\nc')",
        "empty.py": "", "other.py": "def get_config():\n  return 3",
    }.items():  # fmt: skip
        (root / bad).write_text(text)
    return root


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_eval_repeats_the_recorded_accuracy(files, capsys, tmp_path, batch_size):
    out = tmp_path / "metrics.json"
    assert cli.main(["eval", "--workdir", str(files / "run"), "--batch-size", str(batch_size), "--json", str(out)]) == 0
    final = json.loads((files / "run/summary.json").read_text())["final"]
    metrics = json.loads(out.read_text())
    assert metrics["accuracy"] == final["test/accuracy"]
    assert metrics["loss"] == pytest.approx(final["test/loss"], rel=1e-5)
    assert metrics["balanced_accuracy"] == pytest.approx(final["test/balanced_accuracy"])
    assert metrics["macro_f1"] == pytest.approx(final["test/macro_f1"]) and metrics["nll"] == metrics["loss"]
    assert metrics["images"] == 20
    printed = capsys.readouterr().out
    assert f"{final['test/accuracy']:.2%}" in printed and "20 of 68" in printed
    assert metrics["of_images"] == 68 and metrics["split"] == "test"
