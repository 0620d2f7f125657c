"""Every family as ONNX: onnxruntime gives the model's own numbers, at any batch size."""

import jax
import numpy as np
import pytest

from jaxvit import pretrained
from jaxvit.runtime import packages
from tests.helpers import pretrained as small

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(packages._is_there, ("jax2onnx", "onnxruntime", "onnx"))),
        reason="needs pip install 'jaxvit[onnx]'",
    ),
]
CASES = {case: (case, {}) for case in small.ALL} | {
    "swin that its window does not divide": ("swin", {"image_size": (36, 52)}),
    "swin by a kernel": ("swin", {"attn_implementation": "pallas"}),
    "vit in a loop": ("vit", {"scan": True, "remat": "block"}),
    "vit by a kernel in 16 bits": ("vit", {"attn_implementation": "cudnn", "dtype": "bfloat16"}),
    "grey vit without classifier": ("vit", {"in_channels": 1, "num_classes": 0}),
    "resnet, blurred": ("resnet", {"aa_layer": "blur", "remat": "dots"}),
}


@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_has_the_numbers_of_the_model(case, opset):
    import onnxruntime

    from jaxvit.export import onnx_graph

    name, fields = CASES[case]
    model = small.make(small.ALL[name], **fields)
    variables = pretrained.convert(model, small.weights(model))
    mean, std = [0.4, 0.5, 0.6][: model.in_channels], [0.2, 0.3, 0.25][: model.in_channels]
    content = onnx_graph.to_onnx(model, variables, mean, std, opset=opset)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    size = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
    plain = model.clone(**({"attn_implementation": "xla"} if hasattr(model, "attn_implementation") else {}), dtype=None)
    for n in (1, 3):
        pixels = np.random.default_rng(n).integers(0, 256, (n, *size, model.in_channels), dtype=np.uint8)
        images = ((pixels / 255 - mean) / std).astype(np.float32)
        wanted = np.asarray(jax.jit(plain.apply)(variables, images))
        (made,) = session.run(None, {"images": pixels})
        np.testing.assert_allclose(made, wanted, atol=1e-5 * np.abs(wanted).max())
