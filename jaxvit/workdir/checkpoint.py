"""Checkpoints of a run through orbax: the newest states to resume from, and the best by validation metric.

Neither orbax nor TensorStore keeps a checksum of the values: a flipped bit is restored silently. So each step has
a manifest with the SHA-256 of its files, in two copies, written when the save is complete and checked before every
restore. A step without one was cut off, one that differs is damaged; both are set aside and the newest intact one is
used. Where several processes train, all of them save their parts; process 0 alone decides and moves files.
"""

import itertools
import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxvit.errors import RunError, UserError
from jaxvit.runtime import escape, files, multihost, sharding, waiting
from jaxvit.runtime.console import warn
from jaxvit.tree import named_leaves
from jaxvit.workdir import manifest, orbax_quirks

KINDS = ("last", "best")
_TEMPORARY = ".orbax-checkpoint-tmp"


class NoCheckpoint(UserError):
    """There is no step that is complete and intact."""


class Checkpoints:
    """`<directory>/last/<step>` and `<directory>/best/<step>`, each a tree of arrays and a JSON object `meta`.

    Saves run in the background: the device copies the arrays in one program and continues, a thread fetches and writes
    them. Orbax writes under a temporary name and renames, so that a killed save leaves no step behind. An error of a
    background save is raised by the next call. What is found damaged is moved to `damaged/` and stays there; what was
    cut off, or will be made again, waits in `replaced/` for a newer step.
    """

    def __init__(
        self,
        directory: Path,
        *,
        read_only: bool = False,
        keep: Mapping[str, int] | None = None,
        keep_every_steps: int | None = None,
    ):
        """Opens the directory, which need not exist; `read_only` creates and moves nothing.

        Args:
          directory: of the checkpoints.
          read_only: for those who only restore.
          keep: the number of newest steps that stay, by kind; 2 each where nothing is said.
          keep_every_steps: in addition, the first "last" step in every interval of this many steps stays.
        """
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports each of its phases there
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # and its lost tasks there, where a save fails
        orbax_quirks.ignore_closed_loops()
        self._directory, self._read_only = directory.absolute(), read_only
        self._keep = dict.fromkeys(KINDS, 2) | dict(keep or {})
        self._keep_every = keep_every_steps
        self._savers = {kind: orbax_quirks.saver(kind) for kind in KINDS}
        self._one_at_a_time = threading.Lock()  # orbax numbers its saves: two begun at once would get one number
        self._sealing: dict[str, tuple[int, Future]] = {}  # kind -> its save under way
        self._intact: set[tuple[str, int]] = set()  # verified since they were opened
        self._agreed: Callable[[Callable[[], Any]], Any] = _own if read_only else multihost.by_main
        if not read_only:
            self._agreed(self._tidy)

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self._directory

    def steps(self, kind: str) -> list[int]:
        """The complete steps, oldest first; a save under way is waited for."""
        self._wait_for(kind)
        return self._agreed(lambda: self._complete(kind))

    def save(self, kind: str, step: int, tree: Any, meta: dict[str, Any], *, renew: bool = False) -> None:
        """Saves in the background; a step that is there already is left as it is, or replaced with `renew`.

        A "last" step is complete only after the "best" one under way: what it says of the best is then on disk.
        """
        if step in self.steps(kind):
            if not renew:
                return
            self.delete_after(kind, step - 1)
        best = self._sealing.get("best") if kind == "last" else None
        tree = _copied(_not_empty(tree))

        def write() -> None:
            args = ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
            with self._one_at_a_time:
                self._savers[kind].save(self._step(kind, step), args=args)

        def write_and_seal() -> None:
            write()
            self._seal(kind, step, best and best[1])

        if jax.process_count() == 1:
            self._sealing[kind] = step, waiting.begin(write_and_seal)
            return
        try:  # all processes meet in it: in the order of the calls
            with waiting.limited(self._name(kind, step)):
                write()
        except Exception as error:
            raise self._failed(kind, step, error) from error
        self._sealing[kind] = step, waiting.begin(self._seal, kind, step, best and best[1])

    def is_saving(self, kind: str) -> bool:
        """Whether a save of this kind is under way, which the next one would wait for."""
        return kind in self._sealing and not self._sealing[kind][1].done()

    def check(self) -> None:
        """Raises the error of a background save that has failed; waits for nothing."""
        for kind, (_, future) in list(self._sealing.items()):
            if future.done():
                self._wait_for(kind)

    def restore(self, kind: str, template: Any) -> tuple[Any, dict[str, Any]]:
        """Returns (tree, meta) of the newest intact step, placed like `template`.

        Raises:
          NoCheckpoint: there is none.
          UserError: it does not fit the model.
        """
        self._wait_for(kind)
        step, said = self._agreed(lambda: self._newest_intact(kind))
        if step is None:
            raise NoCheckpoint(said)
        return self._restore(kind, step, template)

    def meta(self, kind: str) -> dict[str, Any] | None:
        """Returns the meta of the newest step, or None."""
        steps = self.steps(kind)
        if not steps:
            return None
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with waiting.limited(self._name(kind, steps[-1])):
            return self._savers[kind].restore(self._step(kind, steps[-1]), args=args)["meta"]

    def verify(self) -> None:
        """Checks every step of both kinds; sets the damaged ones aside with a line each."""
        self.wait()
        self._agreed(self._verify)

    def delete_after(self, kind: str, step: int) -> None:
        """Puts the steps newer than `step` away: those that a resumed run will make again."""
        self._wait_for(kind)
        self._agreed(lambda: self._put_away(kind, [n for n in self._complete(kind) if n > step]))

    def wait(self) -> None:
        """Waits for background saves; raises their errors."""
        for kind in KINDS:
            self._wait_for(kind)

    def close(self) -> None:
        """Waits and closes."""
        try:
            self.wait()
        finally:
            for saver in [] if waiting.stuck else self._savers.values():
                with orbax_quirks.silence(), suppress(Exception), waiting.limited(f"closing {self._directory}"):
                    saver.close()  # an error of a save has been raised above

    def _step(self, kind: str, step: int) -> Path:
        return self._directory / kind / str(step)

    def _name(self, kind: str, step: int) -> str:
        return f"checkpoint {str(self._directory / kind)!r} step {step}"

    def _manifest(self, kind: str, step: int) -> Path:
        return self._directory / "manifests" / f"{kind}-{step}.json"

    def _complete(self, kind: str) -> list[int]:
        return [step for step in _numbered(self._directory / kind) if self._is_complete(kind, step)]

    def _newest_intact(self, kind: str) -> tuple[int | None, str]:
        """Returns (step, "") or (None, why there is none); damaged steps are reported."""
        what, why = "no checkpoint", "the run may not have started"
        for step in reversed(self._complete(kind)):
            damage = self._damage(kind, step)
            if damage is None:
                return step, ""
            what, why = "no intact checkpoint", f"step {step} is damaged: {damage}"
            self._report(kind, step, damage)
        return None, f"{what} in {str(self._directory / kind)!r}; {why}"

    def _verify(self) -> None:
        for kind in KINDS:
            for step in self._complete(kind):
                damage = self._damage(kind, step)
                if damage is not None:
                    self._report(kind, step, damage)

    def check_fits(self, kind: str, step: int, template: Any) -> None:
        """Raises UserError where a checkpoint holds other arrays than `template`; damage is left to others."""
        with orbax_quirks.silence(), waiting.limited(self._name(kind, step)):
            try:
                self._check_leaves(kind, step, _not_empty(template))
            except (OSError, ValueError) as error:
                if isinstance(error, UserError):
                    raise

    def _put_away(self, kind: str, steps: Sequence[int]) -> None:
        for step in steps:
            self._set_aside(kind, step, "replaced")

    def _is_complete(self, kind: str, step: int) -> bool:
        return any(path.is_file() for path in (self._manifest(kind, step), self._step(kind, step) / manifest.NAME))

    def _tidy(self) -> None:
        """Clears up after a process that was killed, and names steps that have vanished."""
        for kind in KINDS:
            for left in (self._directory / kind).glob(f"*{_TEMPORARY}*"):
                shutil.rmtree(left, ignore_errors=True)
            there = _numbered(self._directory / kind)
            for step in there:
                if not self._is_complete(kind, step):
                    warn(f"checkpoint {kind}/{step} was cut off before it was complete; it is not used")
                    self._set_aside(kind, step, "replaced")
            for path in (self._directory / "manifests").glob(f"{kind}-*.json"):
                step = path.stem.rpartition("-")[2]
                if step.isdecimal() and int(step) not in there:
                    warn(f"checkpoint {kind}/{step} is damaged (its directory is missing)")
                    self._set_aside(kind, int(step), "damaged")

    def _restore(self, kind: str, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
        kept = _not_empty(template)
        # Compared by name first: orbax's own errors run over dozens of lines.
        try:
            with orbax_quirks.silence(), waiting.limited(self._name(kind, step)):
                self._check_leaves(kind, step, kept)
                restored = self._savers[kind].restore(
                    self._step(kind, step),
                    args=ocp.args.Composite(state=ocp.args.StandardRestore(kept), meta=ocp.args.JsonRestore()),
                )
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{self._name(kind, step)} belongs to another model or version: {escape.message(error, 160)}"
            ) from error
        empty = lambda x: sharding.put(np.zeros(x.shape, x.dtype), x.sharding)  # noqa: E731
        state = jax.tree.map(lambda x, found: found if x.size else empty(x), template, restored["state"])
        return state, restored["meta"]

    def _seal(self, kind: str, step: int, before: Future | None) -> None:
        """Writes the manifests once orbax has finished, then drops the steps that need not stay."""
        self._savers[kind].wait_until_finished()
        if before is not None:
            before.result()
        if not multihost.is_main():
            return
        directory, beside = self._step(kind, step), self._manifest(kind, step)
        hashes = {name: manifest.sha256(directory / name) for name in manifest.files_below(directory)}
        beside.parent.mkdir(exist_ok=True)
        manifest.write(directory / manifest.NAME, hashes)
        manifest.write(beside, hashes)
        self._intact.add((kind, step))
        self._put_away(kind, self._surplus(kind))
        for old in (self._directory / "replaced").glob(f"{kind}-*"):
            number = old.name.removeprefix(f"{kind}-").partition(".")[0]
            if number.isdecimal() and int(number) <= step:
                shutil.rmtree(old, ignore_errors=True)

    def _surplus(self, kind: str) -> list[int]:
        steps = self._complete(kind)
        kept = set(steps[-self._keep[kind] :])
        if kind == "best":  # states are saved less often: the best weights at the time of each are those that it names
            saving = self._sealing.get("last")
            states = {*self._complete("last")[-self._keep["last"] :], *([saving[0]] if saving else [])}
            kept |= {max(n for n in steps if n <= state) for state in states if steps[0] <= state}
        if kind == "last" and self._keep_every:
            first = {}
            for step in steps:
                first.setdefault(step // self._keep_every, step)
            kept |= set(first.values())
        return [step for step in steps if step not in kept]

    def _damage(self, kind: str, step: int) -> str | None:
        """Says which file is not as it was saved, or None. One intact copy of the manifest is enough."""
        if (kind, step) in self._intact:
            return None
        directory = self._step(kind, step)
        paths = {f"manifests/{kind}-{step}.json": self._manifest(kind, step)}
        paths[f"{kind}/{step}/{manifest.NAME}"] = directory / manifest.NAME
        copies = {name: manifest.read(path) for name, path in paths.items()}
        good = [copy for copy in copies.values() if copy is not None]
        if not good:
            return f"{next(iter(paths))} has changed"
        said = manifest.differences(directory, good[0], manifest.files_below(directory))
        if said:
            return said[0] if len(said) == 1 else f"{said[0]} and {len(said) - 1} more"
        for name, copy in copies.items():
            if copy is not None:
                continue
            mended = "not used" if self._read_only else "written anew"
            warn(f"{self._directory / name} is damaged or missing; it is {mended}, and its second copy is used")
            if not self._read_only:
                paths[name].parent.mkdir(exist_ok=True)
                manifest.write(paths[name], good[0])
        self._intact.add((kind, step))
        return None

    def _report(self, kind: str, step: int, damage: str) -> None:
        aside = "not used" if self._read_only else "set aside"
        warn(f"checkpoint {kind}/{step} is damaged ({damage}); it is {aside}, and the newest intact one is used")
        if not self._read_only:
            self._set_aside(kind, step, "damaged")

    def _set_aside(self, kind: str, step: int, where: str) -> None:
        """Moves a step to `damaged/` or `replaced/`, in one stroke."""
        aside = self._directory / where
        aside.mkdir(exist_ok=True)
        number = next(n for n in itertools.count() if not (aside / f"{kind}-{step}.{n}").exists())
        self._intact.discard((kind, step))
        target, beside = aside / f"{kind}-{step}.{number}", self._manifest(kind, step)
        if where == "damaged" and beside.exists():
            target.mkdir()
            beside.rename(target / "manifest.outside.json")
            target = target / "step"
        beside.unlink(missing_ok=True)
        if self._step(kind, step).exists():
            self._step(kind, step).rename(target)

    def _check_leaves(self, kind: str, step: int, template: Any) -> None:
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(self._step(kind, step) / "state").item_metadata
        if metadata is None:
            raise ValueError("its metadata cannot be read")
        stored, wanted = (
            {name: list(leaf.shape) for name, leaf in named_leaves(tree).items()}
            for tree in (dict(metadata.tree), template)
        )
        for name in sorted(stored.keys() | wanted.keys(), key=lambda name: (not name.startswith("params/"), name)):
            if stored.get(name) != wanted.get(name):
                what = "model" if name.startswith(("params/", "batch_stats/")) else "optimiser"
                raise UserError(
                    f"{self._name(kind, step)} belongs to another {what}: "
                    f"{name} is {stored.get(name, 'absent')}, expected {wanted.get(name, 'none')}"
                )

    def _wait_for(self, kind: str) -> None:
        if kind in self._sealing:
            step, future = self._sealing.pop(kind)
            try:
                waiting.result(future, self._name(kind, step))
            except Exception as error:
                raise self._failed(kind, step, error) from error

    def _failed(self, kind: str, step: int, error: Exception) -> RunError:
        """The error of a save, in two lines; what it has written so far is removed."""
        if multihost.is_main():
            for left in (self._directory / kind).glob(f"*{_TEMPORARY}*"):
                shutil.rmtree(left, ignore_errors=True)
        if isinstance(error, RunError):
            return error
        if gone := multihost.gone(error):
            return RunError(gone)
        why = files.disk_reason(error) or f"{type(error).__name__}: {escape.message(error, 200)}"
        there = self._complete("last")
        newest = f"the newest is step {there[-1]}" if there else "none is saved yet"
        return RunError(
            f"{self._name(kind, step)} could not be saved: {why}\n"
            f"earlier ones are intact ({newest}); fix that, and the same command resumes the run"
        )


@jax.jit
def _copied(tree: Any) -> Any:
    """A copy in one program: the next step donates these buffers while the save still reads them."""
    return jax.tree.map(jnp.copy, tree)


def _not_empty(tree: Any) -> Any:
    """The tree without its arrays of no element, which orbax does not save (galore has them)."""
    return jax.tree.map(lambda x: x if x.size else None, tree)


def _own(decide: Callable[[], Any]) -> Any:
    return decide()


def _numbered(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit() and path.is_dir())
