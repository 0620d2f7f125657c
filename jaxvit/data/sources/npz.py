"""Data sets as arrays: a directory with `train.npz`, `test.npz` and, if wanted, `val.npz` and `classes.txt`."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.data.splits import Source, Split, channel_statistics, from_arrays
from jaxvit.errors import UserError
from jaxvit.runtime.paths import check_directory, expand

MAX_CLASSES = 100_000  # a larger label is a mistake; its classifier would not fit the memory
MAX_CHANNELS = 16  # more in the last place means [n, c, h, w]
NAMES = ("class_names", "classes")  # arrays that may name the classes
NAMES_FILES = ("classes.txt", "classes.json")  # and files next to them: a name a line, or a list of strings


def load(path: str, to_train: bool = True) -> Source:
    """Reads `image` ([n, h, w, c] or [n, h, w]; uint8, or float in [0, 1]) and `label` of each split.

    `label` is int [n], or of several labels per image 0 or 1 for each class, [n, num_classes]. `classes` or
    `class_names` (different strings [num_classes]) in train.npz names the classes, or the file classes.txt or
    classes.json in the directory; otherwise they are numbers: of one label up to the largest train label, and some
    split must have the label 0. Classes without a training image are noted.
    """
    root = expand(path)
    if root.is_file() and (root.parent / "train.npz").is_file():
        raise UserError(f"npz:{path}: is a file; expected its directory. Did you mean {f'npz:{root.parent}'!r}?")
    check_directory(root, f"npz:{path}", "train.npz and test.npz")
    files = {name: root / f"{name}.npz" for name in ("train", "val", "test") if (root / f"{name}.npz").is_file()}
    for name in ("train", "test"):
        if name not in files:
            raise UserError(f"npz:{path}: {name}.npz is missing; expected train.npz and test.npz.")
    arrays = {name: _read(file) for name, file in files.items()}
    names = _names_file(root)
    if names is not None:
        stored = next((arrays["train"][key] for key in NAMES if key in arrays["train"]), None)
        if stored is not None and stored.tolist() != names[1]:
            raise UserError(f"{names[0]} and train.npz name different classes; expected one of the two, or the same.")
        arrays["train"]["classes"] = np.asarray(names[1], np.str_)
    return _source(arrays, files, to_train)


def _names_file(root: Path) -> tuple[Path, list[str]] | None:
    """(file, names) of the file that names the classes, if there is one."""
    found = [root / name for name in NAMES_FILES if (root / name).is_file()]
    if not found:
        return None
    if len(found) > 1:
        raise UserError(f"{root} has both {' and '.join(NAMES_FILES)}; expected one of them.")
    file = found[0]
    try:
        text = file.read_text(encoding="utf-8-sig")
        names = json.loads(text) if file.suffix == ".json" else [line.strip() for line in text.rstrip().splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({_first_line(error)}).") from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        expected = "a JSON list of strings" if file.suffix == ".json" else "a name on every line"
        raise UserError(f"{file}: expected {expected}, the classes in the order of their labels.")
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise UserError(f"{file}: the class {twice!r} is named twice; expected different names.")
    return file, names


def of_arrays(given: Any, name: str, to_train: bool = True) -> Source:
    """As `load`, from {"train": (images, labels), "test": (images, labels)}, "val" and "classes" if wanted.

    `name` is what the errors call it.
    """
    expected = 'expected {"train": (images, labels), "test": (images, labels)}, "val" and "classes" if wanted'
    if not isinstance(given, Mapping):
        raise UserError(f"{name} is {type(given).__name__}; {expected}.")
    stray = [key for key in given if key not in ("train", "val", "test", "classes")]
    missing = [key for key in ("train", "test") if key not in given]
    if stray or missing:
        raise UserError(f"{name} has {f'a key {stray[0]!r}' if stray else f'no {missing[0]!r}'}; {expected}.")
    splits = {}
    for split in (key for key in ("train", "val", "test") if key in given):
        pair = given[split]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(f"{name}.{split} is {type(pair).__name__}; expected (images, labels).")
        splits[split] = {"image": np.asarray(pair[0]), "label": np.asarray(pair[1])}
    if given.get("classes") is not None:
        splits["train"]["classes"] = np.asarray(given["classes"])
    return _source(splits, {split: Path(f"{name}.{split}") for split in splits}, to_train)


def _source(arrays: Mapping[str, dict[str, np.ndarray]], files: Mapping[str, Path], to_train: bool) -> Source:
    """The arrays of each split as a source; `files` are what the errors call them."""
    splits = {name: _split(name, files[name], of) for name, of in arrays.items()}
    key = next((key for key in NAMES if key in arrays["train"]), None)
    class_names = None if key is None else _class_names(files["train"], key, arrays["train"][key])
    train = splits["train"]
    several = train.labels.ndim == 2
    if several:
        class_names = class_names or [str(i) for i in range(train.labels.shape[1])]
        for name, split in splits.items():
            _check_several(files[name], split, len(class_names))
    elif train.labels.max() >= MAX_CLASSES:
        raise UserError(f"{files['train']}: label {train.labels.max()}; expected at most {MAX_CLASSES - 1}.")
    if class_names is None:
        _check_first(files["train"], list(splits.values()))
        class_names = [str(i) for i in range(int(train.labels.max()) + 1)]
    if to_train and not several and (len(class_names) < 2 or len(np.unique(train.labels)) < 2):
        raise UserError(f"{files['train']}: all labels belong to one class; a classifier needs two or more.")
    for name, split in splits.items():
        _check_against_train(files[name], split, train, len(class_names))
    assert train.images is not None
    _, h, w, c = train.images.shape
    mean, std = channel_statistics(train.images)
    return Source(splits, class_names, c, (h, w), mean, std, _notes(train, class_names))


def _read(file: Path) -> dict[str, np.ndarray]:
    """Reads the arrays that matter; pickled objects are refused, never loaded."""
    try:
        with file.open("rb") as opened:  # numpy leaves a damaged file open
            stored = np.load(opened, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise UserError(f"{file}: a single array; expected an archive written by numpy.savez.")
            return {key: stored[key] for key in ("image", "label", *NAMES) if key in stored}
    except UserError:
        raise
    except ValueError as error:
        if "allow_pickle" in str(error) or "pickle" in str(error):
            raise UserError(
                f"{file}: holds pickled Python objects, which are never loaded; expected plain arrays."
            ) from None
        raise UserError(f"{file}: cannot be read ({_first_line(error)}).") from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, SyntaxError, MemoryError) as error:
        raise UserError(f"{file}: cannot be read ({_first_line(error)}).") from None
    except Exception as error:  # damaged deflate streams raise zlib.error, struct.error and others
        raise UserError(f"{file}: damaged ({_first_line(error)}).") from None


def _split(name: str, file: Path, arrays: dict[str, np.ndarray]) -> Split:
    for key in ("image", "label"):
        if key not in arrays:
            raise UserError(f"{file}: no array {key!r}; expected arrays 'image' and 'label'.")
    images, labels = as_images(str(file), arrays["image"]), arrays["label"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    several = labels.ndim == 2
    if several:
        labels = _indicators(file, labels)
    elif labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{file}: label is {labels.dtype} {list(labels.shape)}; expected whole numbers [n], or of several labels "
            "per image 0 and 1 [n, classes]."
        )
    if len(images) != len(labels):
        raise UserError(f"{file}: {len(images)} images but {len(labels)} labels; expected one label per image.")
    if not len(images):
        raise UserError(f"{file}: no images.")
    if not several and (labels.min() < 0 or labels.max() >= 2**31):
        bad = labels.min() if labels.min() < 0 else labels.max()
        raise UserError(f"{file}: label {bad}; expected labels from 0 to the number of classes minus one.")
    return from_arrays(name, images, labels, stored=file.name)


def _indicators(file: Path, labels: np.ndarray) -> np.ndarray:
    """Several labels per image as uint8 [n, classes]."""
    if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        other = labels[~np.isin(labels, (0, 1))].ravel()[:1] if labels.dtype.kind in "biuf" else [labels.dtype]
        raise UserError(
            f"{file}: label has shape {list(labels.shape)}, so several labels per image, but holds {other[0]}; "
            "expected only 0 and 1, or whole numbers [n]."
        )
    if not labels.shape[1]:
        raise UserError(f"{file}: label has shape {list(labels.shape)}; expected one column per class.")
    return labels.astype(np.uint8)


def as_images(file: str, images: np.ndarray) -> np.ndarray:
    """Returns uint8 [n, h, w, c] of uint8 or float in [0, 1], [n, h, w, c] or [n, h, w]; `file` is for the errors.

    Raises:
      UserError: arrays of other shapes, types or values.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(f"{file}: image has shape {list(images.shape)}; expected [n, h, w, c] or [n, h, w].")
    if images.shape[-1] > MAX_CHANNELS:
        raise UserError(
            f"{file}: image has shape {list(images.shape)}, {images.shape[-1]} channels; expected [n, h, w, c]."
        )
    if images.dtype == np.uint8 or not images.size:
        return np.ascontiguousarray(images, np.uint8)
    if images.dtype.kind not in "iuf":
        raise UserError(f"{file}: image is {images.dtype}; expected uint8, or float in [0, 1].")
    low, high = images.min(), images.max()
    if images.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise UserError(f"{file}: image values from {low} to {high}; expected whole numbers from 0 to 255.")
        return images.astype(np.uint8)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{file}: image has values that are not finite; expected floats in [0, 1].")
    if low < 0 or high > 1:
        raise UserError(f"{file}: image values from {low:.4g} to {high:.4g}; expected floats in [0, 1], or uint8.")
    return np.rint(images * images.dtype.type(255)).astype(np.uint8)


def _check_first(file: Path, splits: list[Split]) -> None:
    """Labels from 1 to n, as MATLAB writes them, would become n + 1 classes, the first of which has no image."""
    least = min(int(split.labels.min()) for split in splits)
    if least > 0:
        most = max(int(split.labels.max()) for split in splits)
        raise UserError(
            f"{file}: labels from {least} to {most}; expected labels from 0\n"
            f"subtract {least} from them, or name all {most + 1} classes in class_names where class 0 has no images"
        )


def _notes(train: Split, class_names: list[str]) -> list[str]:
    """Lines on several labels per image, and on classes that training never shows."""
    several = train.labels.ndim == 2
    notes = ["several labels per image"] if several else []
    if several and np.all(train.labels.sum(axis=1) == 1):
        notes = ["each image has exactly one of the classes; whole numbers [n] as label would state that"]
    there = np.flatnonzero(train.labels.any(axis=0)) if several else np.unique(train.labels)
    missing = np.setdiff1d(np.arange(len(class_names)), there)
    if len(missing):
        names = ", ".join(class_names[i] for i in missing[:3]) + (", ..." if len(missing) > 3 else "")
        notes.append(f"{len(missing)} of {len(class_names)} classes have no training image: {names}")
    return notes


def _check_several(file: Path, split: Split, num_classes: int) -> None:
    if split.labels.ndim != 2 or split.labels.shape[1] != num_classes:
        raise UserError(
            f"{file}: label has shape {list(split.labels.shape)}; expected [n, {num_classes}], the classes "
            "of train.npz."
        )


def _class_names(file: Path, key: str, names: np.ndarray) -> list[str]:
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise UserError(f"{file}: {key} must be different strings [num_classes].")
    return [str(name) for name in names]


def _check_against_train(file: Path, split: Split, train: Split, num_classes: int) -> None:
    assert split.images is not None and train.images is not None
    if split.labels.ndim != train.labels.ndim:
        raise UserError(f"{file}: label has shape {list(split.labels.shape)}; expected [n] as in train.npz.")
    if split.labels.max() >= num_classes and split.labels.ndim == 1:
        raise UserError(
            f"{file}: label {split.labels.max()}; expected 0 to {num_classes - 1} ({num_classes} classes)."
            + (" The labels may begin at 1." if split.labels.max() == num_classes and split.labels.min() > 0 else "")
        )
    have, want = list(split.images.shape[1:]), list(train.images.shape[1:])
    if have != want:
        raise UserError(f"{file}: images are {have}; expected {want} as in train.npz.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
