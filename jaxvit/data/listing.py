"""The image files below the class folders of a data set: found, checked, and remembered from one start to the next.

What is known of a file is a row of a few arrays, not an object: ImageNet has 1.3 million of them. At the next start a
folder is listed again only if its own times have changed, as they do when a file in it is added, removed or renamed. Of
the files, sizes and times are compared. See docs/IMAGENET.md for what this finds and what it does not.
"""

import dataclasses
import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxvit.data import index_file
from jaxvit.data.files import SUFFIXES, follower, hidden, is_folder
from jaxvit.data.formats import is_image
from jaxvit.data.images import DECODE_ERRORS, check, in_threads, reason
from jaxvit.data.texts import Texts
from jaxvit.errors import UserError

FULL_CHECK = 200_000  # files: up to this number, each is decoded before training; above it, only suspicious ones
COMPARED = 100_000  # files: up to this number the size and time of each is compared; of more, of evenly spaced ones
YOUNG_NS = 2 * 10**9  # a folder that changed so shortly before it was listed may change again at the same time stamp
UNCHECKED, ENDS_WELL, DECODED, BAD = range(4)  # what is known of a file


@dataclasses.dataclass(frozen=True)
class Unit:
    """A class folder: the images below it in their order, and all folders that were listed to find them."""

    folders: list[str]  # relative to the root of the data set
    times: np.ndarray  # int64 [folders, 2]: when each was modified and changed, in ns; 0: not to be trusted
    names: Texts  # relative to the class folder, with "/"
    stats: np.ndarray  # int64 [n, 2]: `index_file.stamp` of each; -1 for anything that is not a plain file
    shapes: np.ndarray  # int32 [n, 2]: (h, w) as stored, 0 where unknown
    states: np.ndarray  # uint8 [n]


@dataclasses.dataclass(frozen=True)
class Files:
    """The images below class folders: file `i` is in `units[unit[i]]` and is called `names[i]` there."""

    root: Path
    units: list[str]
    unit: np.ndarray  # int32 [n]
    names: Texts
    shapes: np.ndarray  # int32 [n, 2]
    bad: dict[int, str]  # file -> why it cannot be read

    def __len__(self) -> int:
        return len(self.unit)

    def name(self, i: int) -> str:
        """The path below the root, with "/"."""
        unit = self.units[self.unit[i]]
        return self.names[i] if unit == "." else f"{unit}/{self.names[i]}"

    def path(self, i: int) -> Path:
        """The path of a file."""
        return self.root / self.name(i)


def read(root: Path, units: Sequence[str], *, rescan: bool = False) -> Files:
    """Returns the checked images below the class folders `units`, paths relative to `root`, in their order.

    With `rescan` nothing is taken from the index. Raises UserError for a folder that cannot be read.
    """
    source, begun = f"folder:{root.resolve()}", time.monotonic()
    if rescan:
        index_file.forget(source)
    stored = index_file.read(source)
    found = {} if stored is None else _unpacked(stored)
    changed, fresh = _changed(root, units, found)
    if not changed and not fresh and not _to_check(units, found).size:
        index_file.say_used(source)
        return _files(root, units, found, {})
    with index_file.one_at_a_time(source):
        if (again := index_file.read(source)) is not None:  # another process has just written it
            found = _unpacked(again)
            changed, fresh = _changed(root, units, found)
        bad: dict[int, str] = {}
        try:
            _list(root, units, found, changed)
            bad = _check(root, units, found)
        finally:  # what an interrupted start has checked is checked
            if time.monotonic() - begun > index_file.WORTH_SECS and all(unit in found for unit in units):
                others = [unit for unit in found if unit not in set(units) and os.path.isdir(root / unit)]
                index_file.write(source, _packed([*units, *others], found))
    return _files(root, units, found, bad)


def count(root: Path, units: Sequence[str]) -> list[int]:
    """Returns how many images, or what claim to be some, are below each class folder; none is looked into."""
    counts = [0] * len(units)

    def visit(i: int) -> None:
        counts[i] = len(_scan(root, units[i], None).names)

    in_threads(visit, len(units), "listing class folders", per_task=1, show_from=500)
    return counts


def _scan(root: Path, unit: str, old: Unit | None) -> Unit:
    """Lists a class folder; files that an earlier listing has with the same size and time keep what is known of them.

    Follows a link to the class folder itself and links to files, but no link to a folder within it, as `os.walk`. Where
    the whole tree is the unit, its links to folders are followed as `follower` says.
    """
    follows = follower(root) if unit == "." else lambda path: not os.path.islink(path)
    now = time.time_ns()
    folders, times, rows, waiting = [], [], [], [""]
    try:
        while waiting:
            below = waiting.pop()
            folder = os.path.join(root, unit, below) if below else os.path.join(root, unit)
            folders.append(f"{unit}/{below}" if below else unit)
            times.append(_times(folder, now))
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = f"{below}/{entry.name}" if below else entry.name
                    if hidden(entry.name):
                        continue
                    if is_folder(entry):
                        if follows(entry.path):
                            waiting.append(name)
                    elif _looks_like_image(entry):
                        rows.append((name.split("/"), *_stat(entry.path)))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}).") from None
    rows.sort()
    names = ["/".join(row[0]) for row in rows]
    stats = np.array([row[1:] for row in rows], np.int64).reshape(-1, 2)
    shapes, states = np.zeros((len(rows), 2), np.int32), np.zeros(len(rows), np.uint8)
    if old is not None:
        before = {name: i for i, name in enumerate(old.names)}
        for i, name in enumerate(names):
            j = before.get(name)
            if j is not None and (old.stats[j] == stats[i]).all():
                shapes[i], states[i] = old.shapes[j], old.states[j]
    return Unit(folders, np.array(times, np.int64), Texts.of(names), stats, shapes, states)


def _looks_like_image(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in SUFFIXES or is_image(Path(entry.path))


def _times(folder: str, now: int | None = None) -> tuple[int, int]:
    """When a folder was modified and changed, in ns; 0 where it is gone, or was listed too shortly after that."""
    try:
        found = os.stat(folder)
    except OSError:
        return 0, 0
    young = now is not None and max(found.st_mtime_ns, found.st_ctime_ns) > now - YOUNG_NS
    return (0, 0) if young else (found.st_mtime_ns, found.st_ctime_ns)


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return index_file.stamp(found) if stat.S_ISREG(found.st_mode) else (-1, -1)


def _changed(root: Path, units: Sequence[str], found: dict[str, Unit]) -> tuple[list[str], int]:
    """(class folders that have to be listed, the number of files that are not as they were).

    Where one of the files that are compared has changed, all are. What is known of a changed file is forgotten.
    """
    folders = [(unit, k) for unit in units if unit in found for k in range(len(found[unit].folders))]
    same = np.zeros(len(folders), bool)

    def compare_folder(i: int) -> None:
        unit, k = folders[i]
        times = _times(os.path.join(root, found[unit].folders[k]))
        same[i] = times != (0, 0) and times == tuple(found[unit].times[k].tolist())

    in_threads(compare_folder, len(folders), "comparing folders", show_from=5_000)
    changed = {unit for (unit, _), is_same in zip(folders, same, strict=True) if not is_same}
    kept = [unit for unit in units if unit in found and unit not in changed]
    count = sum(len(found[unit].names) for unit in kept)
    step = max(-(-count // COMPARED), 1)
    fresh = _compare_files(root, kept, found, step)
    if fresh and step > 1:
        fresh += _compare_files(root, kept, found, 1)
    return [unit for unit in units if unit not in found or unit in changed], fresh


def _compare_files(root: Path, units: Sequence[str], found: dict[str, Unit], step: int) -> int:
    """Compares every `step`-th file with its index, and forgets what is known of changed ones; returns their number."""
    starts = np.cumsum([0, *(len(found[unit].names) for unit in units)])
    fresh = np.zeros(len(units), np.int64)

    def compare(u: int) -> None:
        unit = found[units[u]]
        folder = os.path.join(root, units[u])
        for i in range(int(-starts[u] % step), len(unit.names), step):
            now = _stat(os.path.join(folder, unit.names[i]))
            if now != tuple(unit.stats[i].tolist()):
                unit.stats[i], unit.shapes[i], unit.states[i] = now, 0, UNCHECKED
                fresh[u] += 1

    in_threads(compare, len(units), "comparing files", per_task=8, show_from=1_000 if step == 1 else 5_000)
    return int(fresh.sum())


def _list(root: Path, units: Sequence[str], found: dict[str, Unit], changed: Sequence[str]) -> None:
    """Lists the changed class folders anew."""

    def visit(i: int) -> None:
        found[changed[i]] = _scan(root, changed[i], found.get(changed[i]))

    in_threads(visit, len(changed), "listing class folders", per_task=1, show_from=500)


def _to_check(units: Sequence[str], found: dict[str, Unit]) -> np.ndarray:
    """Which files are to be looked into, int64 [k]: unknown ones, and those that could not be read."""
    states = np.concatenate([found[unit].states for unit in units] or [np.zeros(0, np.uint8)])
    least = DECODED if len(states) <= FULL_CHECK else ENDS_WELL
    return np.flatnonzero((states < least) | (states == BAD))


def _check(root: Path, units: Sequence[str], found: dict[str, Unit]) -> dict[int, str]:
    """Looks into the files that need it and keeps what is seen; returns {file: why it cannot be read}."""
    ends = np.cumsum([len(found[unit].names) for unit in units] or [0])
    wanted, bad = _to_check(units, found), {}
    full = ends[-1] <= FULL_CHECK

    def visit(k: int) -> None:
        i = int(wanted[k])
        u = int(np.searchsorted(ends, i, side="right"))
        unit, j = found[units[u]], i - int(ends[u - 1] if u else 0)
        try:
            unit.shapes[j] = check(root / units[u] / unit.names[j], full=full)
            unit.states[j] = DECODED if full else ENDS_WELL
        except DECODE_ERRORS as error:
            unit.states[j] = BAD
            bad[i] = reason(error)

    in_threads(visit, len(wanted), "checking images", show_from=200)
    return dict(sorted(bad.items()))


def _files(root: Path, units: Sequence[str], found: dict[str, Unit], bad: dict[int, str]) -> Files:
    parts = [found[unit] for unit in units]
    counts = [len(part.names) for part in parts]
    return Files(
        root,
        list(units),
        np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        Texts.join([part.names for part in parts]),
        np.concatenate([part.shapes for part in parts] or [np.zeros((0, 2), np.int32)]),
        bad,
    )


def _packed(units: Iterable[str], found: dict[str, Unit]) -> dict[str, np.ndarray]:
    """Class folders as arrays."""
    units = list(units)
    parts = [found[unit] for unit in units]
    folders = Texts.of(folder for part in parts for folder in part.folders)
    names, unit_names = Texts.join([part.names for part in parts]), Texts.of(units)
    return {
        "units": unit_names.block,
        "unit_lengths": unit_names.lengths,
        "num_folders": np.array([len(part.folders) for part in parts], np.int32),
        "num_files": np.array([len(part.names) for part in parts], np.int32),
        "folders": folders.block,
        "folder_lengths": folders.lengths,
        "times": np.concatenate([part.times for part in parts]),
        "names": names.block,
        "name_lengths": names.lengths,
        "stats": np.concatenate([part.stats for part in parts]),
        "shapes": np.concatenate([part.shapes for part in parts]),
        "states": np.concatenate([part.states for part in parts]),
    }


def _unpacked(stored: dict[str, np.ndarray]) -> dict[str, Unit]:
    """The class folders of an index; none where its arrays do not fit each other."""
    try:
        units = list(Texts(stored["units"], stored["unit_lengths"]))
        folders = list(Texts(stored["folders"], stored["folder_lengths"]))
        names = Texts(stored["names"], stored["name_lengths"])
        files, listed = (np.cumsum([0, *stored[word].tolist()]) for word in ("num_files", "num_folders"))
        found = {}
        for u, unit in enumerate(units):
            at, of = slice(int(files[u]), int(files[u + 1])), slice(int(listed[u]), int(listed[u + 1]))
            rows = (stored[word][at] for word in ("stats", "shapes", "states"))
            found[unit] = Unit(folders[of], stored["times"][of], names[at], *rows)
    except (KeyError, ValueError, IndexError):
        return {}
    return found
