"""What the subfolders of a data set mean: splits or classes, and in which order classes count."""

import dataclasses
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxvit.data.files import hidden, image_files, is_folder
from jaxvit.data.imagenet import SOLUTION, are_synsets, flat_labels
from jaxvit.errors import UserError

# Split -> usual names of its folder, the likeliest first; in any case, also with "set", "data" or "images" behind.
SPLIT_NAMES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "holdout", "heldout"),
}
# Words within a longer name that speak for splits: "seg_train", "x_test", "split=train", "cifar10-train".
TRAIN_WORDS = (*SPLIT_NAMES["train"], "tr", "trn")
SPLIT_WORDS = (*(name for names in SPLIT_NAMES.values() for name in names), *TRAIN_WORDS, "te", "tst")
MOST_DIGITS = 1000  # of a number within a name: Python reads no longer ones
FEW = 20  # folders that may be splits or folds; to look through a thousand classes for folders would take too long
DOES = {"train": "trains", "val": "selects", "test": "tests"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which folder holds the class folders of which split, and lines that say how the folder was read."""

    folders: dict[str, Path]  # "train" always, "val" and "test" if such folders exist
    notes: list[str]
    # of a split without class folders: the class of each file, by its name without the ending
    flat: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    def class_names(self, split: str) -> set[str]:
        """The classes of a split."""
        if split in self.flat:
            return set(self.flat[split].values())
        return {plain(d.name) for d in subfolders(self.folders[split])}


def plain(name: str) -> str:
    """One spelling for names with accents: macOS takes them apart, Linux does not."""
    return unicodedata.normalize("NFC", name)


def in_order(names: Iterable[str]) -> list[str]:
    """Returns the class names in the order of their labels: sorted, where numbers within them count by their value.

    So "c2" comes before "c10", as a reader expects and timm's reader of folders has it; names that differ only in
    zeros before a number are sorted as text.
    """
    return sorted(set(names), key=lambda name: (_natural(name), name))


def _natural(name: str) -> list[Any]:
    parts = re.split(r"([0-9]+)", name)
    return [int(part[-MOST_DIGITS:]) if i % 2 else part for i, part in enumerate(parts)]


def as_labels(names: Iterable[str]) -> list[int] | None:
    """Returns the labels that class names are where they are exactly the numbers 0 to n - 1, as 0, 07 or 0007."""
    names = list(names)
    labels = [int(name) for name in names if is_number(name)]
    return labels if sorted(labels) == list(range(len(names))) else None


def is_number(name: str) -> bool:
    """Whether a class name is a whole number of a sensible length."""
    return re.fullmatch(r"[0-9]{1,9}", name) is not None


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            found = [folder / entry.name for entry in entries if not hidden(entry.name) and is_folder(entry)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).") from None
    return sorted(found, key=lambda d: plain(d.name))


def split_of(name: str) -> str | None:
    """Returns the split that a folder's name stands for: "Train" -> train, "test_set" -> test; None for others."""
    word = re.sub(r"[^a-z]", "", name.casefold())
    word = re.sub(r"(set|split|data|images|imgs)$", "", word)
    return next((split for split, usual in SPLIT_NAMES.items() if word in usual), None)


def read_layout(root: Path) -> Layout:
    """Returns what the subfolders of a data set are: one for each split with the classes in it, or the classes.

    Raises UserError if there is no subfolder, if all of them have names of splits and none has class folders,
    where their names only look like splits (`seg_train`), and where a folder `train` may be a split or a class. Of
    ImageNet's classes `val/` is the test split unless there is a `test/`, as it is of TFDS.
    """
    folders = subfolders(root)
    if not folders:
        if (labels := flat_labels(root)) is not None:
            return Layout({"train": root}, [f"{root.name}: the classes are those of {SOLUTION}"], {"train": labels})
        raise UserError(f"folder:{root}: empty, or images without class folders; expected one subfolder per class.")
    named = {d: split for d in folders if (split := split_of(d.name))}
    with_classes = {d: split for d, split in named.items() if subfolders(d)}
    if "train" not in with_classes.values():
        return _classes(root, folders, named, with_classes)
    layout, notes = {}, []
    for split in SPLIT_NAMES:
        found = sorted((d for d in with_classes if with_classes[d] == split), key=_likeliest)
        if found:
            layout[split] = found[0]
    flat: dict[str, dict[str, str]] = {}
    for folder in [d for d in named if named[d] == "val" and "val" not in layout and d not in with_classes]:
        if (labels := flat_labels(folder)) is not None:
            layout["val"], flat["val"] = folder, labels
            notes.append(f"{folder.name}: the classes are those of {SOLUTION}")
    published = set(layout) == {"train", "val"} and are_synsets(d.name for d in subfolders(layout["train"]))
    if published:
        layout = {"train": layout["train"], "test": layout["val"]}
        flat = {"test": flat["val"]} if flat else {}
    unused = [d for d in folders if d not in layout.values()]
    strangers = [d for d in unused if d not in named and image_files(d)]
    if len(layout) == 1 and strangers:
        train, others = layout["train"], _listed(strangers)
        raise UserError(
            f"folder:{root}: cannot tell whether {train.name}/ is the training split or a class next to {others}\n"
            f"for the split use folder:{train}; for a class remove its subfolders or rename it"
        )
    read = ", ".join(f"{layout[split].name}/ {DOES[split]}" for split in layout)
    held_out = "" if "test" in layout else f"; the test images are held out of {layout['train'].name}/"
    notes.append(f"{root.name}: {read}{held_out}")
    if published:
        notes.append(f"{layout['test'].name}/ is the test split, as in the published figures of ImageNet")
    empty = [d for d in unused if d in named and d not in with_classes]
    if empty:
        notes.append(f"{_listed(empty)} {_have(empty)} no class folders and {_are(empty)} not used")
    rest = [d for d in unused if d not in empty]
    if rest:
        notes.append(f"{_listed(rest)} in {root.name} {_are(rest)} not used")
    return Layout(layout, notes, flat)


def _classes(root: Path, folders: list[Path], named: dict[Path, str], with_classes: dict[Path, str]) -> Layout:
    """The reading without splits: each subfolder is a class."""
    if len(named) == len(folders):
        first = next(iter(with_classes), None)
        instead = f", or the one with the classes, for example folder:{first}" if first else ""
        word = "a split" if len(folders) == 1 else "splits"
        raise UserError(
            f"folder:{root}: {_listed(folders)} {_are(folders)} named like {word}, and no train/ has class folders\n"
            f"expected a subfolder per class in train/ and the others{instead}"
        )
    few = folders if len(folders) <= FEW else []
    inside = [{plain(d.name) for d in subfolders(folder)} for folder in few]
    words = {d: set(re.findall(r"[a-z]+", d.name.casefold())) for d in few}
    splits = [d for d in few if words[d].intersection(SPLIT_WORDS)]
    first = next((d for d in splits if words[d].intersection(TRAIN_WORDS)), None)
    if first is not None and len(splits) > 1 and all(inside):
        raise UserError(
            f"folder:{root}: {_listed(splits)} look like splits, each with folders in it\n"
            f"rename them to train/, val/ and test/, or use the one with the classes: folder:{inner(first)}"
        )
    notes = [f"{root.name}: its {len(folders)} folders are the classes"]
    if len(few) > 1 and len(inside[0]) > 1 and all(names == inside[0] for names in inside):
        same = _listed([Path(name) for name in sorted(inside[0])])
        notes.append(
            f"each of them has the folders {same}; if those are the classes, use one of them: folder:{folders[0]}"
        )
    if named:
        notes.append(f"{_listed(list(named))} {_are(list(named))} taken for a class; a split needs a train/ next to it")
    return Layout({"train": root}, notes)


def inner(folder: Path) -> Path:
    """Returns the first folder at or below `folder` that holds more than one other: archives often nest twice."""
    while len(below := subfolders(folder)) == 1:
        folder = below[0]
    return folder


def _likeliest(folder: Path) -> tuple[int, str]:
    """Where several folders are named for one split: by the table's order."""
    word = re.sub(r"[^a-z]", "", folder.name.casefold())
    usual = [name for names in SPLIT_NAMES.values() for name in names]
    return (usual.index(word) if word in usual else len(usual), folder.name)


def _listed(folders: list[Path]) -> str:
    names = ", ".join(f"{d.name}/" for d in folders[:3])
    return names + (f" and {len(folders) - 3} more" if len(folders) > 3 else "")


def _have(folders: list[Path]) -> str:
    return "has" if len(folders) == 1 else "have"


def _are(folders: list[Path]) -> str:
    return "is" if len(folders) == 1 else "are"
