"""Tar shards as WebDataset writes them, `wds:PATTERN`: an image and its label by their common key, read by offset."""

import collections
import functools
import glob
import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from jaxvit.data.files import SUFFIXES
from jaxvit.data.layout import in_order, plain, split_of
from jaxvit.data.sources.photos import Photo, collect
from jaxvit.data.splits import Source
from jaxvit.errors import UserError
from jaxvit.runtime import escape
from jaxvit.runtime.paths import expand

IMAGES = tuple(suffix[1:] for suffix in SUFFIXES)
LABELS = ("cls", "json", "txt")  # members that may hold the label, in the order in which they are asked
KEYS = ("label", "labels", "cls", "class")  # of a json member
LARGEST = 2**20  # bytes of a label
BRACES = re.compile(r"\{([^{}]*)\}")
Row = tuple[str, str, Callable[[], IO[bytes]], list[str]]  # name, split, what opens the image, classes


def load(pattern: str, **options: Any) -> Source:
    """Reads the shards of a pattern with {000..009}, {a,b}, * and ?, or all *.tar of a directory.

    The name of a shard says its split (train-000.tar, val-000.tar); others are for training. Members belong together
    by their names up to the first dot. A label is the text of `cls` or `txt`, or `label` of `json`: a class, or a list
    of classes where an image may have several.

    Raises:
      UserError: no shards, a compressed or damaged one, an image without a label.
    """
    source = f"wds:{pattern}"
    shards = _shards(source, pattern)
    rows, several = _rows(source, shards)
    class_names = in_order(name for *_, names in rows for name in names)
    known = options.get("class_names")
    if known is not None and sorted(known) == sorted(class_names):
        class_names = list(known)
    places = {name: i for i, name in enumerate(class_names)}
    photos = [
        Photo(path, name, split, tuple(int(n in own) for n in class_names) if several else places[own[0]], i)
        for i, (name, split, path, own) in enumerate(rows)
    ]
    notes = [f"{len(rows):,} images in {len(shards)} shards"]
    return collect(source, photos, class_names, several=several, notes=notes, **options)


def count(pattern: str, most: int = 100) -> tuple[collections.Counter[str], list[str], bool] | None:
    """Returns (images of each split, classes, whether an image may have several labels); None of over `most` shards."""
    source = f"wds:{pattern}"
    shards = _shards(source, pattern)
    if len(shards) > most:
        return None
    rows, several = _rows(source, shards)
    images = collections.Counter(split for _, split, *_ in rows)
    return images, in_order(name for *_, names in rows for name in names), several


def _rows(source: str, shards: list[Path]) -> tuple[list[Row], bool]:
    """The images of the shards, and whether they have lists of labels."""
    rows: list[Row] = []
    several = False
    for shard in shards:
        split = _split(shard) or "train"
        for key, members in _samples(source, shard):
            images = [name for name in members if name.rpartition(".")[2] in IMAGES]
            image = members[min(images, key=lambda name: name.count("."))] if images else None
            if image is None:
                continue
            names, is_list = _labels(source, shard, key, members)
            several = several or is_list
            rows.append((f"{shard.name}/{key}", split, functools.partial(_opened, shard, *image), names))
    if not rows:
        raise UserError(f"{source}: no images in {len(shards)} shards; expected members such as 0001.jpg and 0001.cls.")
    return rows, several


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
    """The split that a shard's name, without its number, or its folder stands for."""
    stem = re.sub(r"[-_.]?\d+.*$", "", shard.stem)
    words = [stem, re.split(r"[-_.]", stem)[-1], re.split(r"[-_.]", stem)[0], shard.parent.name]
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
