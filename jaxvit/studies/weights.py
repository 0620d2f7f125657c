"""Where the weights are that a row starts from: a local file in the directory given, or the hub."""

from pathlib import Path

from jaxvit import models, pretrained
from jaxvit.build import parts
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.models.registry import tag_info
from jaxvit.pretrained import hub
from jaxvit.runtime.paths import expand

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin")
DATA_WORDS = ("mean", "std", "crop_pct", "interpolation")


class Missing(UserError):
    """The weights are neither on this machine nor on the hub."""


def local(name: str, directory: str | Path) -> Path | None:
    """The file or directory of a timm name: NAME.TAG, or NAME alone, with a weight file's suffix or as a directory."""
    root, base = expand(directory), models.split_tag(name)[0]
    for stem in dict.fromkeys((name, base)):
        for path in (root / stem, *(root / f"{stem}{suffix}" for suffix in SUFFIXES)):
            if path.exists():
                return path.resolve()
    return None


def place(config: Config, directory: str | None) -> None:
    """Lets `config.pretrained` name weights that are there; raises Missing, never leaves a row without them."""
    name = config.pretrained
    if name is None:
        return
    if pretrained.is_repository(name):
        pretrained.stored_data_config(config.model.name, name)  # refuses one that is not there
        return
    if parts.pretrained_name(name) is None:  # a path
        if not expand(name).exists():
            raise Missing(f"no weight file {name!r}")
        return
    found = None if directory is None else local(name, directory)
    if found is not None:
        words = models.data_config(name)
        for word in DATA_WORDS:  # a bare file does not say what its tag does
            if config.data[word] is None and not (found / "config.json").exists():
                config.data[word] = words[word]
        config.pretrained = str(found)
        return
    info = tag_info(name)
    if not info["hub"]:
        said = f"{name} is not on the hub; its file is at {info['url']}" if info["url"] else f"{name} has no weights"
        raise Missing(_where(said, name, directory))
    try:
        hub.download(info["hub"], hub.WEIGHTS, name, None, None)
    except UserError as error:
        raise Missing(_where(str(error).splitlines()[0], name, directory)) from None


def _where(said: str, name: str, directory: str | None) -> str:
    hint = f"put {name}.safetensors into a directory and pass that directory as --checkpoints"
    return f"{said}, and is not in {directory}" if directory else f"{said}; {hint}"
