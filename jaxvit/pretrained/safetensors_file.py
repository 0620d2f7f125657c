"""A .safetensors file -> views of the mapped file; every claim of its header is checked before anything is read."""

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxvit.errors import UserError

Tensors = dict[str, np.ndarray]

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself
MAX_BYTES = 2**62  # of one tensor; numpy counts in 64 bits
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}
# Types of the format in which no model of ours can be computed, mostly quantised weights without their scales.
UNSUPPORTED = (
    "F8_E4M3", "F8_E5M2", "F8_E4M3FN", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4", "C128",
)  # fmt: skip


def read(path: Path) -> Tensors:
    """Raises UserError for a damaged file and for a type of tensor that is not supported."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if len(start) < 8 or length > min(size - 8, MAX_HEADER):
            claim = f"its header claims {length:,} bytes" if len(start) == 8 else "it ends before the header"
            raise UserError(f"{path} is damaged or cut short: {claim}, but the file has {size:,}.")
        header = _parse_header(path, file.read(length))
    spans = sorted(_span(path, name, entry) for name, entry in header.items() if name != "__metadata__")
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            raise UserError(f"{path} is damaged: the bytes of {name!r} overlap another tensor or leave a gap.")
        end = stop
    if 8 + length + end != size:
        raise UserError(f"{path} is damaged or cut short: it needs {8 + length + end:,} bytes and has {size:,}.")
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if end else np.zeros(0, np.uint8)
    return {name: _view(data[begin:stop], header[name]) for begin, stop, name in spans}


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its header cannot be read.\n{error}") from None
    if not isinstance(header, dict):
        raise UserError(f"{path} is damaged: its header is not a table of tensors.")
    return header


def _span(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """Checks one entry of the header and returns where its bytes begin and end."""
    try:
        begin, stop = entry["data_offsets"]
        numbers = [begin, stop, *entry["shape"]]
        dtype = entry["dtype"]
        item = 1 if dtype in UNSUPPORTED else np.dtype(DTYPES[dtype]).itemsize
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged: {name!r} has no known dtype, shape and data_offsets.") from None
    if dtype in UNSUPPORTED:
        raise UserError(
            f"{path} holds {name!r} as {dtype}, a type that is not supported.\n"
            "Expected F32, F16, BF16 or F64; convert quantised weights to one of these types first."
        )
    count, room = 1, item  # `room`: what numpy computes for it, where a side of 0 makes nothing of the others
    for n in numbers[2:]:
        count *= n if type(n) is int else -1
        room *= max(n, 1) if type(n) is int else 1
    whole = all(type(n) is int and n >= 0 for n in numbers) and len(numbers) <= 34 and room <= MAX_BYTES
    if not whole or stop - begin != count * item:
        raise UserError(f"{path} is damaged: the bytes of {name!r} do not match its shape and type.")
    return begin, stop, name


def _view(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(DTYPES[entry["dtype"]])
    return np.asarray(data).view(dtype).reshape(entry["shape"])
