"""PyTorch's .pth -> named arrays, through torch's restricted unpickler; torch is an extra that only this needs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxvit.errors import UserError
from jaxvit.runtime import escape

MAX_VALUES = 1_000_000  # of all dictionaries together: a pickle may name the same one twice at every level

# What training scripts save besides weights (timm, DeiT and MAE their arguments). Nothing of it is read: each name
# stands for a class of ours that does nothing.
_BESIDE_WEIGHTS = (
    "argparse.Namespace",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in (
        "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath",
    )),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    "numpy.dtype",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
)  # fmt: skip


class _Ignored:
    """Takes anything and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read(path: Path) -> dict[str, Any]:
    """Reads the dictionary that a .pth holds: tensors become arrays that share their memory, nested ones included.

    Raises UserError where torch is absent or too old, for a damaged file, and for one that holds other objects.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} is a PyTorch pickle; reading it needs an extra: pip install 'jaxvit[torch]'\n"
            "A .safetensors file of the same weights needs no extra."
        ) from None
    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
        raise UserError(f"reading {path} needs torch >= 2.10, whose safe reader is fixed; found {torch.__version__}.")
    harmless: list[Any] = [(_Ignored, name) for name in _BESIDE_WEIGHTS]
    try:
        with torch.serialization.safe_globals(harmless):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(_reason(path, error)) from None
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path} holds a {type(loaded).__name__}; expected a state dict of named tensors.")
    return _arrays(torch, path, loaded, [0])


def _reason(path: Path, error: Exception) -> str:
    """The cause, in our own words: torch's advice is to trust the file, in a page with colours."""
    said = str(error)
    found = re.search(r"GLOBAL ([\w.]+)", said) or re.search(r"(?:got|function) <(?:class|function) '?([\w.]+)", said)
    if found:
        return (
            f"{path} cannot be read safely: it holds a {found[1]} in addition to the weights.\n"
            "Save only the weights where the file was made: torch.save(model.state_dict(), FILE)."
        )
    reason = type(error).__name__ if "weights_only" in said else escape.message(error, 200)
    return f"{path} cannot be read safely: it is damaged or holds more than weights.\n{reason}"


def _arrays(torch: Any, path: Path, values: Mapping[Any, Any], seen: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        seen[0] += 1
        if seen[0] > MAX_VALUES:
            raise UserError(f"{path} holds more than {MAX_VALUES:,} values; expected a state dict of named tensors.")
        if isinstance(value, Mapping):
            found[str(name)] = _arrays(torch, path, value, seen)
        elif isinstance(value, torch.Tensor):
            found[str(name)] = _array(torch, path, str(name), value)
        else:
            found[str(name)] = value
    return found


def _array(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    """A view of the tensor: a small storage may stand for a huge shape, so nothing is copied before shapes agree."""
    try:
        if tensor.dtype == torch.bfloat16:
            return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.detach().numpy()
    except (RuntimeError, TypeError, ValueError):
        kind = str(tensor.dtype).removeprefix("torch.")
        layout = "" if tensor.layout == torch.strided else f" ({str(tensor.layout).removeprefix('torch.')})"
        raise UserError(
            f"{path} holds {name!r} as {kind}{layout}, a type that is not supported.\n"
            "Expected float32, float16, bfloat16 or float64."
        ) from None
