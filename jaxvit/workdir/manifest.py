"""Manifests: the SHA-256 of files as they were written, and a summary hash over the manifest itself."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxvit.runtime.files import replacing

NAME = "manifest.json"


def sha256(path: Path) -> str:
    """Returns the hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    """Returns the hash of a file's content to be."""
    return hashlib.sha256(content).hexdigest()


def files_below(directory: Path) -> list[str]:
    """Returns the files below a directory by relative name, sorted, its own manifest aside."""
    names = (p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file() or p.is_symlink())
    return sorted(name for name in names if name != NAME)


def write(path: Path, files: Mapping[str, str]) -> None:
    """Writes a manifest of {name: SHA-256}, whole or not at all."""
    text = json.dumps({"files": dict(files), "summary": _summary(files)}, indent=1)
    with replacing(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read(path: Path) -> dict[str, str] | None:
    """Returns what a manifest holds, or None where it is missing or is not as it was written."""
    try:
        content = json.loads(path.read_bytes())
        files = content["files"]
        good = isinstance(files, dict) and content["summary"] == _summary(files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return files if good else None


def differences(directory: Path, wanted: Mapping[str, str], found: Iterable[str]) -> list[str]:
    """Says of each file of `directory` that is not as `wanted` has it, how: "a/b has changed"."""
    found = set(found)
    said = []
    for name in sorted(wanted.keys() | found):
        if name not in found:
            said.append(f"{name} is missing")
        elif name not in wanted:
            said.append(f"{name} was added")
        else:
            try:
                if sha256(directory / name) != wanted[name]:
                    said.append(f"{name} has changed")
            except OSError as error:
                said.append(f"{name} cannot be read ({error.strerror})")
    return said


def _summary(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()
