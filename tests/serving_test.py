"""The server of docs/SERVING.md, as the page has it: a photo goes in, the classes that `predict` says come out."""

import io
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvit import inference, pretrained
from jaxvit.runtime import packages
from tests.helpers.commands import CASES, drawn, passed

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")
PAGE = Path(__file__).resolve().parent.parent / "docs/SERVING.md"
has_onnx = all(map(packages._is_there, ("jax2onnx", "onnxruntime", "onnx")))
NAMES = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A JPEG file that lies on its side: its EXIF orientation turns it upright."""
    file = tmp_path_factory.mktemp("photo") / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).resize((70, 90)).save(file, exif=exif)
    return file


@pytest.mark.parametrize(
    "form",
    [
        "stablehlo",
        pytest.param(
            "onnx",
            marks=[pytest.mark.slow, pytest.mark.skipif(not has_onnx, reason="needs pip install 'jaxvit[onnx]'")],
        ),
    ],
)
def test_the_server_of_the_page_says_what_predict_says(form, photo, tmp_path, capsys, monkeypatch):
    from starlette.testclient import TestClient

    model, variables = drawn("vit")
    pretrained.save(model, variables, tmp_path / "weights", name=CASES["vit"][0], label_names=NAMES)
    argv = ["export", "--format", form, "--checkpoint", tmp_path / "weights", "--to", tmp_path / "served"]
    passed(capsys, argv)
    monkeypatch.setenv("SERVED", str(tmp_path / "served"))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    serve = types.ModuleType("serve")
    exec(compile(code, "serve.py", "exec"), serve.__dict__)
    classifier = inference.from_name(CASES["vit"][0], str(tmp_path / "weights"))
    ((_, wanted),) = inference.predict(classifier, [photo])
    with TestClient(serve.app) as client:
        made = client.post("/predict", files={"photo": photo.read_bytes()})
        assert made.status_code == 200
        top = made.json()["top"]
        assert [row["class"] for row in top] == [NAMES[k] for k in wanted.argsort()[::-1]]
        np.testing.assert_allclose([row["probability"] for row in top], np.sort(wanted)[::-1], atol=1e-5)
        grey = io.BytesIO()
        Image.open(photo).convert("L").save(grey, "PNG")
        assert client.post("/predict", files={"photo": grey.getvalue()}).status_code == 200
        for files in ({"photo": b"no photo"}, {"other": b"x"}, {"photo": photo.read_bytes()[:700]}):
            made = client.post("/predict", files=files)
            assert made.status_code == 400 and "no photo" in made.json()["error"]
    assert ("onnxruntime" in code) and (form == "stablehlo" or "onnxruntime" in sys.modules)
