"""A synthetic archive in the layout of CIFAR's."""

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np

from jaxvit.data.sources import cifar

PER_FILE = 20


def arrays(name: str, split: str, file: str):
    """Labels [PER_FILE, keys] and images [PER_FILE, 32, 32, 3] of one file of the synthetic archive."""
    rng = np.random.default_rng(len(name) + sum(map(ord, file)))
    keys = len(cifar.ARCHIVES[name].label_names)
    labels = np.stack([rng.permutation(PER_FILE) % 10 for _ in range(keys)], 1).astype(np.uint8)
    return labels, rng.integers(0, 256, (PER_FILE, 32, 32, 3), np.uint8)


def archive_bytes(name: str, *, leave_out: str = "", cut: int = 0, extra: tuple = ()) -> bytes:
    spec = cifar.ARCHIVES[name]
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:gz") as tar:

        def add(path: str, content: bytes, **fields) -> None:
            info = tarfile.TarInfo(path)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        for path, content, fields in extra:
            add(path, content, **fields)
        for split, files in spec.members.items():
            for file in files:
                labels, images = arrays(name, split, file)
                rows = np.concatenate([labels, images.transpose(0, 3, 1, 2).reshape(PER_FILE, -1)], 1)
                if file != leave_out:
                    add(f"{spec.folder}/{file}", rows.tobytes()[: len(rows.tobytes()) - cut])
        for key, file in spec.label_names.items():
            names = [f"{key} {i}" for i in range(spec.num_classes[key])]
            add(f"{spec.folder}/{file}", "\n".join(names).encode() + b"\n\n")
    return buffer.getvalue()


def save_archive(directory: Path, name: str, monkeypatch=None, **changes) -> str:
    content = archive_bytes(name, **changes)
    file = directory / f"{name}.tar.gz"
    file.write_bytes(content)
    if monkeypatch is not None:
        md5 = hashlib.md5(content).hexdigest()
        monkeypatch.setitem(cifar.ARCHIVES, name, dataclasses.replace(cifar.ARCHIVES[name], md5=md5))
    return str(file)
