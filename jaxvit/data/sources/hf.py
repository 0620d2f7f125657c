"""Image data sets as the `datasets` library stores them, `hf:NAME`: their Parquet or Arrow files, read offline."""

import collections
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from jaxvit.data.layout import in_order, plain, split_of
from jaxvit.data.sources.photos import Photo, as_columns, collect
from jaxvit.data.splits import Source
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import escape, packages
from jaxvit.runtime.paths import expand

IMAGE = ("image", "img", "jpg", "png")  # usual names of the columns, the likeliest first
LABEL = ("label", "labels", "fine_label", "class", "target", "cls")
SPLIT_FILE = re.compile(r"(.+?)[-_.]\d+([-_.]of[-_.]\d+)?")  # train-00000-of-00002


def load(name: str, **options: Any) -> Source:
    """Reads a data set in a directory, or the copy of a repository of the hub that lies in its cache.

    Files are `*.parquet` or what `save_to_disk` writes (`*.arrow`), split by their names or folders
    (train-00000-of-00002, data/test/...). The encoded images are held in memory. Columns are `image`, with the images'
    bytes or paths, and `label`: a ClassLabel with its names, a whole number, a text, or a list of these for several
    labels per image.

    Raises:
      UserError: no such directory or copy, files that cannot be read, no columns for image and label.
    """
    source, root, files = _files(name)
    known = {file: _split(root, file) for file in files}
    tables = [(file, known[file] or "train", _read(source, file)) for file in files]
    columns = options.get("columns")
    image, label, names = _columns(source, tables[0][2].schema, columns)
    rows: list[tuple[str, str, Any, Any]] = []
    for file, split, table in tables:
        for column in (image, label):
            if column not in table.column_names:
                raise UserError(
                    f"{source}: no column {column!r} in {file.relative_to(root)}, unlike the files before it."
                )
        images, labels = table[image].combine_chunks(), table[label].to_pylist()
        where = file.relative_to(root).as_posix()
        rows += [(f"{where}[{i}]", split, _opener(root, images, i), value) for i, value in enumerate(labels)]
    several = any(isinstance(value, list) for *_, value in rows)
    own = [_names(source, place, value, names) for place, _, _, value in rows]
    class_names = [plain(n) for n in names] if names else in_order(n for found in own for n in found)
    known_order = options.get("class_names")
    if known_order is not None and sorted(known_order) == sorted(class_names):
        class_names = list(known_order)
    places = {n: i for i, n in enumerate(class_names)}
    photos = []
    for i, ((place, split, path, _), found) in enumerate(zip(rows, own, strict=True)):
        value = tuple(int(n in found) for n in class_names) if several else places[found[0]]
        photos.append(Photo(path, place, split, value, i))
    notes = ["several labels per image"] if several else []
    if None in known.values() and any(known.values()):
        other = next(file for file, split in known.items() if split is None)
        notes.append(f"{other.relative_to(root)} does not have the name of a split and is used for training")
    photos = as_columns(photos, len(class_names), several=several, within=files)
    return collect(source, photos, class_names, several=several, notes=notes, **options)


def count(name: str, columns: str | None = None) -> tuple[collections.Counter[str], list[str], bool]:
    """Returns (images of each split, classes, whether an image may have several labels); no image is read."""
    source, root, files = _files(name)
    images: collections.Counter[str] = collections.Counter()
    found: dict[str, None] = {}
    several, names = False, None
    for i, file in enumerate(files):
        if i == 0:
            _, label, names = _columns(source, _schema(source, file), columns)
        values = _read(source, file, [label])[label].to_pylist()
        images[_split(root, file) or "train"] += len(values)
        several = several or any(isinstance(value, list) for value in values)
        for row, value in enumerate([] if names else values):
            found |= dict.fromkeys(_names(source, f"{file.name}[{row}]", value, None))
    return images, names or in_order(found), several


def _files(name: str) -> tuple[str, Path, list[Path]]:
    """The data's name in messages, its directory, its files in their order."""
    packages.require("pyarrow")
    source, root = f"hf:{name}", _directory(name)
    files = sorted(p for p in root.rglob("*") if p.suffix in (".parquet", ".arrow") and not p.name.startswith("."))
    if not files:
        raise UserError(f"{source}: no *.parquet or *.arrow file in {root}.")
    return source, root, files


def _directory(name: str) -> Path:
    """A directory as it is named, or the newest copy of a repository in the hub's cache."""
    path = expand(name)
    if path.is_dir():
        return path
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "snapshots"
    copies = sorted((d for d in folder.glob("*") if d.is_dir()), key=lambda d: d.stat().st_mtime)
    if copies:
        return copies[-1]
    raise UserError(
        f"hf:{name}: no such directory, and no copy in the hub's cache ({folder.parent.parent})\n"
        f"download it with network access: hf download --repo-type dataset {name}"
    )


def _split(root: Path, file: Path) -> str | None:
    """The split that a file's name, or a folder above it, stands for; the nearest counts."""
    names = [file.stem, *(part.name for part in file.relative_to(root).parents if part.name)]
    for name in names:
        short = SPLIT_FILE.fullmatch(name)
        found = split_of(name) or (split_of(short[1]) if short else None)
        if found:
            return found
    return None


def _read(source: str, file: Path, columns: list[str] | None = None) -> Any:
    """A file as a table, of these columns alone."""

    def read() -> Any:
        if file.suffix == ".parquet":
            return pyarrow.parquet.read_table(file, columns=columns)
        with pyarrow.memory_map(os.fspath(file)) as mapped:
            table = pyarrow.ipc.open_stream(mapped).read_all()
            return table if columns is None else table.select(columns)

    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    return _plainly(source, file, read)


def _schema(source: str, file: Path) -> Any:
    """The columns of a file."""

    def read() -> Any:
        if file.suffix == ".parquet":
            return pyarrow.parquet.read_schema(file)
        with pyarrow.memory_map(os.fspath(file)) as mapped:
            return pyarrow.ipc.open_stream(mapped).schema

    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    return _plainly(source, file, read)


def _plainly(source: str, file: Path, read: Callable[[], Any]) -> Any:
    """What `read` returns; raises UserError where the file is damaged, or has not these columns."""
    import pyarrow

    try:
        return read()
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{source}: {file.name} cannot be read ({escape.message(error, 100)}).") from None


def _columns(source: str, schema: Any, columns: str | None) -> tuple[str, str, list[str] | None]:
    """The columns of image and label, and the names of the classes where the data set knows them."""
    names = list(schema.names)
    asked = dict(part.strip().split("=", 1) for part in (columns or "").split(",") if "=" in part)
    found = []
    for role, usual in (("file", IMAGE), ("label", LABEL)):
        column = asked.get(role) or next((n for n in usual if n in names), None)
        if column not in names:
            what = f"no column {column!r}" if column else f"no column for the {'image' if role == 'file' else 'label'}"
            near = suggest(str(column), names) if column else f"\ndata.columns={role}=NAME names it"
            raise UserError(f"{source}: {what}; there are {', '.join(names)}.{near}")
        found.append(str(column))
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[found[1]]
        feature = feature.get("feature", feature) if isinstance(feature, dict) else feature[0]
        return found[0], found[1], list(feature["names"])
    except (KeyError, ValueError, TypeError, IndexError):
        return found[0], found[1], None


def _opener(root: Path, images: Any, i: int) -> Path | Callable[[], IO[bytes]]:
    """What opens an image: its bytes, or the path that stands in their place."""

    def opened() -> IO[bytes]:
        value = images[i].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return (root / value).open("rb")
        if not isinstance(value, bytes):
            raise ValueError("no image in this row")
        return io.BytesIO(value)

    return opened


def _names(source: str, place: str, value: Any, names: list[str] | None) -> list[str]:
    """The classes of a row."""
    values = value if isinstance(value, list) else [value]
    if any(v is None or v == "" or v == -1 for v in values):
        raise UserError(f"{source}: {place} has no label; test splits of challenges often have no labels.")
    if names and all(isinstance(v, int) for v in values):
        if max(values, default=0) >= len(names):
            raise UserError(f"{source}: {place} has the label {max(values)}; there are {len(names)} classes.")
        return [plain(names[v]) for v in values]
    return [plain(str(v).strip()) for v in values]
