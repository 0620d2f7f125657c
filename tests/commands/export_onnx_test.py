"""`export --format onnx`: onnxruntime gives the model's own numbers on real images, or nothing is written."""

import json
import os
import sys

import jax
import numpy as np
import pytest

from jaxvit import inference, train
from jaxvit.commands import export
from jaxvit.runtime import packages
from tests.helpers import tiny_config, write_npz
from tests.helpers.commands import failed, passed, write_weights

onnx = [packages._is_there(name) for name in ("jax2onnx", "onnxruntime", "onnx")]
needs_onnx = pytest.mark.skipif(not all(onnx), reason="needs pip install 'jaxvit[onnx]'")


@needs_onnx
def test_weights_as_onnx(tmp_path, capsys, monkeypatch):
    import jax2onnx
    import onnxruntime

    directory, model, variables = write_weights("vit", tmp_path / "weights")
    argv = ["export", "--format", "onnx", "--checkpoint", directory, "--to", tmp_path / "new"]
    out, _ = passed(capsys, argv)
    assert "batch 12" in out and "two photos" in out and sorted(os.listdir(tmp_path)) == ["new", "weights"]
    assert sorted(os.listdir(tmp_path / "new")) == ["model.onnx", "preprocessing.json"]
    words = json.loads((tmp_path / "new/preprocessing.json").read_text())
    assert words["input"]["dtype"] == "uint8" and words["input"]["shape"] == ["batch", 32, 32, 3]
    session = onnxruntime.InferenceSession(str(tmp_path / "new/model.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"]) == words
    for n in (1, 5):  # with numbers worked out here, not by the code that is tested
        pixels = np.random.default_rng(n).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        images = ((pixels / 255 - words["mean"]) / words["std"]).astype(np.float32)
        wanted = np.asarray(jax.jit(model.apply)(variables, images))
        (made,) = session.run(["logits"], {"images": pixels})
        np.testing.assert_allclose(made, wanted, atol=1e-5 * np.abs(wanted).max())

    argv[-1] = tmp_path / "other"  # a file that says something else is not kept
    reload = export._reload
    monkeypatch.setattr(export, "_reload", lambda *args: {n: a + 1e-3 * (n == 3) for n, a in reload(*args).items()})
    assert "nothing was written" in failed(capsys, argv, 1)

    def unknown(*args, **kwargs):
        raise NotImplementedError("[converter] No plugins registered for primitive 'igamma'")

    monkeypatch.setattr(jax2onnx, "to_onnx", unknown)
    said = failed(capsys, argv)
    assert "no ONNX operators for 'igamma'" in said and "--format stablehlo" in said
    assert sorted(os.listdir(tmp_path)) == ["new", "weights"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--quantize", "int8"], "--quantize goes with --format onnx"),
        (["--opset", "20"], "--opset goes with --format onnx"),
        pytest.param(["--format", "onnx", "--opset", "99"], "expected 18 to 23", marks=needs_onnx),
        pytest.param(["--format", "onnx", "--opset", "x"], "invalid int value", marks=needs_onnx),
        pytest.param(["--format", "onnx", "--quantize", "int8"], "--data folder:photos", marks=needs_onnx),
    ],
)
def test_mistakes(tmp_path, capsys, argv, said):
    assert said in failed(capsys, ["export", "--checkpoint", "x", "--to", tmp_path / "new", *argv])
    assert os.listdir(tmp_path) == []


def test_a_package_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    said = failed(capsys, ["export", "--format", "onnx", "--checkpoint", "x", "--to", tmp_path / "new"])
    assert "pip install 'jaxvit[onnx]'" in said


@needs_onnx
@pytest.mark.slow
def test_a_run_whole_and_in_8_bits(tmp_path, capsys):
    data = tmp_path / "data"
    train.train_and_evaluate(tiny_config(write_npz(data, num_train=96), num_epochs=6), tmp_path / "run")
    argv = ["export", "--format", "onnx", "--workdir", tmp_path / "run", "--to", tmp_path / "new"]
    out, _ = passed(capsys, [*argv, "--quantize", "int8"])
    assert "predictions.npz on 20 of 20" in out
    assert sorted(os.listdir(tmp_path / "new")) == sorted(export.FILES["onnx"])
    words = json.loads((tmp_path / "new/preprocessing.json").read_text())["int8"]
    assert words["accuracy"] == inference.evaluate_split(inference.from_run(tmp_path / "run")).metrics["accuracy"]
    assert abs(words["accuracy_int8"] - words["accuracy"]) <= 0.1  # 2 of 20 images
    assert words["bytes_int8"] == (tmp_path / "new/model.int8.onnx").stat().st_size
    with np.load(tmp_path / "run/predictions.npz") as arrays:
        kept = dict(arrays)
    np.savez(tmp_path / "run/predictions.npz", **{**kept, "logits": -kept["logits"]})  # another model's
    assert "nothing was written" in failed(capsys, [*argv[:-1], tmp_path / "other"], 1)
    assert not (tmp_path / "other").exists()
    np.savez(tmp_path / "run/predictions.npz", **kept)
    for file in data.iterdir():
        file.unlink()
    data.rmdir()  # the run's own few test images are still there
    out, said = passed(capsys, [*argv, "--force"])
    assert "samples.npz" in out and "cannot be read" in said
    assert "model.int8.onnx" not in os.listdir(tmp_path / "new")  # of the first export
