"""Files in 8 bits, made from graphs written here by hand."""

import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.export import quantize
from jaxvit.runtime import packages

pytestmark = pytest.mark.skipif(
    not all(map(packages._is_there, ("onnx", "onnxruntime"))), reason="needs pip install 'jaxvit[onnx]'"
)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
KERNEL = np.random.default_rng(1).standard_normal((4, 3, 3, 3), dtype=np.float32)
MATRIX = np.random.default_rng(2).standard_normal((108, 4), dtype=np.float32)


def write(path, nodes, **weights):
    """Writes images uint8 [batch, 6, 6, 3] -> logits float32, by `nodes` (operator, inputs, outputs, attributes)."""
    from onnx import TensorProto, helper, numpy_helper, save

    made = [helper.make_node(kind, i, o, **attributes) for kind, i, o, attributes in nodes]
    held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 6, 6, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(made, "by_hand", [images], [logits], held)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def convolutional(path):
    nodes = [
        ("Cast", ["images"], ["x"], {"to": 1}),
        ("Transpose", ["x"], ["planes"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["planes", "kernel"], ["maps"], {}),
        ("GlobalAveragePool", ["maps"], ["means"], {}),
        ("Flatten", ["means"], ["logits"], {}),
    ]
    return write(path, nodes, kernel=KERNEL)


def linear(path):
    nodes = [
        ("Cast", ["images"], ["x"], {"to": 1}),
        ("Flatten", ["x"], ["rows"], {}),
        ("MatMul", ["rows", "matrix"], ["logits"], {}),
    ]
    return write(path, nodes, matrix=MATRIX)


def test_a_convolution_gets_static_ranges_and_stays_near(tmp_path):
    file = convolutional(tmp_path / "whole.onnx")
    windows = np.lib.stride_tricks.sliding_window_view(IMAGES.astype(np.float64), (3, 3), (1, 2))  # [b h w c i j]
    wanted = np.einsum("bhwcij,ocij->bo", windows, KERNEL) / 16
    np.testing.assert_allclose(quantize.outputs(file, IMAGES), wanted, rtol=1e-4)
    assert quantize.quantize(file, tmp_path / "int8.onnx", IMAGES) == "static"
    made = quantize.outputs(tmp_path / "int8.onnx", IMAGES)
    assert 0 < np.abs(made - wanted).max() < 0.02 * np.abs(wanted).max()  # weights of 7 bits: steps of 1/63
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8.onnx", "whole.onnx"]


def test_of_two_forms_the_nearer_one_is_kept(tmp_path, monkeypatch):
    file = linear(tmp_path / "whole.onnx")
    wanted = IMAGES.reshape(8, -1).astype(np.float64) @ MATRIX
    kept = quantize.quantize(file, tmp_path / "int8.onnx", IMAGES)
    error = np.square(quantize.outputs(tmp_path / "int8.onnx", IMAGES) - wanted).mean()
    for form, write_form in quantize.FORMS.items():
        write_form(quantize._prepared(file, tmp_path), tmp_path / "one.onnx", IMAGES[:4])
        other = np.square(quantize.outputs(tmp_path / "one.onnx", IMAGES) - wanted).mean()
        assert error <= other * 1.001 and (form != kept or error >= other * 0.999)

    def broken(*args):
        raise RuntimeError("cannot quantise\nmore of it")

    monkeypatch.setattr(quantize, "FORMS", {"static": broken})
    with pytest.raises(UserError, match="RuntimeError: cannot quantise$"):
        quantize.quantize(file, tmp_path / "none.onnx", IMAGES)
    assert not (tmp_path / "none.onnx").exists()
