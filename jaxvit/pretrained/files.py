"""Weight files -> named arrays: the content decides the format; only torch's safe reader ever unpickles."""

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxvit import escape
from jaxvit.errors import UserError
from jaxvit.paths import expand
from jaxvit.pretrained import foreign

Tensors = dict[str, np.ndarray]

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself
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
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
# What a directory may hold, best first.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "*.safetensors", "*.npz", "*.pth", "*.pt", "*.bin")


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a file with their own names, the `config.json` beside it, and which file that was exactly."""

    tensors: Tensors
    path: Path
    sha256: str
    config: dict[str, Any] = field(default_factory=dict)
    source: str = ""  # the hub's address with the commit; empty for a local file


def read(path: str | Path, *, source: str = "") -> Checkpoint:
    """Reads a .safetensors, .npz, .pth or .pt file, or a directory with one of them and perhaps a `config.json`.

    Raises UserError (one or two lines) for a file that is absent, damaged, of an unknown format or unsafe to open.
    """
    path = expand(path)
    if not path.exists():
        raise UserError(f"no such weight file: {path}")
    config = config_of(path)
    file = weight_file(path) if path.is_dir() else path
    reader = _read_index if file.name.endswith(".index.json") else _reader(file)
    try:
        tensors = foreign.unwrap(reader(file))
    except (OSError, MemoryError, RecursionError) as error:
        raise UserError(f"cannot read {file}\n{type(error).__name__}: {error}".rstrip(": ")) from None
    if not tensors:
        raise UserError(f"{file} holds no tensors.")
    return Checkpoint(tensors, file, sha256(file), config, source)


def weight_file(directory: Path) -> Path:
    """The weights in a directory: model.safetensors, else its index of shards, else the only other weight file."""
    for pattern in WEIGHT_FILES:
        found = sorted(directory.glob(pattern))
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise UserError(f"{directory} holds {len(found)} weight files: {names}\nName the one to load.")
        if found:
            return found[0]
    raise UserError(f"no weights in {directory}; expected model.safetensors or one .safetensors, .npz or .pth file.")


def read_config(path: Path) -> dict[str, Any]:
    """The `config.json` beside the weights, or {} where there is none."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}\n{error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds a {type(config).__name__}; expected an object of words and values.")
    return config


def config_of(path: Path) -> dict[str, Any]:
    """The `config.json` that belongs to a weight file or directory, or {}."""
    return read_config(path / "config.json") if path.is_dir() else _config_beside(path)


def _config_beside(path: Path) -> dict[str, Any]:
    """A single file's neighbour counts only where timm wrote it; any other `config.json` is none of ours."""
    try:
        config = read_config(path.parent / "config.json")
    except UserError:
        return {}
    return config if isinstance(config.get("architecture"), str) else {}


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reader(path: Path) -> Callable[[Path], dict[str, Any]]:
    """Chooses by the first bytes, since names lie."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(f"cannot read {path}\n{error.strerror}") from None
    if not start:
        raise UserError(f"{path} is empty; expected a .safetensors, .npz or .pth file.")
    if start.startswith(b"PK"):
        return _read_zip
    if start.startswith(b"\x80") and path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar"):  # a bare pickle
        return _read_torch
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return read_safetensors
    raise UserError(f"{path} is no weight file that can be read; expected .safetensors, .npz, .pth or .pt.")


def read_safetensors(path: Path) -> Tensors:
    """Reads a safetensors file as views of the mapped file; every claim of its header is checked first."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if len(start) < 8 or length > min(size - 8, MAX_HEADER):
            claim = f"its header claims {length:,} bytes" if len(start) == 8 else "it ends before the header"
            raise UserError(f"{path} is damaged or cut short: {claim}, the file has {size:,}.")
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
        raise UserError(f"{path} is damaged: its header is no table of tensors.")
    return header


def _span(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """Checks one entry of the header and returns where its bytes begin and end."""
    try:
        begin, stop = entry["data_offsets"]
        numbers = [begin, stop, *entry["shape"]]
        item = np.dtype(DTYPES[entry["dtype"]]).itemsize
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged: {name!r} has no known dtype, shape and data_offsets.") from None
    count = 1
    for n in numbers[2:]:
        count *= n if type(n) is int else -1
    if any(type(n) is not int or n < 0 for n in numbers) or stop - begin != count * item or len(numbers) > 34:
        raise UserError(f"{path} is damaged: the bytes of {name!r} do not match its shape and type.")
    return begin, stop, name


def _view(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(DTYPES[entry["dtype"]])
    return np.asarray(data).view(dtype).reshape(entry["shape"])


def _read_index(path: Path) -> Tensors:
    """Reads the shards that `model.safetensors.index.json` lists; they must lie beside it."""
    shards = read_config(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{path} has no weight_map of tensor names to file names.")
    tensors: Tensors = {}
    for name in sorted(set(shards.values())):
        file = path.parent / name
        if Path(name).name != name or not file.is_file():
            raise UserError(f"{path} names the shard {name!r}, which is not beside it.")
        tensors.update(read_safetensors(file))
    return tensors


def _read_zip(path: Path) -> dict[str, Any]:
    """A zip archive is numpy's .npz or torch's .pth: the names inside tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("data.pkl") for name in names):
                if (damaged := archive.testzip()) is not None:  # torch itself does not look
                    raise UserError(f"{path} is damaged: the checksum of {damaged!r} does not match.")
                return _read_torch(path)
            return {name.removesuffix(".npy"): _read_npy(path, archive, name) for name in names}
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy fail in a dozen ways on damaged bytes
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _read_npy(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Reads one member without ever unpickling; the array must be as large as the archive says."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise UserError(f"{path} is damaged: {name!r} is a .npy file of version {version}.")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype.hasobject:
            raise UserError(f"{path} holds pickled Python objects ({name!r}); only plain arrays are read.")
        count = 1
        for n in shape:
            count *= n
        if min(shape, default=0) < 0 or file.tell() + count * dtype.itemsize != size:
            raise UserError(f"{path} is damaged: {name!r} does not have as many bytes as its shape needs.")
        array = np.frombuffer(file.read(), dtype) if count else np.zeros(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _read_torch(path: Path) -> dict[str, Any]:
    """Reads a .pth with torch's restricted unpickler; torch is an extra that only this needs."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} is a PyTorch pickle; reading it needs the extra: pip install 'jaxvit[torch]'\n"
            "A .safetensors file of the same weights needs nothing."
        ) from None
    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
        raise UserError(f"reading {path} needs torch >= 2.10, whose safe reader is mended; found {torch.__version__}.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = escape.message(error, 200)
        raise UserError(f"{path} cannot be read safely: it is damaged or holds more than weights.\n{reason}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds a {type(loaded).__name__}; expected a state dict of named tensors.")
    return _from_torch(torch, loaded)


def _from_torch(torch: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _from_torch(torch, part) for name, part in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    tensor = value.detach().cpu().to_dense() if value.layout != torch.strided else value.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.contiguous().numpy()
