"""PyTorch's files: read by torch alone, never trusted."""

import argparse
import pathlib
import pickle
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.pretrained import load_pretrained, read
from tests.helpers.weight_files import Bomb, assert_plain


def test_a_torchscript_program_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:  # as torch.jit.save writes it
        for name in ("data.pkl", "code/__torch__/torch/nn/modules/linear.py", "constants.pkl"):
            archive.writestr(f"x/{name}", b"...")
    assert_plain(tmp_path / "x.pt", "is a program of TorchScript")


def test_pickles_need_torch_and_are_not_opened_without(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    Bomb.target = tmp_path / "trace"
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"a": Bomb()}))
    assert_plain(path, r"needs an extra: pip install 'jaxvit\[torch\]'")
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Bomb()}))
    assert_plain(tmp_path / "y.pt", "needs an extra")
    assert not Bomb.target.exists()


def test_an_old_torch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", type("Torch", (), {"__version__": "2.5.1+cpu"}))
    (tmp_path / "x.pth").write_bytes(pickle.dumps({}))
    assert_plain(tmp_path / "x.pth", "needs torch >= 2.10.* found 2.5.1")


@pytest.mark.torch
def test_pth(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.bfloat16).T, "n": torch.tensor(4)}
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth").tensors
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert found["b"].dtype == ml_dtypes.bfloat16 and found["n"] == 4
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read(tmp_path / "old.pt").tensors.keys() == state.keys()
    torch.save([1, 2], tmp_path / "list.pth")
    assert_plain(tmp_path / "list.pth", "holds a list")
    content = bytearray((tmp_path / "x.pth").read_bytes())
    content[content.find(np.float32([0, 1, 2]).tobytes())] ^= 1
    (tmp_path / "bit.pth").write_bytes(content)
    assert_plain(tmp_path / "bit.pth", "checksum of .* does not match")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:400])
    assert_plain(tmp_path / "cut.pth", "damaged")


@pytest.mark.torch
def test_a_training_checkpoint_with_its_arguments(tmp_path):
    torch = pytest.importorskip("torch")
    args = argparse.Namespace(lr=0.1, model="vit", output=pathlib.Path("runs"), best=np.float64(0.5), nested={"a": []})
    state = {"model": {"a": torch.ones(2)}, "args": args, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}
    for new in (True, False):
        torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        np.testing.assert_array_equal(read(tmp_path / "x.pth").tensors["a"], np.ones(2))
    assert "argparse.Namespace" not in map(str, torch.serialization.get_safe_globals())  # allowed here alone


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_numpy_has_not_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    for value, said in (
        (torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.ones(2, 2).to_sparse(), r"float32 \(sparse_coo\)"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "qint8"),
    ):
        torch.save({"a": value}, tmp_path / "x.pth")
        assert_plain(tmp_path / "x.pth", f"holds 'a' as {said}, a type that is not supported")


@pytest.mark.torch
def test_a_small_storage_may_claim_a_huge_shape(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"head.weight": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"head.weight is \[1000000, 1000000\]|missing"):
        load_pretrained(NAME, tmp_path / "x.pth", num_classes=3, **FIELDS)
    twice = {"a": torch.ones(1)}
    for _ in range(40):
        twice = {"b": twice, "c": twice}
    torch.save(twice, tmp_path / "y.pth")
    assert_plain(tmp_path / "y.pth", "holds more than 1,000,000 values")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_malicious_pth(tmp_path):
    torch = pytest.importorskip("torch")
    Bomb.target = tmp_path / "trace"
    for new in (True, False):
        torch.save({"a": Bomb()}, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        assert_plain(tmp_path / "x.pth", "cannot be read safely")
    (tmp_path / "y.pth").write_bytes(pickle.dumps({"a": Bomb()}))
    assert_plain(tmp_path / "y.pth", "cannot be read safely")
    assert not Bomb.target.exists()


NAME, FIELDS = "vit_tiny_patch16_224", {"depth": 1, "embed_dim": 8, "num_heads": 2, "image_size": 32}
