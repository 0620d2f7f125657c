"""Zip archives: numpy's .npz, read member by member, and torch's .pth. What is inside is judged before it is read."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxvit.errors import UserError
from jaxvit.pretrained import torch_file

FREE_BYTES = 2**28  # that any .npz may unpack to
MOST_RATIO = 16  # of unpacked to packed bytes, where no model says more; weights hardly compress


def read(path: Path, most: Callable[[], int | None] | None = None) -> dict[str, Any]:
    """The names inside tell which of the two it is. Raises UserError for damage and for more bytes than `most()`."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any("/code/__torch__" in member.filename for member in members):
                raise UserError(
                    f"{path} is a program of TorchScript, not a state dict.\n"
                    "Save only its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW)."
                )
            if any(member.filename.endswith("data.pkl") for member in members):
                packed = next((m.filename for m in members if m.compress_type != zipfile.ZIP_STORED), None)
                if packed is not None:
                    raise UserError(f"{path} is not a file of torch's: {packed!r} inside is compressed.")
                if (damaged := archive.testzip()) is not None:  # torch itself does not look
                    raise UserError(f"{path} is damaged: the checksum of {damaged!r} does not match.")
                return torch_file.read(path)
            unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
            room = most() if most is not None and unpacked > FREE_BYTES else None
            if unpacked > FREE_BYTES + (MOST_RATIO * packed if room is None else room):
                wanted = "" if room is None else f"; the model has room for {room / 1e6:,.0f} MB"
                raise UserError(f"{path} unpacks from {packed / 1e6:,.0f} MB to {unpacked / 1e6:,.0f} MB{wanted}.")
            names = [member.filename for member in members]
            if len(set(names)) < len(names):
                raise UserError(f"{path} is damaged: a name occurs twice.")
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
    if dtype == np.dtype("V2"):  # how numpy writes a bfloat16, which it does not know; JAX's own files have them
        array = array.view(ml_dtypes.bfloat16)
    return array.reshape(shape, order="F" if fortran else "C")
