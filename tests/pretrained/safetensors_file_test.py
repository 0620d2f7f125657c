"""Safetensors: what is read, what is damaged."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvit.pretrained import files, read
from tests.helpers import pretrained as helpers
from tests.helpers.weight_files import TENSORS, assert_plain


def header_file(path, header, data=b"", length=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors")
    helpers.assert_same(found.tensors, TENSORS)
    assert found.sha256 == files.sha256(tmp_path / "x.safetensors")
    assert len(found.sha256) == 64 and found.config == {}


def test_bfloat16(tmp_path):
    array = np.array([1, 2.5], ml_dtypes.bfloat16)
    path = header_file(tmp_path / "x", {"a": entry("BF16", (2,), (0, 4))}, array.tobytes())
    np.testing.assert_array_equal(read(path).tensors["a"], array)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3"])
def test_types_that_are_not_supported_are_named(tmp_path, dtype):
    path = header_file(tmp_path / "x.safetensors", {"a": entry(dtype, (4,))}, b"\0" * 4)
    assert_plain(path, f"holds 'a' as {dtype}, a type that is not supported.\nExpected F32")


DAMAGED = {
    "too short": (b"", 8, "cut short"),
    "claims 4 GB": (b"{}", 1 << 32, "claims 4,294,967,296 bytes"),
    "claims all of 64 bits": (b"{}", (1 << 64) - 1, "claims"),
    "no JSON": (b"{nonsense}", None, "header cannot be read"),
    "no UTF-8": (b'{"\xff\xfe": 1}', None, "header cannot be read"),
    "nested too deep": (b'{"a":' + b"[" * 100_000 + b"}", None, "header cannot be read"),
    "a list": (b"{}[", None, "header cannot be read"),
    "name twice": (b'{"a": 1, "a": 2}', None, "occurs twice"),
    "unknown type": ({"a": entry("F31")}, None, "no known dtype"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, None, "no known dtype"),
    "entry is a word": ({"a": "x"}, None, "no known dtype"),
    "size is not the shape's": ({"a": entry(shape=(2,))}, None, "do not match its shape"),
    "negative": ({"a": entry(shape=(-1,), offsets=(4, 0))}, None, "do not match its shape"),
    "fractions": ({"a": entry(offsets=(0, 4.0))}, None, "do not match its shape"),
    "huge side beside none": ({"a": entry(shape=(0, 10**30), offsets=(0, 0))}, None, "do not match its shape"),
    "huge sides beside none": ({"a": entry(shape=(0, 2**40, 2**40), offsets=(0, 0))}, None, "do not match its shape"),
    "a side of 1e30": ({"a": entry(shape=(0, 1e30), offsets=(0, 0))}, None, "do not match its shape"),
    "huge shape": ({"a": entry(shape=(1 << 62, 1 << 62), offsets=(0, 4))}, None, "do not match its shape"),
    "overlap": ({"a": entry(), "b": entry(offsets=(2, 6))}, None, "overlap"),
    "gap": ({"a": entry(), "b": entry(offsets=(6, 10))}, None, "overlap"),
    "beyond the end": ({"a": entry(shape=(2,), offsets=(0, 8))}, None, "needs .* bytes and has"),
    "nothing inside": ({}, None, "needs|no tensors"),
}


@pytest.mark.parametrize("case", DAMAGED.values(), ids=DAMAGED)
def test_damaged_safetensors(tmp_path, case):
    header, length, match = case
    assert_plain(header_file(tmp_path / "x.safetensors", header, b"\0" * 4, length), match)
