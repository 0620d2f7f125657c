"""What a plan must know of the data, without reading them: how many images of what size in how many classes."""

import collections
import dataclasses
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit import plugins
from jaxvit.build import parts
from jaxvit.build.facts import Facts, of_dataset
from jaxvit.config.default import Config
from jaxvit.data import listing
from jaxvit.data.layout import read_layout, subfolders
from jaxvit.data.sources import hf, label_file, npz, wds
from jaxvit.data.splits import IMAGENET_MEAN, IMAGENET_STD, long_tail
from jaxvit.errors import UserError
from jaxvit.runtime.paths import expand

Shape = tuple[int, int, int]
# name -> classes, training images, test images, (h, w, c) where all are of one size, else None
KNOWN: dict[str, tuple[int, int, int, Shape | None]] = {
    "digits": (10, 1347, 450, (8, 8, 1)),
    "cifar10": (10, 50_000, 10_000, (32, 32, 3)),
    "cifar100": (100, 50_000, 10_000, (32, 32, 3)),
    "mnist": (10, 60_000, 10_000, (28, 28, 1)),
    "fashion_mnist": (10, 60_000, 10_000, (28, 28, 1)),
    "imagenet2012": (1000, 1_281_167, 50_000, None),
    "imagenette": (10, 9_469, 3_925, None),
    "food101": (101, 75_750, 25_250, None),
    "oxford_iiit_pet": (37, 3_680, 3_669, None),
    "oxford_flowers102": (102, 1_020, 6_149, None),
    "stanford_dogs": (120, 12_000, 8_580, None),
    "cars196": (196, 8_144, 8_041, None),
}


UNKNOWN = (1000, 1_281_167, 50_000, None)  # ImageNet-1k


def find(config: Config, num_classes: int | None = None, num_train: int | None = None) -> Facts:
    """Returns the facts from the name, the headers of the files, or the arguments, which go first.

    For data that are not on this machine and not known, the plan assumes those of ImageNet; the note says so.
    """
    kind, _, argument = str(config.data.name).partition(":")
    if plugins.is_registered("data set", kind):  # only its function knows
        found = of_dataset(parts.load_data(config))
        return dataclasses.replace(found, num_train=num_train or found.num_train)
    several, why = False, "is not on this machine"
    known = KNOWN.get(argument.partition("/")[0] if kind == "tfds" else kind)
    if kind == "npz" and (expand(argument) / "train.npz").is_file():
        known, several = _npz(expand(argument))
    elif kind == "folder" and expand(argument).is_dir():
        known = _folder(expand(argument))
    elif kind in label_file.KINDS and expand(argument).is_file():
        known, several = _label_file(str(config.data.name), expand(argument), config.data.columns)
    elif kind in ("hf", "wds"):
        known, several, why = _within(kind, argument, config.data.columns)
    note = None
    if known is None:
        given = num_classes or config.model.get("num_classes")
        known = (int(given or UNKNOWN[0]), *UNKNOWN[1:])
        note = f"{config.data.name} {why}; the plan assumes photos, {known[0]:,} classes (--num-classes N)"
        note += f" and {num_train or known[1]:,} training images (--num-train N)"
    classes, train, test, shape = known
    facts = _drawn(config, num_classes or classes, num_train or train, test, shape, note)
    return dataclasses.replace(facts, several=several)


def _drawn(config: Config, classes: int, stored: int, test: int, shape: Shape | None, note: str | None) -> Facts:
    """The facts after validation is drawn and limits are set."""
    channels = shape[2] if shape else 3
    val = round(stored * config.data.val_fraction)
    train = round((stored - val) * config.data.fraction)
    if config.data.per_class:
        train = min(train, config.data.per_class * classes)
    if config.data.imbalance and classes > 1:
        train = int(long_tail(np.full(classes, max(train // classes, 1)), config.data.imbalance).sum())
    return Facts(
        num_classes=classes,
        num_train=train,
        num_val=val,
        num_test=test,
        shape=shape,
        in_channels=channels,
        image_size=shape[:2] if shape else None,
        mean=(0.5,) * channels if shape else IMAGENET_MEAN,
        std=(0.25,) * channels if shape else IMAGENET_STD,
        note=note,
    )


def _npz(root: Path) -> tuple[tuple[int, int, int, Shape | None], bool]:
    """From the headers of the arrays, and whether images have several labels; the labels are small and are read."""
    try:
        with np.load(root / "train.npz", allow_pickle=False) as arrays:
            labels, names = arrays["label"], next((arrays[key] for key in npz.NAMES if key in arrays), None)
        several = labels.ndim == 2 and labels.shape[1] > 1
        classes = len(names) if names is not None else labels.shape[1] if several else int(labels.max()) + 1
        train, test = _header(root / "train.npz"), _header(root / "test.npz")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {str(root)!r}: {(str(error).splitlines() or ['?'])[0]}") from None
    shape: Any = train[1:] if len(train) == 4 else (*train[1:], 1)
    return (classes, train[0], test[0], shape), several


def _label_file(source: str, file: Path, columns: str | None) -> tuple[tuple[int, int, int, None], bool]:
    """From the rows, and whether an image may have several labels; no image is read."""
    rows = label_file.read(source, file, columns)
    images = collections.Counter(rows.splits or ["train"] * len(rows))
    return _photos(images, len(rows.class_names)), rows.several


def _within(kind: str, argument: str, columns: str | None) -> tuple[tuple[int, int, int, None] | None, bool, str]:
    """From the labels within Parquet files or shards, or why they say nothing; no image is read."""
    try:
        found = hf.count(argument, columns) if kind == "hf" else wds.count(argument)
    except UserError as error:
        said = str(error).splitlines()[0].removeprefix(f"{kind}:{argument}: ").rstrip(".")
        return None, False, f"cannot be read ({said})"
    if found is None:
        return None, False, "has too many shards to read"
    images, class_names, several = found
    return _photos(images, len(class_names)), several, ""


def _photos(images: collections.Counter[str], classes: int) -> tuple[int, int, int, None]:
    """(classes, training images, test images, no common size), with a test split drawn if there is none."""
    held_out = round(0.2 * images["train"]) if "test" not in images else 0  # see splits.automatic_test
    return classes, images["train"] - held_out, images.get("test", held_out), None


def _header(path: Path) -> tuple[int, ...]:
    with zipfile.ZipFile(path) as archive, archive.open("image.npy") as file:
        head = io.BytesIO(file.read(4096))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(head)[0]


def _folder(root: Path) -> tuple[int, int, int, Shape | None] | None:
    """From the names of the files."""
    layout, images = read_layout(root), {}
    classes = layout.class_names("train")
    for split, folder in layout.folders.items():
        within = ["."] if split in layout.flat else [d.name for d in subfolders(folder)]
        images[split] = sum(listing.count(folder, within))
    if not classes or not images["train"]:
        return None
    return _photos(collections.Counter(images), len(classes))
