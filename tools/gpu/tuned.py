"""Which kernels XLA found the fastest: kept from one lent machine for the next one of the same kind.

A program of convolutions compiles for a minute and a half, nine tenths of which go into trying kernels; the results
are files of a hundred bytes, which XLA finds by the operation, the kind of GPU and the versions.
"""

import io
import tarfile
from pathlib import Path

FILE = Path("results/gpu/tuned.tar.xz")
FOLDER = "xla_gpu_"  # begins the name of XLA's folder in the cache of compiled programs
MOST = 4096  # bytes of a file


def keep(cache: Path, root: Path) -> int:
    """Adds what `cache`, a tar of a cache of compiled programs, has of them; returns how many are new."""
    if not cache.is_file():
        return 0
    known = _read(root / FILE)
    found = {name: data for name, data in _read(cache).items() if name.startswith(FOLDER) and len(data) <= MOST}
    new = {name: data for name, data in found.items() if name not in known}
    if new:
        partial = (root / FILE).with_name(f".{FILE.name}.tmp")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(partial, "w:xz") as tar:
            for name, data in sorted({**known, **new}.items()):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        partial.replace(root / FILE)
    return len(new)


def _read(path: Path) -> dict[str, bytes]:
    if not path.is_file():
        return {}
    with tarfile.open(path) as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar.getmembers() if member.isfile())
        return {name: file.read() for name, file in files if file is not None}
