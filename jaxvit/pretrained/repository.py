"""`hf_hub:user/name@revision`: any repository of the Hugging Face hub in timm's or Transformers' layout.

Nothing in it is trusted: only safetensors are fetched, the architecture is settled from `config.json` before the
weights are, and no file may be larger than that architecture allows.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError
from jaxvit.models.registry import model_entry, split_tag
from jaxvit.pretrained import files, hf_architecture, hub
from jaxvit.runtime import escape

PREFIXES = ("hf_hub:", "hf-hub:")  # as timm writes it
EXPECTED = "expected hf_hub:user/name or hf_hub:user/name@revision"
INDEX = "model.safetensors.index.json"
PICKLES = re.compile(r"\.(bin|pt|pth|ckpt|pkl|tar)$")
MAX_SHARDS = 1000
MAX_CONFIG = 2**26  # bytes
HEADER = 2**24  # bytes that names and metadata may take beside the numbers


def is_repository(word: Any) -> bool:
    """Whether a model or weight file is named by its repository on the hub."""
    return isinstance(word, str) and word.startswith(PREFIXES)


def parse(word: str) -> tuple[str, str | None]:
    """Splits "hf_hub:user/name@revision" into (repository, revision or None). Raises UserError for any other word."""
    repo, at, revision = word[len(PREFIXES[0]) :].partition("@")
    part = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
    if not re.fullmatch(f"{part}/{part}", repo, re.ASCII) or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise UserError(f"{escape.message(word, 120)!r} does not name a repository; {EXPECTED}.")
    if at and (not re.fullmatch(r"[\w./-]{1,200}", revision, re.ASCII) or ".." in revision):
        raise UserError(f"{escape.message(revision, 80)!r} is not a revision; {EXPECTED}: a branch, a tag or a commit.")
    return repo, revision or None


def read(
    word: str,
    name: str | None = None,
    *,
    revision: str | None = None,
    weights: str | None = None,
    most_bytes: Callable[[str, dict[str, Any]], int],
    cache_dir: str | Path | None = None,
) -> files.Checkpoint:
    """Reads the weights of a repository, downloading what the cache has not; `config` is in timm's words.

    `name` is the model where the repository does not say it; `most_bytes` says how large the weights of a model (name,
    config) may be. `source` names the commit. Raises UserError (one or two lines) for a repository that is not
    there, whose architecture is not known, or that has no safetensors.
    """
    repo, commit = _parse(word, revision)
    config, directory = _config(repo, commit, name, cache_dir)
    commit = directory.name if directory else commit
    said = hf_architecture.architecture(config) if name is None else name
    if said is None:
        raise UserError(
            f"{_place(repo)} has no config.json that names its architecture.\n"
            "Give the model's timm name, and this as its checkpoint."
        )
    limit = most_bytes(said, config) + HEADER
    paths, announced = _weights(repo, commit, limit, cache_dir)
    found = files.read(paths[0], weights=weights)
    for path in paths:
        hub.check(path, found.sha256 if path == paths[0] else files.sha256(path))
    return replace(found, config=config, source=f"{repo}@{announced}")


def read_config(word: str, name: str | None = None, *, cache_dir: str | Path | None = None) -> dict[str, Any]:
    """The `config.json` of a repository in timm's words, {} where it has none; the weights are not fetched."""
    return _config(*parse(word), name, cache_dir)[0]


def check_name(word: str, name: str, *, cache_dir: str | Path | None = None) -> None:
    """Raises UserError where a repository says that it is of another model than the timm name."""
    config = read_config(word, cache_dir=cache_dir)
    said = hf_architecture.architecture(config)
    if said is None or split_tag(said)[0] == split_tag(name)[0]:
        return
    if "model_type" in config and model_entry(said)[0] is model_entry(name)[0]:
        return  # Transformers has no names for the sizes of a model: the shapes decide
    raise UserError(f"{word} is {said!r}, model.name is {name!r}; give --config.model.name={split_tag(said)[0]}")


def _parse(word: str, revision: str | None) -> tuple[str, str | None]:
    repo, own = parse(word)
    if own is not None and revision is not None and own != revision:
        raise UserError(f"{word!r} and revision={revision!r} name different revisions; give one of them.")
    return repo, own if revision is None else revision


def _config(
    repo: str, revision: str | None, name: str | None, cache_dir: str | Path | None
) -> tuple[dict[str, Any], Path | None]:
    """The config in timm's words, and the directory of the commit in the cache (None: there is no config)."""
    path = _get(repo, "config.json", revision, MAX_CONFIG, cache_dir)
    if path is None:
        return {}, None
    config = files.read_config(path)
    if isinstance(config.get("model_type"), str):
        _get(repo, hf_architecture.PREPROCESSOR, path.parent.name, MAX_CONFIG, cache_dir)
    try:
        return hf_architecture.complete(config, path.parent, name), path.parent
    except UserError as error:
        raise UserError(f"{_place(repo)}: {error}") from None


def _weights(repo: str, commit: str | None, limit: int, cache_dir: str | Path | None) -> tuple[list[Path], str]:
    """The cached paths of the weights, that to read first, and the commit."""
    path = _get(repo, hub.WEIGHTS, commit, limit, cache_dir)
    if path is not None:
        return [path], path.parent.name
    index = _get(repo, INDEX, commit, MAX_CONFIG, cache_dir)
    if index is None:
        raise _without_weights(repo, commit)
    mapped = files.read_config(index).get("weight_map")
    shards = sorted({str(shard) for shard in mapped.values()}) if isinstance(mapped, dict) else []
    if not 0 < len(shards) <= MAX_SHARDS or not all(re.fullmatch(r"[\w-][\w.-]*\.safetensors", s) for s in shards):
        raise UserError(f"{_place(repo)}: {INDEX} names no safetensors next to it, or more than {MAX_SHARDS}.")
    paths = [index]
    for shard in shards:
        found = _get(repo, shard, index.parent.name, limit, cache_dir)
        if found is None:
            raise UserError(f"{_place(repo)}: {INDEX} names {shard!r}, which is not there.")
        limit = max(limit - found.stat().st_size, 0)
        paths.append(found)
    return paths, index.parent.name


def _without_weights(repo: str, commit: str | None) -> UserError:
    """What a repository has instead of safetensors of a known name."""
    from huggingface_hub import HfApi

    with hub.plain_errors(_place(repo), commit):
        there = HfApi().list_repo_files(repo, revision=commit)
    if pickles := [name for name in there if PICKLES.search(name)]:
        return UserError(
            f"{_place(repo)} has its weights only as pickles ({escape.message(pickles[0], 80)}), which can run code "
            "when they are opened; expected model.safetensors.\n"
            "If you trust the repository, download that file and pass its path (it needs the torch extra)."
        )
    return UserError(f"{_place(repo)} has no weights; expected {hub.WEIGHTS} or {INDEX}.")


def _get(repo: str, filename: str, revision: str | None, limit: int, cache_dir: str | Path | None) -> Path | None:
    """The cached path of a file of at most `limit` bytes, or None where the repository does not have it."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

    try:
        with hub.plain_errors(_place(repo), revision):
            cached = try_to_load_from_cache(repo, filename, cache_dir=cache_dir, revision=revision)
            offline, is_commit = hub.is_offline(), re.fullmatch("[0-9a-f]{40}", revision or "")
            if (offline or is_commit) and cached is _CACHED_NO_EXIST:
                return None
            if offline or is_commit and isinstance(cached, str):
                size = Path(cached).stat().st_size if isinstance(cached, str) else 0
            else:
                size = _size(repo, filename, revision, cache_dir)
            if size > limit:
                raise UserError(
                    f"{_place(repo)}: {filename} has {size:,} bytes; expected at most {limit:,} for this model."
                )
            return hub.cached(repo, filename, revision, cache_dir)
    except LocalEntryNotFoundError:
        raise UserError(
            f"{_place(repo)}: {filename} is not in the cache, and the hub cannot be reached.\n"
            f"Pass a local file or directory instead: {hub.HOW}"
        ) from None
    except EntryNotFoundError:
        return None


def _size(repo: str, filename: str, revision: str | None, cache_dir: str | Path | None) -> int:
    """The size that the hub announces, in bytes; of a file that is not there the client keeps a note in its cache."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import EntryNotFoundError

    try:
        return get_hf_file_metadata(hf_hub_url(repo, filename, revision=revision)).size or 0
    except EntryNotFoundError:
        hub.cached(repo, filename, revision, cache_dir)
        raise


def _place(repo: str) -> str:
    return f"{PREFIXES[0]}{repo}"
