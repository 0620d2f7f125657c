"""Tar shards as WebDataset writes them, `wds:PATTERN`: an image and its label by their common key, read by offset."""

import collections
import dataclasses
import glob
import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxvit.data import index_file
from jaxvit.data.files import SUFFIXES
from jaxvit.data.imagenet import are_synsets
from jaxvit.data.images import in_threads
from jaxvit.data.layout import in_order, plain, split_of
from jaxvit.data.sources.photos import Checked, Photos, collect, look_into
from jaxvit.data.splits import Source
from jaxvit.data.texts import Texts
from jaxvit.errors import UserError
from jaxvit.runtime import escape
from jaxvit.runtime.paths import expand

IMAGES = tuple(suffix[1:] for suffix in SUFFIXES)
LABELS = ("cls", "json", "txt")  # members that may hold the label, in the order in which they are asked
KEYS = ("label", "labels", "cls", "class")  # of a json member
LARGEST = 2**20  # bytes of a label
BRACES = re.compile(r"\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class Table:
    """The images of some shards, in their order."""

    names: Sequence[str]  # the shard and the key
    shard: np.ndarray  # int32 [n]
    places: np.ndarray  # int64 [n, 2]: offset and bytes of the image in its shard
    classes: list[list[str]]  # the different lists of classes that images have
    which: np.ndarray  # int32 [n], in `classes`
    several: bool  # whether an image may have several


def load(pattern: str, **options: Any) -> Source:
    """Reads the shards of a pattern with {000..009}, {a,b}, * and ?, or all *.tar of a directory.

    The name of a shard says its split (train-000.tar, val-000.tar); others are for training. Members belong together
    by their names up to the first dot. A label is the text of `cls` or `txt`, or `label` of `json`: a class, or a list
    of classes where an image may have several. What was found is kept in an index; shards are read again if one of
    them has changed, or with `rescan`.

    Raises:
      UserError: no shards, a compressed or damaged one, an image without a label.
    """
    source = f"wds:{pattern}"
    shards = _shards(source, pattern)
    made: list[tuple[Table, Checked]] = []

    def make() -> dict[str, np.ndarray]:
        table = _read(source, shards)
        made.append((table, look_into(_opener(shards, table), len(table.which))))
        return _packed(*made[0])

    name = f"wds:{expand(pattern).absolute()}"
    stored = index_file.remembered(name, shards, make, rescan=options.get("rescan", False))
    table, checked = made[0] if made else _unpacked(stored)
    class_names = in_order(name for names in table.classes for name in names)
    known = options.get("class_names")
    if known is not None and sorted(known) == sorted(class_names):
        class_names = list(known)
    places = {name: i for i, name in enumerate(class_names)}
    if table.several:
        labels = np.array([[n in own for n in class_names] for own in table.classes], np.uint8)
    else:
        labels = np.array([places[own[0]] for own in table.classes], np.int32)
    splits, notes = _splits(shards, class_names)
    n = len(table.which)
    photos = Photos(
        table.names,
        splits[table.shard],
        labels[table.which],
        np.arange(n, dtype=np.int64),
        _opener(shards, table),
        within=shards,
    )
    notes = [f"{n:,} images in {len(shards)} shards", *notes]
    return collect(source, photos, class_names, several=table.several, notes=notes, checked=checked, **options)


def _splits(shards: list[Path], class_names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The split of each shard, str [shards], and notes; ImageNet's validation images are the test split."""
    splits = np.array([_split(shard) or "train" for shard in shards], np.str_)
    published = are_synsets(class_names) or all(shard.name.startswith("imagenet") for shard in shards)
    if not published or "test" in splits or "val" not in splits:
        return splits, []
    splits[splits == "val"] = "test"
    return splits, ["the validation shards are the test split, as in the published figures of ImageNet"]


def count(pattern: str, most: int = 100) -> tuple[collections.Counter[str], list[str], bool] | None:
    """Returns (images of each split, classes, whether an image may have several labels); None of over `most` shards."""
    source = f"wds:{pattern}"
    shards = _shards(source, pattern)
    if len(shards) > most:
        return None
    table = _read(source, shards)
    class_names = in_order(name for names in table.classes for name in names)
    images = collections.Counter(_splits(shards, class_names)[0][table.shard].tolist())
    return images, class_names, table.several


def _opener(shards: list[Path], table: Table) -> Callable[[int], IO[bytes]]:
    shard, places = table.shard, table.places
    return lambda i: _opened(shards[shard[i]], *places[i].tolist())


def _read(source: str, shards: list[Path]) -> Table:
    """Reads the heads of all members, and the labels."""
    found: list[list[tuple[str, tuple[int, int], tuple[str, ...], bool]]] = [[] for _ in shards]

    def visit(k: int) -> None:
        shard = shards[k]
        for key, members in _samples(source, shard):
            images = [name for name in members if name.rpartition(".")[2] in IMAGES]
            if images:
                image = members[min(images, key=lambda name: name.count("."))]
                names, is_list = _labels(source, shard, key, members)
                found[k].append((f"{shard.name}/{key}", image, tuple(names), is_list))

    in_threads(visit, len(shards), "reading the heads of shards", per_task=1, show_from=20)
    rows = [row for of_shard in found for row in of_shard]
    if not rows:
        raise UserError(f"{source}: no images in {len(shards)} shards; expected members such as 0001.jpg and 0001.cls.")
    codes: dict[tuple[str, ...], int] = {}
    which = [codes.setdefault(names, len(codes)) for _, _, names, _ in rows]
    return Table(
        Texts.of(row[0] for row in rows),
        np.repeat(np.arange(len(shards), dtype=np.int32), [len(of_shard) for of_shard in found]),
        np.array([row[1] for row in rows], np.int64),
        [list(names) for names in codes],
        np.array(which, np.int32),
        any(row[3] for row in rows),
    )


def _packed(table: Table, checked: Checked) -> dict[str, np.ndarray]:
    names, (sizes, why) = Texts.of(table.names), checked
    about = {"classes": table.classes, "several": table.several, "why": list(why.values())}
    return {
        "names": names.block, "lengths": names.lengths, "shard": table.shard, "places": table.places,
        "which": table.which, "sizes": sizes, "bad": np.array(list(why), np.int64), "more": np.array(json.dumps(about)),
    }  # fmt: skip


def _unpacked(stored: dict[str, np.ndarray]) -> tuple[Table, Checked]:
    about = json.loads(str(stored["more"]))
    names, arrays = Texts(stored["names"], stored["lengths"]), (stored[word] for word in ("shard", "places", "which"))
    shard, places, which = arrays
    why = dict(zip(stored["bad"].tolist(), about["why"], strict=True))
    return Table(names, shard, places, about["classes"], which, about["several"]), (stored["sizes"], why)


def expand_braces(pattern: str) -> list[str]:
    """The texts that a pattern with {000..009} and {a,b} stands for, in their order."""
    parts: list[list[str]] = []
    end = 0
    for found in BRACES.finditer(pattern):
        inside = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
        if inside:
            width, numbers = len(inside[1]), range(int(inside[1]), int(inside[2]) + 1)
            choices = [f"{n:0{width}d}" for n in numbers]
        else:
            choices = found[1].split(",")
        parts += [[pattern[end : found.start()]], choices]
        end = found.end()
    return ["".join(chosen) for chosen in itertools.product(*parts, [pattern[end:]])]


def _shards(source: str, pattern: str) -> list[Path]:
    root = expand(pattern)
    if root.is_dir():
        shards = sorted(root.glob("*.tar"))
        if not shards:
            raise UserError(f"{source}: no *.tar in this directory.")
        return shards
    found: list[Path] = []
    names = expand_braces(str(root))
    missing = []
    for name in names:
        matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name] * Path(name).is_file()
        found += [Path(match) for match in matches]
        missing += [] if matches else [name]
    if missing:
        some = f"{len(missing)} of {len(names)} shards are" if len(names) > 1 else "the shard is"
        raise UserError(f"{source}: {some} not there: {', '.join(missing[:3])}.")
    return found


def _split(shard: Path) -> str | None:
    """The split that a shard's name, or a part of it, or its folder stands for: imagenet1k-validation-00.tar."""
    parts = re.split(r"[-_.]", shard.stem)
    stem = re.sub(r"[-_.]?\d+.*$", "", shard.stem)
    words = [stem, re.split(r"[-_.]", stem)[-1], *parts, shard.parent.name]
    return next((split for word in words if (split := split_of(word))), None)


def _samples(source: str, shard: Path) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Yields (key, {ending: (offset, size)}) of the members that stand together."""
    key, members = "", {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, slash, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if not member.isreg() or not dot or not stem:
                    continue
                if folder + slash + stem != key and members:
                    yield key, members
                    members = {}
                key = folder + slash + stem
                members[ending.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        with shard.open("rb") as file:
            packed = file.read(4)[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5")
        why = "is compressed; unpack it to a plain .tar" if packed else f"cannot be read ({escape.message(error, 80)})"
        raise UserError(f"{source}: {shard.name} {why}.") from None
    if members:
        yield key, members


def _opened(shard: Path, offset: int, size: int) -> IO[bytes]:
    with shard.open("rb") as file:
        file.seek(offset)
        return io.BytesIO(file.read(size))


def _labels(source: str, shard: Path, key: str, members: dict[str, tuple[int, int]]) -> tuple[list[str], bool]:
    """The classes of a sample, and whether they are a list."""
    where = f"{source}: {key} in {shard.name}"
    ending = next((ending for ending in LABELS if ending in members), None)
    if ending is None:
        raise UserError(f"{where} has no label; expected {key}.cls, or {key}.json with a label.")
    offset, size = members[ending]
    try:
        text = _opened(shard, offset, min(size, LARGEST)).read().decode("utf-8").strip()
        value = json.loads(text) if ending == "json" else text
    except ValueError:
        raise UserError(f"{where}: {ending} holds no text, or no JSON.") from None
    if isinstance(value, dict):
        value = next((value[name] for name in KEYS if value.get(name) is not None), "")
    values = value if isinstance(value, list) else [value]
    names = [plain(str(v).strip()) for v in values]
    if "" in names:
        raise UserError(f"{where} has no label in its {ending}.")
    return names, isinstance(value, list)
