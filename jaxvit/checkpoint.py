"""Checkpoints of a run through orbax: the newest states to go on from, and the best by validation metric.

Neither orbax nor TensorStore keeps a checksum of the values: a flipped bit is restored without a word. So each step has
a manifest with the SHA-256 of its files, written when the save is complete and checked before every restore. A step
without a manifest was cut off, one that differs is damaged; both are set aside and the newest intact one is used.
"""

import hashlib
import json
import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxvit.console import err
from jaxvit.errors import UserError
from jaxvit.tree import named_leaves

KEEP = {"last": 2, "best": 1}


class Checkpoints:
    """`<directory>/last/<step>` and `<directory>/best/<step>`, each a tree of arrays and a JSON object `meta`.

    Saves run in the background; orbax writes under a temporary name and renames, so that a killed save leaves no
    step behind. An error of a background save is raised by the next call.
    """

    def __init__(self, directory: Path, *, read_only: bool = False):
        """Opens the directory, which need not exist; `read_only` creates and moves nothing."""
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports each of its phases there
        self._directory, self._read_only = directory.absolute(), read_only
        for kind in KEEP:
            for step in _numbered(self._directory / kind):
                if not self._manifest(kind, step).is_file() and not read_only:
                    self._set_aside(kind, step)  # cut off before it was complete
        self._managers = {
            kind: ocp.CheckpointManager(
                self._directory / kind,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=None if read_only else keep, read_only=read_only, create=not read_only
                ),
            )
            for kind, keep in KEEP.items()
        }
        self._sealer = ThreadPoolExecutor(len(KEEP))
        self._sealing: dict[str, Future] = {}  # kind -> its save under way

    def steps(self, kind: str) -> list[int]:
        """The complete steps, oldest first; a save under way is waited for."""
        self._wait_for(kind)
        return [step for step in _numbered(self._directory / kind) if self._manifest(kind, step).is_file()]

    def save(self, kind: str, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves in the background; a step that is there already is left as it is."""
        if step in self.steps(kind):
            return
        # A copy: the next step donates these buffers while the save still reads them.
        tree = jax.tree.map(jnp.copy, tree)
        self._managers[kind].save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
        )
        self._sealing[kind] = self._sealer.submit(self._seal, kind, step)

    def restore(self, kind: str, template: Any) -> tuple[Any, dict[str, Any]]:
        """Returns (tree, meta) of the newest intact step, placed like `template`.

        Raises:
          UserError: there is none, or it does not fit the model.
        """
        what, why = "no checkpoint", "has the run been started?"
        for step in reversed(self.steps(kind)):
            damage = self._damage(kind, step)
            if damage is None:
                return self._restore(kind, step, template)
            what, why = "no intact checkpoint", f"step {step} is damaged: {damage}"
            err.print(f"checkpoint {kind}/{step} is damaged ({damage}); it is set aside and the one before is used")
            if not self._read_only:
                self._set_aside(kind, step)
                self._managers[kind].reload()
        raise UserError(f"{what} in {str(self._directory / kind)!r}; {why}")

    def _restore(self, kind: str, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
        # Parameters are compared by name first: orbax's own errors run over dozens of lines.
        try:
            self._check_params(kind, step, template)
            restored = self._managers[kind].restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(template), meta=ocp.args.JsonRestore()),
            )
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"checkpoint {str(self._directory / kind)!r} step {step} is of another model or version: "
                f"{str(error).splitlines()[0][:160]}"
            ) from error
        return restored["state"], restored["meta"]

    def _manifest(self, kind: str, step: int) -> Path:
        return self._directory / "manifests" / f"{kind}-{step}.json"

    def _seal(self, kind: str, step: int) -> None:
        """Writes the manifest once orbax has finished, and drops those of steps that it has deleted."""
        self._managers[kind].wait_until_finished()
        manifest = self._manifest(kind, step)
        manifest.parent.mkdir(exist_ok=True)
        temporary = manifest.with_suffix(".tmp")
        temporary.write_text(json.dumps(_hashes(self._directory / kind / str(step)), indent=1))
        os.replace(temporary, manifest)
        kept = _numbered(self._directory / kind)
        for old in manifest.parent.glob(f"{kind}-*.json"):
            if int(old.stem.rpartition("-")[2]) not in kept:
                old.unlink()

    def _damage(self, kind: str, step: int) -> str | None:
        """Says which file is not as it was saved, or None."""
        try:
            wanted = json.loads(self._manifest(kind, step).read_text())
            found = _hashes(self._directory / kind / str(step))
        except (OSError, ValueError):
            return "its manifest cannot be read"
        if not isinstance(wanted, dict):
            return "its manifest cannot be read"
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                what = "is missing" if name not in found else "has changed" if name in wanted else "was added"
                return f"{name} {what}"
        return None

    def _set_aside(self, kind: str, step: int) -> None:
        aside = self._directory / "damaged"
        aside.mkdir(exist_ok=True)
        number = sum(1 for _ in aside.iterdir())
        (self._directory / kind / str(step)).rename(aside / f"{kind}-{step}.{number}")
        manifest = self._manifest(kind, step)
        if manifest.exists():
            manifest.rename(aside / f"{kind}-{step}.{number}.json")

    def _check_params(self, kind: str, step: int, template: Any) -> None:
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(self._directory / kind / str(step) / "state").item_metadata
        if metadata is None:
            raise ValueError("its metadata cannot be read")
        stored, wanted = (
            {name: list(leaf.shape) for name, leaf in named_leaves(tree).items() if name.startswith("params/")}
            for tree in (dict(metadata.tree), template)
        )
        for name in sorted(stored.keys() | wanted.keys()):
            if stored.get(name) != wanted.get(name):
                raise UserError(
                    f"checkpoint {str(self._directory / kind)!r} step {step} is of another model: "
                    f"{name} is {stored.get(name, 'absent')}, expected {wanted.get(name, 'none')}"
                )

    def delete_after(self, kind: str, step: int) -> None:
        """Deletes the steps newer than `step`: those a resumed run will make again."""
        for newer in self.steps(kind):
            if newer > step:
                self._managers[kind].delete(newer)
                self._manifest(kind, newer).unlink()

    def wait(self) -> None:
        """Waits for background saves; raises their errors."""
        for kind in KEEP:
            self._wait_for(kind)

    def _wait_for(self, kind: str) -> None:
        if kind in self._sealing:
            self._sealing.pop(kind).result()

    def close(self) -> None:
        """Waits and closes."""
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            for manager in self._managers.values():
                manager.close()


def _numbered(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit() and path.is_dir())


def _hashes(directory: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file below `directory`, by relative name."""
    hashes = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            hashes[path.relative_to(directory).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
