"""NumPy's archives, judged before they are unpacked."""

import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxvit.errors import UserError
from jaxvit.pretrained import load_pretrained, read, zip_file
from tests.helpers import pretrained as helpers
from tests.helpers.weight_files import TENSORS, Bomb, assert_plain


@pytest.mark.parametrize("compressed", [True, False])
def test_npz(tmp_path, compressed):
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", **TENSORS, f=np.asfortranarray(np.eye(3)))
    found = read(tmp_path / "x.npz").tensors
    np.testing.assert_array_equal(found.pop("f"), np.eye(3))
    helpers.assert_same(found, TENSORS)


def test_bfloat16_in_an_npz_as_jax_programs_write_it(tmp_path):
    array = np.array([[1, 2.5]], ml_dtypes.bfloat16)
    np.savez(tmp_path / "x.npz", a=array)
    helpers.assert_same(read(tmp_path / "x.npz").tensors, {"a": array})


def test_an_npz_is_judged_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_file, "FREE_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abc":
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.zeros(2**21, np.float32))
    monkeypatch.setattr(zip_file, "_read_npy", lambda *_: pytest.fail("was unpacked"))
    assert_plain(tmp_path / "x.npz", "unpacks from 0 MB to 25 MB")
    with pytest.raises(UserError, match="to 25 MB; the model has room for 1 MB"):
        load_pretrained(NAME, tmp_path / "x.npz", **FIELDS)


def test_npz_never_unpickles(tmp_path):
    Bomb.target = tmp_path / "trace"
    np.savez(tmp_path / "x.npz", a=np.array([Bomb()], dtype=object))
    assert_plain(tmp_path / "x.npz", "holds pickled Python objects")
    assert not Bomb.target.exists()


def test_npz_whose_header_claims_too_much(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros((4, 4), np.float32))
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        content = archive.read("a.npy")
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("a.npy", content.replace(b"(4, 4)", b"(99999999, 9999)")[: len(content)])
    assert_plain(tmp_path / "y.npz", "is damaged")


NAME, FIELDS = "vit_tiny_patch16_224", {"depth": 1, "embed_dim": 8, "num_heads": 2, "image_size": 32}
