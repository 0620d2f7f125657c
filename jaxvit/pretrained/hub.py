"""Weights by timm's name from the Hugging Face hub: a pinned revision, the shared cache, offline use."""

import contextlib
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError
from jaxvit.models.registry import tag_info
from jaxvit.pretrained import files
from jaxvit.runtime import console, escape, verbosity

WEIGHTS = "model.safetensors"
HOW = "--config.pretrained=FILE in training, --checkpoint FILE with --model, checkpoint=FILE in Python"


def fetch(name: str, *, revision: str | None = None, cache_dir: str | Path | None = None) -> files.Checkpoint:
    """Reads the weights of a timm name, with or without tag, downloading them where the cache has them not.

    `revision` pins a commit, branch or tag of the hub's repository; `Checkpoint.source` names the commit that was
    read, `Checkpoint.sha256` the file. Offline (HF_HUB_OFFLINE=1) only the cache is asked. Raises UserError that says
    how to pass a local file where the hub cannot be reached or has no weights.
    """
    info = tag_info(name)
    full = f"{info['name']}.{info['tag']}" if info["tag"] else info["name"]
    if not info["hub"]:
        where = f"they are at {info['url']}" if info["url"] else "none have been published"
        raise UserError(f"{full} has no weights on the Hugging Face hub: {where}.\nPass a file: {HOW}.")
    path = download(info["hub"], WEIGHTS, full, revision, cache_dir)
    with contextlib.suppress(UserError):  # old repositories have none; our own table says the same
        download(info["hub"], "config.json", full, path.parent.name, cache_dir)
    found = files.read(path, source=f"{info['hub']}@{path.parent.name}")
    check(path, found.sha256)
    return found


def download(repo: str, filename: str, name: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    """Returns the cached path of one file of a repository, `.../snapshots/COMMIT/FILE`."""
    from huggingface_hub import constants

    known = _is_known(constants.ENDPOINT)
    try:
        return cached(repo, filename, revision, cache_dir)
    except Exception as error:  # the hub's client, its HTTP library and the disk each have their own exceptions
        address = f"{constants.ENDPOINT}/{repo}/resolve/{revision or 'main'}/{filename}"
        reason = (
            _reason(error) if known else f"no network, {urllib.parse.urlsplit(address).hostname} cannot be resolved"
        )
        raise UserError(
            f"cannot get the weights of {name} from the Hugging Face hub: {reason}\n"
            f"Pass a local file instead, for instance a copy of {address}: {HOW}"
        ) from None


def cached(repo: str, filename: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    """As `download`, with the errors of the hub's client."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()  # its warnings of every retry would bury the two lines of an error
    known = _is_known(constants.ENDPOINT)
    if verbosity.level == verbosity.QUIET:
        disable_progress_bars()
    with (
        contextlib.nullcontext() if console.err.moves else console.working(f"{repo}: {filename}")
    ):  # the client has a bar there
        return Path(hf_hub_download(repo, filename, revision=revision, cache_dir=cache_dir, local_files_only=not known))


def is_offline() -> bool:
    """Whether only the cache can be asked."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or not _is_known(constants.ENDPOINT)


@contextlib.contextmanager
def plain_errors(place: str, revision: str | None) -> Iterator[None]:
    """The errors of the hub's client about a repository as UserError; that a file is not in it stays the client's."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    login = "`hf auth login`"
    try:
        yield
    except (UserError, EntryNotFoundError):
        raise
    except GatedRepoError:
        repo = place.partition(":")[2]
        raise UserError(
            f"{place} is gated: its owner gives access on request.\nAsk at {constants.ENDPOINT}/{repo}, then {login}."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"no repository {place} on {constants.ENDPOINT}, or it is private.\n"
            f"Check the name; for a private one, log in first: {login}."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{place} has no revision {revision!r}; expected a branch, a tag or a commit of it.") from None
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            said = escape.message(str(error.server_message or error), 160)
            raise UserError(f"the hub refuses {place}: {said}\nLog in with a token that has access: {login}.") from None
        raise UserError(f"{place}: {_reason(error)}") from None
    except Exception as error:  # the hub's client, its HTTP library and the disk each have exceptions of their own
        raise UserError(f"{place}: {_reason(error)}\nPass a local file instead: {HOW}") from None


def check(path: Path, sha256: str) -> None:
    """Raises UserError where a cached file is not what the hub announced: large ones are stored under their SHA-256."""
    announced = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", announced) and announced != sha256:
        raise UserError(
            f"{path} is damaged: its SHA-256 is {sha256[:16]}..., the hub's is {announced[:16]}...\n"
            f"delete {path.resolve()} to download it again"
        )


def _is_known(endpoint: str) -> bool:
    """Whether the hub's name can be looked up: without a network the client would retry for half a minute."""
    if urllib.request.getproxies():  # names are then looked up elsewhere
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, 443)
    except OSError:
        return False
    return True


def _reason(error: Any) -> str:
    said = escape.message(str(error), 160)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
