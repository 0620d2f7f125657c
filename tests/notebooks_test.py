"""The notebooks run from beginning to end with tiny models and few images; what is kept in them is fit to read."""

import json
import re
import tomllib

import jax
import nbformat
import numpy as np
import pytest

import jaxvit
from jaxvit import pretrained
from tests.helpers import ROOT
from tools import run_notebooks

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CLASSES = ["blue", "green", "red"]
TINY = {"depth": 1, "embed_dim": 24, "num_heads": 2}
FIELDS = {f"model.{name}": value for name, value in TINY.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`npz:PATH`, 60 training and 36 test images of noise that is tinted by the class."""
    directory, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, n in (("train", 60), ("test", 36)):
        label = np.arange(n, dtype=np.int32) % 3
        image = rng.integers(0, 120, (n, 16, 16, 3), dtype=np.uint8)
        image[np.arange(n), :, :, 2 - label] += 120
        np.savez(directory / f"{split}.npz", image=image, label=label, classes=np.array(CLASSES))
    return f"npz:{directory}"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A directory with random weights of a small ViT for 1,000 classes and 224 pixels."""
    directory = tmp_path_factory.mktemp("weights")
    model = jaxvit.create_model("deit_tiny_patch16_224", patch_size=32, **TINY)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
    return str(pretrained.save(model, variables, directory, name="deit_tiny_patch16_224"))


def parameters(name, data, weights):
    """What makes a notebook short."""
    return {
        "classify_and_explain": {"checkpoint": weights},
        "own_loop": {"epochs": 3, "batch_size": 480},
        "features_and_neighbours": {
            "checkpoint": weights, "data": data, "train_per_class": 20, "test_images": 36
        },
        "compare_models": {
            "data": data, "train_per_class": 20, "test_images": 36, "epochs": 1, "weights": None,
            "runs": {
                "one": {"data.image_size": 16, "model.patch_size": 8, **FIELDS},
                "two": {"data.image_size": 16, "model.patch_size": 8, "optim.freeze": "head_only", **FIELDS},
            },
        },
    }[name]  # fmt: skip


@pytest.mark.slow  # a minute of one core for all four; .ci/run runs them
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, data, weights, tmp_path, monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = run_notebooks.run(path, tmp_path, parameters(path.stem, data, weights), timeout=300)
    assert [cell.source for cell in made.cells] == [cell.source for cell in nbformat.read(path, 4).cells]
    assert not run_notebooks.too_large(made)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert not run_notebooks.too_large(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs and not [output for output in outputs if output.output_type == "error"]
    text = json.dumps(notebook)
    assert not re.search(r"(?<![\w.:/])/(work|home|root|tmp|Users|content)/", text)
    assert not re.search(r"Warning|IOPub|Traceback", json.dumps(outputs))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_in_colab(path):
    first, install, *_ = nbformat.read(path, 4).cells
    assert f"/blob/main/notebooks/{path.name})" in first.source
    (badge,) = re.findall(r"colab\.research\.google\.com/github/(\w+/jaxvit)/", first.source)
    (installed,) = re.findall(r"%pip install -q \"jaxvit @ git\+https://github\.com/(\S+)\"", install.source)
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    assert badge == installed
    assert urls.get("Repository", f"https://github.com/{badge}") == f"https://github.com/{badge}"
