"""Labels in a file: `csv:FILE` and `parquet:FILE`, a row per image, with splits and groups where they are given."""

import dataclasses
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxvit.data.images import in_threads
from jaxvit.data.label_rows import Cell, Rows, listed, read_rows
from jaxvit.data.layout import in_order, plain, split_of
from jaxvit.data.sources.photos import Photo, as_columns, collect
from jaxvit.data.splits import Source
from jaxvit.errors import UserError, suggest
from jaxvit.runtime.paths import expand

KINDS = ("csv", "parquet")  # two names of one reader, which goes by the content
# What a column is for -> its usual names, the first of which is the one to use.
ROLES = {
    "file": ("file", "filename", "file_name", "path", "filepath", "file_path", "image", "image_path"),
    "label": ("label", "labels", "class", "target"),
    "split": ("split",),
    "group": ("group",),
}
BETWEEN = ("|", ";")  # labels in one cell; the first that occurs
TRUE, FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
SUFFIXES = (".jpg", ".png", ".jpeg", ".webp")  # that a name without one may lack


@dataclasses.dataclass(frozen=True)
class Labelled:
    """The rows of a label file, of which no image has been looked at."""

    files: list[str]  # as written
    places: list[str]  # where each row stands, for messages
    labels: list[tuple[str, ...]]  # names of classes; one each, unless `several`
    several: bool  # whether an image may have several labels, or none
    class_names: list[str]
    splits: list[str] | None
    groups: list[str] | None
    notes: list[str]

    def __len__(self) -> int:
        return len(self.files)


def load(kind: str, path: str, **options: Any) -> Source:
    """Reads a label file and the images that it names, paths relative to its folder.

    Args:
      kind: "csv" or "parquet", for messages.
      path: of the file.
      **options: those of `load_dataset` (`skipped_file`, `max_bad_fraction`, `class_names`, `to_train`, `columns`).

    Splits that the file gives are taken as they are; of those that it does not, validation and test are held out of
    the training images: stratified, and by whole groups if the file has a column `group`. Classes have the order of
    `layout.in_order`, or that of `class_names` where these are the same ones. Images that cannot be read are treated
    as those of `folder:`.
    """
    source, file = f"{kind}:{path}", expand(path)
    rows = read(source, file, options.get("columns"), options.get("class_names"))
    photos = _photos(source, file.absolute().parent, rows)
    photos = as_columns(photos, len(rows.class_names), several=rows.several)
    return collect(source, photos, rows.class_names, several=rows.several, notes=rows.notes, **options)


def read(source: str, file: Path, columns: str | None = None, known: Sequence[str] | None = None) -> Labelled:
    """Reads the rows of a label file; see `load`. `known`: the order of the classes of a run.

    Raises:
      UserError: columns that are not there, cells without a file or label, values that do not name a split.
    """
    table = read_rows(source, file)
    roles = _roles(source, table, columns)
    given = [str(text) for text in table.columns[roles["file"][0]]]
    _refuse_empty(source, table, given, "file")
    notes = list(table.notes)
    if len(roles["label"]) == 1 and not _is_yes_no(table.columns[roles["label"][0]], roles, columns):
        labels, several, said = _labels(source, table, table.columns[roles["label"][0]], given)
        class_names = in_order(name for names in labels for name in names)
    else:
        labels, several, said = _by_class(source, table, roles["label"]), True, ""
        class_names = [plain(name) for name in roles["label"]]
    notes += [said] if said else []
    if several and all(len(names) == 1 for names in labels):
        notes.append("each image has exactly one of the classes; a column `label` would state that")
    used = {name for names in roles.values() for name in names}
    rest = [name for name in table.columns if name not in used]
    if rest:
        notes.append(f"columns that are not used: {listed(rest)}")
    if known is not None and sorted(known) == sorted(class_names):
        class_names = list(known)
    splits = _splits(source, table, roles["split"][0]) if roles["split"] else None
    groups = None
    if roles["group"]:
        cells = table.columns[roles["group"][0]]
        groups = [str(cell) or f"\0{i}" for i, cell in enumerate(cells)]  # without one: its own group
    return Labelled(given, table.places, labels, several, class_names, splits, groups, notes)


def _roles(source: str, table: Rows, columns: str | None) -> dict[str, list[str]]:
    """The columns of each role: as `columns` names them, by their usual names, or all others as classes."""
    names = list(table.columns)
    roles: dict[str, list[str]] = {role: [] for role in ROLES}
    for part in columns.split(",") if columns else ():
        role, equals, name = (text.strip() for text in part.partition("="))
        if role not in ROLES or not equals or not name:
            hint = suggest(role, ROLES) if equals else ""
            raise UserError(
                f"data.columns is {columns!r}; expected {', '.join(ROLES)}, such as 'file=path,label=species'.{hint}"
            )
        if name not in names:
            raise UserError(f"{source}: no column {name!r}; there are {listed(names)}.{suggest(name, names)}")
        if role != "label" and roles[role]:
            raise UserError(f"data.columns is {columns!r}; expected one column for {role}")
        roles[role].append(name)
    taken = [name for chosen in roles.values() for name in chosen]
    for role, usual in ROLES.items():
        by_name = {name.casefold(): name for name in names if name not in taken}
        if not roles[role]:
            roles[role] = [by_name[name] for name in usual if name in by_name][:1]
    if not roles["file"]:
        first = next((name for name in names if name.lower().endswith(SUFFIXES)), None)
        hint = (
            f"\ncheck that the file has a header line; it begins with {first!r}"
            if first
            else f"\n{_how('file', names)}"
        )
        raise UserError(f"{source}: no column 'file'; there are {listed(names)}.{suggest('file', names)}{hint}")
    if not roles["label"]:
        taken = [name for chosen in roles.values() for name in chosen]
        roles["label"] = [name for name in names if name not in taken]
        other = next((name for name in roles["label"] if not set(_lower(table.columns[name])) <= {*TRUE, *FALSE}), None)
        if other is not None or not roles["label"]:
            seen = next((c for c in _lower(table.columns[other]) if c not in (*TRUE, *FALSE)), "") if other else ""
            why = f", and column {other!r} holds {seen!r}" if other else ""
            expected = "expected label, or a column of 0 and 1 per class"
            raise UserError(
                f"{source}: no column 'label'{why}; {expected}.\nthere are {listed(names)}; {_how('label', names)}"
            )
    return roles


def _how(role: str, names: list[str]) -> str:
    """How to name the column of a role, and the label's too if there is none by its usual names."""
    others = [name for name in names[1:] if name.casefold() not in {n for usual in ROLES.values() for n in usual}]
    if role == "file" and len(others) == len(names) - 1 and others:
        return f"data.columns=file={names[0]},label={others[0]} names both"
    return f"data.columns={role}={names[0] if role == 'file' else names[-1]} names it"


def _is_yes_no(cells: list[Cell], roles: dict[str, list[str]], columns: str | None) -> bool:
    """Whether a single column is one of a class, 0 or 1, rather than one of labels."""
    named = roles["label"][0].casefold() in ROLES["label"] or (columns is not None and "label=" in columns)
    return not named and set(_lower(cells)) <= {*TRUE, *FALSE}


def _lower(cells: Iterable[Cell]) -> Iterable[str]:
    return (str(cell).casefold() for cell in cells)


def _labels(source: str, table: Rows, cells: list[Cell], given: list[str]) -> tuple[list[tuple[str, ...]], bool, str]:
    """Returns (labels of each row, whether there may be several, a line on how they are told apart)."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    between = next((mark for mark in BETWEEN if any(mark in text for text in texts)), None)
    several = between is not None or len(texts) < len(cells)
    if not several:
        _refuse_empty(source, table, texts, "label", given)
        return [(plain(text),) for text in texts], False, ""
    split = [cell.split(between) if isinstance(cell, str) else cell for cell in cells]
    labels = [tuple(dict.fromkeys(plain(name.strip()) for name in names if name.strip())) for names in split]
    said = f"several labels per image, separated by {between!r}" if between else "several labels per image"
    none = sum(not names for names in labels)
    return labels, True, said + (f"; {none} images have none" if none else "")


def _by_class(source: str, table: Rows, names: list[str]) -> list[tuple[str, ...]]:
    """The classes of each row, from a column of 0 and 1 for each."""
    found: list[list[str]] = [[] for _ in range(len(table))]
    for name in names:
        for i, cell in enumerate(_lower(table.columns[name])):
            if cell in TRUE:
                found[i].append(plain(name))
            elif cell not in FALSE:
                said = f"holds {cell!r}" if cell else "is empty"
                raise UserError(f"{source}: column {name!r} {said} in {table.places[i]}; expected 0 or 1.")
    return [tuple(names) for names in found]


def _splits(source: str, table: Rows, column: str) -> list[str]:
    cells = [str(cell) for cell in table.columns[column]]
    known = {word: split_of(word) for word in set(cells)}
    for cell, place in zip(cells, table.places, strict=True):
        if known[cell] is None:
            said = f"split is {cell!r}" if cell else "split is empty"
            near = suggest(cell.casefold(), ("train", "validation", "val", "test"))
            raise UserError(f"{source}: {said} in {place}; expected train, val or test.{near}")
    return [str(known[cell]) for cell in cells]


def _refuse_empty(source: str, table: Rows, cells: list[str], role: str, files: list[str] | None = None) -> None:
    empty = [i for i, cell in enumerate(cells) if not cell]
    if empty:
        of = [f"{table.places[i]} ({files[i]})" if files else table.places[i] for i in empty]
        rows = "1 row has" if len(empty) == 1 else f"{len(empty)} rows have"
        raise UserError(f"{source}: {rows} no {role}: {listed(of, 3)}.")


def _photos(source: str, folder: Path, rows: Labelled) -> list[Photo]:
    """The images that the rows name. Raises UserError for files that are not there, and for those named twice."""
    paths: list[Path | None] = [None] * len(rows)

    def find(i: int) -> None:
        paths[i] = _find(folder, rows.files[i])

    in_threads(find, len(rows), "looking for images", show_from=100_000)
    missing = [i for i, path in enumerate(paths) if path is None]
    if missing:
        first = listed([f"{rows.files[i]} ({rows.places[i]})" for i in missing], 3)
        near = next((s for s in SUFFIXES if _find(folder, rows.files[missing[0]] + s)), None)
        hint = (
            f"there is {rows.files[missing[0]]}{near}: a name needs its file extension"
            if near
            else f"paths are relative to {folder}"
        )
        files = "file is" if len(missing) == 1 else "files are"
        raise UserError(f"{source}: {len(missing)} of {len(rows)} {files} not there: {first}.\n{hint}")
    labels = {name: i for i, name in enumerate(rows.class_names)}
    seen: dict[str, int] = {}
    photos, doubled = [], []
    for i, path in enumerate(paths):
        assert path is not None
        split = rows.splits[i] if rows.splits else "train"
        before = seen.setdefault(os.path.normpath(path), i)
        if before != i:
            _refuse_contradiction(source, rows, before, i)
            doubled.append((before, i))
            continue
        own = rows.labels[i]
        label = tuple(int(name in own) for name in rows.class_names) if rows.several else labels[own[0]]
        name = rows.files[i].replace("\\", "/") if not os.path.exists(folder / rows.files[i]) else rows.files[i]
        photos.append(Photo(path, name, split, label, i, rows.groups[i] if rows.groups else None))
    _refuse_doubled(source, rows, doubled)
    _check_groups(source, photos)
    return photos


def _find(folder: Path, text: str) -> Path | None:
    """The file that a row names: as written, with Windows's slashes turned, with accents as macOS writes them."""
    turned = text.replace("\\", "/")
    for name in dict.fromkeys((text, turned, *(unicodedata.normalize(form, turned) for form in ("NFC", "NFD")))):
        path = folder / name
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):  # a name that is too long, or has a null character
            continue
    return None


def _refuse_contradiction(source: str, rows: Labelled, a: int, b: int) -> None:
    """Raises UserError where two rows say different things of one file."""
    said: tuple[tuple[str, Callable[[int], str]], ...] = (
        ("label", lambda i: "|".join(sorted(rows.labels[i])) or "none"),
        ("split", lambda i: rows.splits[i] if rows.splits else ""),
        ("group", lambda i: rows.groups[i] if rows.groups else ""),
    )
    for what, of in said:
        if of(a) != of(b) and not (what == "group" and "\0" in of(a) + of(b)):
            hint = "\nwrite several labels of one image in one cell, such as cat|dog" if what == "label" else ""
            raise UserError(
                f"{source}: {rows.files[b]} has two {what}s, {of(a)!r} ({rows.places[a]}) and {of(b)!r} "
                f"({rows.places[b]}); expected one row per file.{hint}"
            )


def _refuse_doubled(source: str, rows: Labelled, doubled: list[tuple[int, int]]) -> None:
    """Raises UserError where rows say again what a row before them says: the sign of tables that were put together."""
    if doubled:
        said = listed([f"{rows.files[b]} ({rows.places[a]} and {rows.places[b]})" for a, b in doubled], 3)
        number = f"{len(doubled)} rows repeat files" if len(doubled) > 1 else "a row repeats a file"
        raise UserError(f"{source}: {number}: {said}; expected one row per file.")


def _check_groups(source: str, photos: list[Photo]) -> None:
    seen: dict[str, Photo] = {}
    for photo in photos:
        if photo.group is not None and seen.setdefault(photo.group, photo).split != photo.split:
            other = seen[photo.group]
            raise UserError(
                f"{source}: group {photo.group!r} is in two splits, {other.split} ({other.name}) and {photo.split} "
                f"({photo.name})\nkeep the images of a group in one split: a model trained on one has seen the others"
            )
