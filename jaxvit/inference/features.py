"""Pooled features of whole data sets, written to a file: in batches, in file order, on from where it stopped."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import __version__, data, explain, tree
from jaxvit.data import index_file
from jaxvit.errors import RunError, UserError
from jaxvit.inference import feature_file
from jaxvit.inference.classifier import Classifier
from jaxvit.inference.feature_file import Store, Table
from jaxvit.inference.prediction import SHOWN
from jaxvit.inference.splits import OpenSplit, open_data, open_folder, ready, whole_name
from jaxvit.runtime import escape
from jaxvit.runtime.console import bar, err, warn
from jaxvit.runtime.late import fetched

SPLITS = ("train", "val", "test", "all")
UNLABELLED = -1  # the label of an image whose class nobody said


@dataclasses.dataclass(frozen=True)
class Images:
    """The splits of a data set that a classifier's model can read.

    `name` is the data's, `class_names` are those of the labels. `open` makes the batches of a split.
    """

    name: str
    splits: Mapping[str, data.Split]  # those that have images, in their order
    class_names: Sequence[str]
    open: Any  # name of a split -> OpenSplit

    def named(self, split: str) -> list[str]:
        """The splits that a word stands for. Raises UserError where there are no images."""
        found = list(self.splits) if split == "all" else [split] if split in self.splits else []
        if not found:
            raise UserError(f"{self.name} has no images in its {split} split; it has {', '.join(self.splits)}")
        return found


def open_images(
    classifier: Classifier,
    data_name: str | None = None,
    *,
    data_dir: str | None = None,
    columns: str | None = None,
    unlabelled: bool = False,
) -> Images:
    """Returns the images of a run's own data, or of `data_name`, whose classes may be any.

    With `unlabelled` these are all images below `folder:PATH`, whatever its subfolders are called.
    """
    if unlabelled:
        kind, _, path = (data_name or "").partition(":")
        if kind != "folder" or not path:
            raise UserError("--unlabelled reads the images of a folder; expected --data folder:PATH")
        opened = open_folder(classifier, path, stream=True)
        split = dataclasses.replace(opened.split, labels=np.full(len(opened.split), UNLABELLED, np.int32))
        return Images(str(data_name), {"all": split}, [], lambda name: opened)
    config, dataset, _ = open_data(classifier, data_name, data_dir, columns)
    splits = {split.name: split for split in (dataset.train, dataset.val, dataset.test) if len(split)}
    return Images(
        config.data.name,
        splits,
        dataset.class_names,
        lambda name: ready(classifier, config, splits[name], name, len(splits[name]), stream=True),
    )


def make_key(classifier: Classifier, images: Images) -> dict[str, Any]:
    """What decides on the features of a data set: weights, preprocessing, names and labels, pixels or files."""
    seen = hashlib.sha256()
    for path, leaf in sorted(tree.named_leaves(classifier.variables).items()):
        array = np.ascontiguousarray(leaf)
        seen.update(f"{path} {array.dtype} {array.shape}\0".encode())
        seen.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    splits = {}
    for name, split in images.splits.items():
        of = hashlib.sha256("\0".join(split.image_names()).encode("utf-8", "surrogateescape"))
        of.update(np.ascontiguousarray(split.labels).tobytes())
        if split.images is not None:
            of.update(np.ascontiguousarray(split.images).data)
        elif split.within or split.file is not None:
            of.update(repr(_stamps(split)).encode())
        splits[name] = of.hexdigest()
    key = {
        "jaxvit": __version__, "model": classifier.name, "weights": seen.hexdigest(),
        "fields": repr(classifier.model.clone(num_classes=0)), "preprocessing": classifier.data_config,
        "data": whole_name(images.name), "classes": list(images.class_names), "splits": splits,
    }  # fmt: skip
    return json.loads(json.dumps(key))


def _stamps(split: Any) -> list[tuple[int, int]]:
    """What tells that the files of a split, or those that hold it, are not as they were; [] where none is known."""
    if not split.within and not isinstance(first := split.file(0), Path):
        first.close()
        return []
    return [index_file.stamp(os.stat(file)) for file in split.within or map(split.file, range(len(split)))]


def extract(classifier: Classifier, opened: OpenSplit, store: Store, batch_size: int = 64) -> Table:
    """Returns the table of a split's features, complete; what `store` already has is not computed again.

    Raises:
      RunError: features that are not finite.
    """
    n, size = len(opened.split), min(batch_size, len(opened.split))
    apply = _compiled(classifier.model, opened)
    shape = jax.ShapeDtypeStruct((1, *opened.feed.image_shape), jnp.uint8)
    table = store.table(opened.name, n, jax.eval_shape(apply, classifier.variables, shape).shape[-1])
    if table.done == n:
        return table
    start = table.done // size
    if start:
        err.print(f"{opened.name}: resumes after {start * size:,} of {n:,} images")
    for i, (values, mask) in enumerate(compute(classifier, opened, size, start), start):
        table.put(i * size, values, mask)
    return table


def compute(
    classifier: Classifier, opened: OpenSplit, size: int, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (features float32 [size, d], which of them are of images that can be read) from batch `start` on.

    Raises:
      RunError: features that are not finite.
    """
    n, apply = len(opened.split), _compiled(classifier.model, opened)

    def results() -> Iterator[Any]:
        for batch in opened.feed.batches(np.arange(n), size, start=start, pad=True):
            yield apply(classifier.variables, batch["image"]), batch["mask"]

    with bar(f"features of {opened.name} images", math.ceil(n / size) * size) as meter:
        meter.leave_out(0.0, start * size)
        meter.advance(start * size)
        for values, mask in fetched(results()):
            if not np.isfinite(values[mask]).all():
                raise RunError(f"features of {opened.name} images are not finite; did the training diverge?")
            yield np.asarray(values, np.float32), np.asarray(mask)
            meter.advance(size)


def of_split(classifier: Classifier, images: Images, split: str, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Returns (features float32 [n, d], labels int32 [n]) of a split's images that can be read, in memory.

    Raises:
      UserError: the split has no images, or several labels for each.
      RunError: features that are not finite.
    """
    opened = images.open(images.named(split)[0])
    labels = opened.split.labels
    if labels.ndim == 2:
        raise UserError(f"{images.name} has several labels per image; neighbours and probes need one")
    n = len(labels)
    values, usable = zip(*compute(classifier, opened, min(batch_size, n)), strict=True)
    kept = np.concatenate(usable)[:n]
    return np.concatenate(values)[:n][kept], labels[kept]


def _compiled(model: Any, opened: OpenSplit) -> Any:
    pixels = opened.pixels
    return jax.jit(lambda v, images: explain.features(model, v, pixels.normalise(pixels.to_float(images))))


def write(
    out: Path,
    classifier: Classifier,
    images: Images,
    store: Store,
    key: Mapping[str, Any],
    split: str = "all",
    batch_size: int = 64,
) -> None:
    """Writes the features of a split's images that can be read to `out`; the others are named on a line each.

    Arrays: `features` float32 [n, d], `names` str [n], `labels` int32 [n] (of several per image uint8 [n, k], -1
    where there are none), `splits` str [n], `index` int64 [n] (the place in the stored split or file),
    `class_names` str [k], and `about`, JSON text. Rows are in file order.
    """
    wanted = images.named(split)
    tables = [extract(classifier, images.open(name), store, batch_size) for name in wanted]
    splits = [images.splits[name] for name in wanted]
    which, position = _file_order(splits)
    starts = np.cumsum([0, *map(len, splits)])[:-1]
    usable = np.concatenate([table.usable for table in tables])[starts[which] + position]
    lost = zip(which[~usable], position[~usable], strict=True)
    _say_skipped([str(splits[w].image_names([p])[0]) for w, p in lost], len(usable))
    which, position = which[usable], position[usable]

    def blocks() -> Iterator[np.ndarray]:
        for i in range(0, len(which), feature_file.ROWS):
            w, p = which[i : i + feature_file.ROWS], position[i : i + feature_file.ROWS]
            block = np.empty((len(w), tables[0].features.shape[1]), np.float32)
            for t, table in enumerate(tables):
                block[w == t] = table.features[p[w == t]]
            yield block

    def gathered(of: Any) -> np.ndarray:
        return np.concatenate([of(split) for split in splits])[starts[which] + position]

    feature_file.write(
        out,
        {"key": key, "split": split},
        blocks(),
        len(which),
        tables[0].features.shape[1],
        names=gathered(lambda s: s.image_names()),
        labels=gathered(lambda s: s.labels),
        splits=np.array(wanted, np.str_)[which],
        index=gathered(lambda s: s.index),
        class_names=np.array(images.class_names, np.str_),
    )


def _file_order(splits: Sequence[data.Split]) -> tuple[np.ndarray, np.ndarray]:
    """(which split, position in it) of all images, in the order in which they are stored."""
    which = np.repeat(np.arange(len(splits)), [len(split) for split in splits])
    position = np.concatenate([np.arange(len(split)) for split in splits])
    stored: dict[str, int] = {}
    rank = [stored.setdefault(split.stored or split.name, len(stored)) for split in splits]
    index = np.concatenate([split.index for split in splits])
    order = np.lexsort((position, which, index, np.array(rank)[which]))
    return which[order], position[order]


def _say_skipped(names: Sequence[str], total: int) -> None:
    for name in names[:SHOWN]:
        warn(escape.terminal(f"skipped {name}: it cannot be read"))
    if names:
        more = f", {len(names) - SHOWN} more than these" if len(names) > SHOWN else ""
        warn(f"{len(names)} of {total:,} images cannot be read{more}; the file has no rows for them")
