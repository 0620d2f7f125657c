"""What is known of ImageNet-1k: its classes, and the names of its validation images."""

import collections
import csv
import functools
import json
import os
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from jaxvit.errors import UserError

NUM_VAL = 50_000
SOLUTION = "LOC_val_solution.csv"  # of Kaggle's copy: the synset and the boxes of each validation image
VAL = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")  # in the name of a validation image: its number, from 1


@functools.cache
def classes() -> tuple[tuple[str, str], ...]:
    """Returns (synset, name) of the 1,000 classes, in the order of the labels, which is that of the synsets."""
    text = resources.files("jaxvit.data").joinpath("imagenet_classes.json").read_text(encoding="utf-8")
    return tuple((synset, name) for synset, name in json.loads(text))


def are_synsets(class_names: Iterable[str]) -> bool:
    """Whether all of some classes are called by the synsets of ImageNet-1k, as in its folders."""
    known = {synset for synset, _ in classes()}
    names = set(class_names)
    return bool(names) and names <= known


def readable(class_names: Sequence[str]) -> list[str]:
    """Class names for a person: "tench" for n01440764; as they are where not all of them are synsets.

    Two of ImageNet's classes are called crane, and two maillot; these keep their synset behind the name.
    """
    if not are_synsets(class_names):
        return list(class_names)
    names = dict(classes())
    times = collections.Counter(names.values())
    return [f"{names[s]} ({s})" if times[names[s]] > 1 else names[s] for s in class_names]


def val_number(name: str) -> int | None:
    """The number, from 1 to 50,000, that a validation image is called by; None for other files."""
    found = VAL.search(name)
    return int(found[1]) if found else None


def flat_labels(folder: Path) -> dict[str, str] | None:
    """Returns {name of an image without its ending: synset} of validation images that lie in no class folders.

    They come from Kaggle's LOC_val_solution.csv in the folder or one of four above it. None where the files of the
    folder are others.

    Raises:
      UserError: the file does not exist, or its content has another form.
    """
    first = next((name for name in sorted(os.listdir(folder)) if val_number(name) is not None), None)
    if first is None:
        return None
    places = [folder, *folder.absolute().parents[:4]]
    file = next((place / SOLUTION for place in places if (place / SOLUTION).is_file()), None)
    if file is None:
        raise UserError(
            f"{folder}: {first} and others lie there without class folders, as in the original archive\n"
            f"expected {SOLUTION} next to that folder, or a folder per synset, as val/n01440764/: see docs/IMAGENET.md"
        )
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            found = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(opened)}
    except (OSError, ValueError, KeyError, IndexError, AttributeError):
        found = {}
    if not are_synsets(found.values()):
        raise UserError(f"{file}: expected the columns ImageId and PredictionString, which begins with a synset")
    return found
