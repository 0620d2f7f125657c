"""`export`: a new process computes the model's numbers from the files, at any batch size, for every family."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvit import data, inference, train
from jaxvit.commands import export
from tests.helpers import tiny_config, write_npz
from tests.helpers.commands import CASES, drawn, failed, passed, write_weights

ALONE = """
import pathlib, sys, jax, numpy as np
given, made = {}, {}
root = pathlib.Path(sys.argv[1])
for file in sorted(root.glob("*.stablehlo")):
    run = jax.jit(jax.export.deserialize(bytearray(file.read_bytes())).call)
    images = np.load(root / f"{file.stem}.npy")
    made[file.stem] = np.asarray(run(images))
np.savez(root / "made.npz", **made)
assert "jaxvit" not in sys.modules and "flax" not in sys.modules
"""


@pytest.mark.slow  # a network of each family; a run as StableHLO is tested below
def test_every_family_in_a_process_that_knows_only_jax(tmp_path):
    wanted = {}
    for case in (case for case in CASES if case not in ("eca", "eva", "swinv2")):  # others are like them
        model, variables = drawn(case)
        size = model.image_size
        images = np.random.default_rng(0).standard_normal((3, size, size, 3), dtype=np.float32)
        np.save(tmp_path / f"{case}.npy", images)
        content = export.to_stablehlo(model, variables)
        assert jax.export.deserialize(bytearray(content)).platforms == ("cpu", "cuda", "tpu")
        (tmp_path / f"{case}.stablehlo").write_bytes(content)
        wanted[case] = np.asarray(jax.jit(model.apply)(variables, images))
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], env=env, check=True, cwd=tmp_path)
    with np.load(tmp_path / "made.npz") as made:
        assert set(made.files) == set(wanted)
        for case, logits in wanted.items():
            np.testing.assert_allclose(made[case], logits, atol=1e-5 * np.abs(logits).max(), err_msg=case)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    train.train_and_evaluate(tiny_config(write_npz(root / "data"), num_epochs=1), root / "run")
    return root / "run"


def test_a_run_as_stablehlo(run, tmp_path, capsys):
    out, _ = passed(capsys, ["export", "--workdir", run, "--to", tmp_path / "new"])
    assert "checked" in out and sorted(os.listdir(tmp_path)) == ["new"]
    assert sorted(os.listdir(tmp_path / "new")) == sorted(export.FILES["stablehlo"])
    assert json.loads((tmp_path / "new/classes.json").read_text()) == ["0", "1", "2"]
    words = json.loads((tmp_path / "new/preprocessing.json").read_text())
    assert words["input"]["shape"] == ["batch", 8, 8, 3] and words["output"] == "logits"
    classifier = inference.from_run(run)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8))
    ours = data.preprocess(photo, classifier.data_config)
    np.testing.assert_array_equal(ours, data.preprocess(photo, words))  # the file's words are enough
    assert "--force" in failed(capsys, ["export", "--workdir", run, "--to", tmp_path / "new"])


def test_weights_as_safetensors(tmp_path, capsys):
    directory, _, _ = write_weights("deit", tmp_path / "weights")
    argv = ["export", "--format", "safetensors", "--checkpoint", directory, "--to", tmp_path / "new" / "place"]
    out, _ = passed(capsys, argv)
    assert "batch 3" in out
    assert sorted(os.listdir(tmp_path / "new/place")) == ["config.json", "model.safetensors", "preprocessing.json"]


def test_files_that_differ_are_not_kept(tmp_path, capsys, monkeypatch):
    directory, _, _ = write_weights("vit", tmp_path / "weights")
    reload = export._reload

    def wrong(*args):
        return {n: array + (n == 3) * 1e-3 for n, array in reload(*args).items()}

    monkeypatch.setattr(export, "_reload", wrong)
    argv = ["export", "--format", "safetensors", "--checkpoint", directory, "--to", tmp_path / "new"]
    assert "nothing was written" in failed(capsys, argv, 1)
    assert os.listdir(tmp_path) == ["weights"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give one of --workdir"),
        (["--format", "torch"], "invalid choice"),
        (["--workdir", "gone", "--to", "new"], "no run in"),
        (["--checkpoint", "gone", "--to", "new"], "no such weight file"),
        (["--workdir", "run", "--checkpoint", "x", "--to", "new"], "give one of"),
    ],
)
def test_mistakes(tmp_path, capsys, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    assert said in failed(capsys, ["export", *argv])
    assert os.listdir(tmp_path) == []


def test_weights_that_are_not_finite_are_not_exported(tmp_path, capsys, monkeypatch):
    model, variables = drawn("vit")
    bad = jax.tree.map(lambda leaf: leaf * np.nan, variables)
    given = type("Given", (), {"model": model, "variables": bad})
    with pytest.raises(ValueError, match="not finite"):
        export.check(given, "stablehlo", tmp_path)  # type: ignore[arg-type]


def test_models_too_large_for_one_file_are_named(monkeypatch):
    monkeypatch.setattr(export, "LIMIT", 1000)
    with pytest.raises(ValueError, match="--format safetensors"):
        export.to_stablehlo(*drawn("vit"))
