"""Weight files -> named arrays: the content decides the format; only torch's safe reader ever unpickles."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.config import files
from jaxvit.data import formats
from jaxvit.data.files import hidden
from jaxvit.errors import UserError
from jaxvit.pretrained import safetensors_file, torch_file, wrappers, zip_file
from jaxvit.runtime.paths import expand, near

Tensors = dict[str, np.ndarray]

WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".pth.tar", ".ckpt")
# What a directory may hold, best first: the names that savers give to whole weights, then what there is only one of.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model_best.pth.tar",
    *(f"*{suffix}" for suffix in WEIGHT_SUFFIXES),
)
# What trainers save next to the weights (Transformers, Accelerate, DeepSpeed): never the weights themselves.
BESIDE = r"(training_args|optimizer|scheduler|scaler|rng_state|random_states?|trainer_state)[\w.-]*\.(bin|pt|pth)$"
NOT_FETCHED = {
    "Git LFS": "a pointer of Git LFS (fetch the file with 'git lfs pull')",
    "HTML": "an HTML page (perhaps from a failed download)",
}
SHARD = r"-(\d{5})-of-(\d{5})\."
MAX_CONFIG = 2**26  # bytes; an index of shards has a line for each tensor


@dataclass(frozen=True)
class Checkpoint:
    """The arrays of a file with their own names, the `config.json` next to it, and which file that was exactly."""

    tensors: Tensors
    path: Path
    sha256: str
    config: dict[str, Any] = field(default_factory=dict)
    source: str = ""  # the hub's address with the commit; empty for a local file
    notes: tuple[str, ...] = ()  # which of several sets of weights was read


def read(
    path: str | Path,
    *,
    source: str = "",
    weights: str | None = None,
    most_bytes: Callable[[], int | None] | None = None,
) -> Checkpoint:
    """Reads a .safetensors, .npz, .pth or .pt file, or a directory with one of them and perhaps a `config.json`.

    `weights` is "ema" or "raw" where a file holds both. `most_bytes` says what an .npz may unpack to. Raises
    UserError (one or two lines) for a file that is absent, damaged, of an unknown format, a part of the weights or
    unsafe to open.
    """
    wrappers.check(weights)
    path = expand(path, "checkpoint")
    if not path.exists():
        raise UserError(f"no such weight file: {path}.{near(path)}")
    if not path.is_dir():
        _check_plain(path)
    config = config_of(path)
    file = weight_file(path) if path.is_dir() else path
    try:
        if file.name.endswith(".index.json"):
            found = _read_index(file)
        else:
            _check_whole(file)
            found = _read_one(file, most_bytes)
        tensors, notes = wrappers.unwrap(found, weights)
    except (OSError, MemoryError, RecursionError) as error:
        raise UserError(f"cannot read {file}\n{type(error).__name__}: {error}".rstrip(": ")) from None
    if not tensors:
        raise UserError(f"{file} holds no tensors.")
    return Checkpoint(tensors, file, sha256(file), config, source, tuple(notes))


def is_run(directory: Path) -> bool:
    """Whether a directory is the workdir of a run; one that `export` wrote has class names too, but weights."""
    there = {name: (directory / name).is_file() for name in ("config.json", "classes.json", WEIGHT_FILES[0])}
    return list(there.values()) == [True, True, False]


def run_data_config(directory: Path) -> dict[str, Any]:
    """The preprocessing of a run, which its workdir records."""
    config = read_config(directory / "config.json")
    try:
        channels, data = int(config["model"]["in_channels"]), config["data"]
        size, mean, std = (tuple(data[word]) for word in ("image_size", "mean", "std"))
        words = {word: data[word] for word in ("crop_pct", "interpolation")}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{directory / 'config.json'} is not the config of a run of jaxvit") from None
    return {"image_size": size, "mean": mean, "std": std, "in_channels": channels, **words}


def weight_file(directory: Path) -> Path:
    """The weights in a directory: those of a name that savers use, else the only other weight file."""
    if is_run(directory):
        raise UserError(
            f"{directory} is the workdir of a run, which has checkpoints and no weight file\n"
            f"jaxvit.load_run or --workdir opens it, and convert --from {directory} writes its weights"
        )
    for pattern in WEIGHT_FILES:
        inside = (f for f in directory.glob(pattern) if f.is_file() and not hidden(f.name))
        found = sorted(f for f in inside if not re.match(BESIDE, f.name))
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            if all(re.search(SHARD, file.name) for file in found):
                raise UserError(f"{directory} holds {names} without the .index.json that assigns tensors to files.")
            raise UserError(f"{directory} holds {len(found)} weight files: {names}\nPass the path of the one to load.")
        if found:
            return found[0]
    raise UserError(f"no weights in {directory}; expected model.safetensors or one .safetensors, .npz or .pth file.")


def read_config(path: Path) -> dict[str, Any]:
    """The `config.json` next to the weights, or {} if there is none."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CONFIG + 1)
        if len(text) > MAX_CONFIG:
            raise ValueError(f"it is longer than {MAX_CONFIG:,} characters")
        config = files.parse_json(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}\n{error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds a {type(config).__name__}; expected an object of names and values.")
    return config


def config_of(path: Path) -> dict[str, Any]:
    """The `config.json` that belongs to a weight file or directory, or {}."""
    return read_config(path / "config.json") if path.is_dir() else _config_beside(path)


def _config_beside(path: Path) -> dict[str, Any]:
    """A single file's neighbour counts only where timm or Transformers wrote it; any other is none of ours."""
    try:
        config = read_config(path.parent / "config.json")
    except UserError:
        return {}
    return config if any(isinstance(config.get(word), str) for word in ("architecture", "model_type")) else {}


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_plain(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is a pipe, a device or a socket; expected a plain file.")


def _check_whole(path: Path) -> None:
    shard = re.search(SHARD, path.name)
    if shard and int(shard[2]) > 1:
        raise UserError(
            f"{path} is one of {int(shard[2])} parts of the weights.\n"
            "Name their directory or their .index.json instead, with all parts next to it."
        )


def _read_one(path: Path, most_bytes: Callable[[], int | None] | None = None) -> dict[str, Any]:
    """Chooses the reader by the first bytes, since names lie."""
    try:
        with path.open("rb") as file:
            start = file.read(formats.HEAD)
    except OSError as error:
        raise UserError(f"cannot read {path}\n{error.strerror}") from None
    if not start:
        raise UserError(f"{path} is empty; expected a .safetensors, .npz or .pth file.")
    if (kind := formats.identify(start)) in NOT_FETCHED:
        raise UserError(f"{path} is {NOT_FETCHED[kind]}, not the weights")
    if start.startswith(b"PK"):
        return zip_file.read(path, most_bytes)
    if start.startswith(b"\x80") and path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar"):  # a bare pickle
        return torch_file.read(path)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return safetensors_file.read(path)
    raise UserError(f"{path} is not a weight file that can be read; expected .safetensors, .npz, .pth or .pt.")


def _read_index(path: Path) -> Tensors:
    """Reads the shards of a `*.index.json`, which must be next to it and hold what it lists, each tensor once."""
    mapped = read_config(path).get("weight_map")
    if not isinstance(mapped, dict) or not all(isinstance(name, str) for name in mapped.values()):
        raise UserError(f"{path} has no weight_map of tensor names to file names.")
    tensors: Tensors = {}
    for shard in sorted(set(mapped.values())):
        file = path.parent / shard
        if Path(shard).name != shard or not file.is_file():
            raise UserError(f"{path} names the shard {shard!r}, which is not next to it.")
        found = _read_one(file)
        missing = next((name for name, said in mapped.items() if said == shard and name not in found), None)
        if missing is not None:
            raise UserError(f"{path} says that {missing!r} is in {shard!r}, which does not hold it.")
        for name in found:
            if mapped.get(name) != shard:
                said = f"says {mapped[name]!r}" if name in mapped else "does not list it"
                raise UserError(f"{file} holds {name!r}, for which {path.name} {said}.")
        tensors |= found
    return tensors
