"""Checkpoints of a run through orbax: the newest states to go on from, and the best by validation metric."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxvit.errors import UserError
from jaxvit.tree import named_leaves

KEEP = {"last": 2, "best": 1}


class Checkpoints:
    """`<directory>/last/<step>` and `<directory>/best/<step>`, each a tree of arrays and a JSON object `meta`.

    Saves run in the background; orbax writes under a temporary name and renames, so that a killed save leaves no
    step behind. An error of a background save is raised by the next call.
    """

    def __init__(self, directory: Path, *, read_only: bool = False):
        """Opens the directory, which need not exist; `read_only` creates nothing."""
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports each of its phases there
        self._directory = directory.absolute()
        self._managers = {
            kind: ocp.CheckpointManager(
                (directory / kind).absolute(),
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=None if read_only else keep, read_only=read_only, create=not read_only
                ),
            )
            for kind, keep in KEEP.items()
        }

    def steps(self, kind: str) -> list[int]:
        """The steps there are, oldest first."""
        return sorted(self._managers[kind].all_steps())

    def save(self, kind: str, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves in the background; a step that is there already is left as it is."""
        if step in self.steps(kind):
            return
        # A copy: the next step donates these buffers while the save still reads them.
        tree = jax.tree.map(jnp.copy, tree)
        self._managers[kind].save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
        )

    def restore(self, kind: str, template: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Returns (tree, meta) of `step` (None: the newest), placed like `template`.

        Raises:
          UserError: there is none, or it does not fit the model.
        """
        steps = self.steps(kind)
        if not steps:
            raise UserError(f"no checkpoint in {str(self._managers[kind].directory)!r}; has the run been started?")
        step = steps[-1] if step is None else step
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
                f"checkpoint {str(self._managers[kind].directory)!r} step {step} is damaged or of another model: "
                f"{str(error).splitlines()[0][:160]}"
            ) from error
        return restored["state"], restored["meta"]

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
                    f"checkpoint {str(self._managers[kind].directory)!r} step {step} is of another model: "
                    f"{name} is {stored.get(name, 'absent')}, expected {wanted.get(name, 'none')}"
                )

    def delete_after(self, kind: str, step: int) -> None:
        """Deletes the steps newer than `step`: those a resumed run will make again."""
        for newer in self.steps(kind):
            if newer > step:
                self._managers[kind].delete(newer)

    def wait(self) -> None:
        """Waits for background saves; raises their errors."""
        for manager in self._managers.values():
            manager.wait_until_finished()

    def close(self) -> None:
        """Waits and closes."""
        for manager in self._managers.values():
            manager.close()
