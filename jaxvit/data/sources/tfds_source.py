"""Any prepared TensorFlow Datasets image classification set, read without TensorFlow."""

import contextlib
import io
import logging
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvit.data import index_file
from jaxvit.data.images import DECODE_ERRORS, in_threads, reason
from jaxvit.data.images import decode as open_upright
from jaxvit.data.splits import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Source,
    Split,
    automatic_test,
    channel_statistics,
    from_arrays,
)
from jaxvit.data.texts import Texts
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import streams

ARRAY_BYTES = 2**30  # splits up to this size (uint8) are decoded at once and kept as one array
BLOCK = 128  # records read at once
ID_KEYS = ("id", "file_name", "filename", "image/filename", "image_id", "image/id")
VAL_NAMES = ("validation", "val", "valid", "dev")


def load(name: str, data_dir: str | None = None, rescan: bool = False, prefer: Sequence[str] = ()) -> Source:
    """Reads a data set through `tfds.data_source`: an Image feature and a ClassLabel are all it needs.

    TFDS shuffles when it writes. Where examples have an id they are put in its order, so that results depend
    neither on that shuffling nor on the number of shards. Labels and ids of photos are kept in an index, as the records
    that hold them are those of the images; `rescan` reads them again. `prefer`: see `load_dataset`. Raises UserError
    where the set is unknown, not prepared, in a format without random access, or not for classification.
    """
    builder = _builder(name, data_dir)
    features = builder.info.features
    image_key, label_key = _keys(name, builder.info)
    roles, notes = _roles(name, list(builder.info.splits))
    class_names = [str(n) for n in features[label_key].names]
    h, w, c = features[image_key].shape
    channels = 1 if c == 1 else 3
    fixed = None if h is None or w is None else (int(h), int(w))
    splits: dict[str, Split] = {}
    alone = [role for role in prefer if role in roles] if fixed is None else []
    for role in alone or roles:
        splits[role] = _read_split(name, builder, role, roles[role], image_key, label_key, fixed, channels, rescan)
        if alone and (splits[role].labels >= 0).any():
            notes.append(f"only the split {roles[role]!r} is read")
            break
    if "test" in splits and (splits["test"].labels < 0).all() and "val" in splits:  # ImageNet hides them
        notes.append("the test split has no labels: the validation split is the test split")
        splits["test"] = _rename(splits.pop("val"), "test")
    if alone:
        splits = {role: next(iter(splits.values())).take(np.arange(0), role) for role in ("train", "test")} | splits
    for role, split in splits.items():
        if len(split) == 0 and alone:
            continue
        if len(split) == 0 or split.labels.min() < 0 or split.labels.max() >= len(class_names):
            raise UserError(f"tfds:{name}: split {roles[role]!r} is empty or has labels outside its classes.")
    scale, drawn = 1.0, ()
    if "test" not in splits:
        splits["train"], splits["test"], scale = automatic_test(splits["train"])
        drawn = ("test",)
        notes.append(f"test: {len(splits['test']):,} images drawn from train (stratified, the same for every seed)")
    if splits["train"].images is not None:
        mean, std = channel_statistics(splits["train"].images)
    else:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
    return Source(splits, class_names, channels, fixed, mean, std, notes, scale, drawn)


def is_prepared(name: str, data_dir: str | None) -> bool:
    """Returns whether `name` lies prepared in `data_dir` (TFDS's default if None), in whatever format."""
    with quiet():
        import tensorflow_datasets as tfds

        try:
            return _prepared(tfds.builder(name, **where(data_dir)))
        except Exception:  # no such directory, or one that TFDS cannot make sense of
            return False


def where(data_dir: str | None) -> dict[str, Any]:
    """Returns the keyword that tells TFDS where data sets lie; none leaves its default."""
    return {} if data_dir is None else {"data_dir": os.path.expanduser(data_dir)}


def _prepared(builder: Any) -> bool:
    return bool(builder.info.splits) and Path(str(builder.data_path)).is_dir()


@contextlib.contextmanager
def quiet():
    """TFDS talks about TensorFlow and OpenCV, neither of which is wanted here."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with streams.of_ours_alone():
            yield
    finally:
        logger.setLevel(before)


def _builder(name: str, data_dir: str | None) -> Any:
    with quiet():
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder(name, **where(data_dir))
        except tfds.core.DatasetNotFoundError:
            known = tfds.list_builders(with_community_datasets=False)
            raise UserError(f"tfds:{name}: no such data set in TFDS.{suggest(name, known)}") from None
        except Exception as error:
            raise UserError(f"tfds:{name}: TFDS cannot open it without TensorFlow: {reason(error)}.") from None
    prepared = Path(str(builder.data_path))
    if not _prepared(builder):
        way = f"tfds.load({name!r}, data_dir=..., builder_kwargs={{'file_format': 'array_record'}})"
        raise UserError(
            f"tfds:{name}: not prepared in {prepared.parents[1]} (data.dir).{_by_hand(builder)}\n"
            f"Prepare it once where TensorFlow is installed: {way}."
        )
    file_format: Any = builder.info.file_format
    if file_format.value not in ("array_record", "parquet"):
        raise UserError(
            f"tfds:{name}: prepared as {file_format.value}, which has no random access.\nPrepare it "
            f"again elsewhere: tfds.load({name!r}, data_dir=..., builder_kwargs={{'file_format': 'array_record'}})."
        )
    return builder


def _by_hand(builder: Any) -> str:
    """What has to be downloaded by hand, as TFDS says it; "" where it downloads all by itself."""
    said = " ".join(str(getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None) or "").split())
    if not said:
        return ""
    archives = re.findall(r"[\w.-]+\.(?:tar|zip|tgz|gz)\b", said)
    what = " and ".join(dict.fromkeys(archives)) or "its files"
    return f" First download {what} by hand into its downloads/manual/."


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Returns the keys of the image and of the label, the supervised pair first."""
    pair = [k for k in (info.supervised_keys or ()) if isinstance(k, str)]
    keys = [*pair, "image", "label", *info.features]
    kinds = {key: type(info.features[key]).__name__ for key in keys if key in info.features}
    image = next((key for key, kind in kinds.items() if kind == "Image"), None)
    label = next((key for key, kind in kinds.items() if kind == "ClassLabel"), None)
    if image is None or label is None:
        raise UserError(
            f"tfds:{name}: has no {'image' if image is None else 'class label'}; it is not for classification."
        )
    return image, label


def _roles(name: str, stored: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns {our split: split of the source}, and notes on how they came about."""
    if "train" not in stored:
        raise UserError(f"tfds:{name}: no split 'train'; it has {', '.join(stored)}.")
    val = next((v for v in VAL_NAMES if v in stored), None)
    if val and "test" in stored:
        return {"train": "train", "val": val, "test": "test"}, []
    if val:
        return {"train": "train", "test": val}, [f"split {val!r} is the test split"]
    return {"train": "train", **({"test": "test"} if "test" in stored else {})}, []


def _read_split(
    name: str,
    builder: Any,
    role: str,
    stored: str,
    image_key: str,
    label_key: str,
    fixed: tuple[int, int] | None,
    channels: int,
    rescan: bool,
) -> Split:
    import tensorflow_datasets as tfds

    with quiet():
        source = builder.as_data_source(split=stored, decoders={image_key: tfds.decode.SkipDecoding()})
    n = len(source)

    def decode(record: dict[str, Any]) -> Image.Image:
        image = open_upright(io.BytesIO(record[image_key]))
        return image.convert("L") if channels == 1 else image

    small = fixed is not None and n * fixed[0] * fixed[1] * channels <= ARRAY_BYTES
    images = np.zeros((n, *(fixed or (0, 0)), channels), np.uint8) if small else None
    named = any(key in builder.info.features for key in ID_KEYS)

    def read_all() -> dict[str, np.ndarray]:
        """Labels [n], the order of the ids, and these as text."""
        labels = np.zeros(n, np.int32)
        ids: list[Any] = [None] * n
        in_threads(
            partial(visit, labels, ids), -(-n // BLOCK), f"reading tfds:{name} {stored}", per_task=1, show_from=200
        )
        order = np.array(sorted(range(n), key=ids.__getitem__), np.int64)
        texts = Texts.of(_text(ids[i]) for i in order) if named else Texts.of([])
        return {"labels": labels[order], "order": order, "names": texts.block, "lengths": texts.lengths}

    def visit(labels: np.ndarray, ids: list[Any], block: int) -> None:
        at = range(block * BLOCK, min((block + 1) * BLOCK, n))
        for i, record in zip(at, source.__getitems__(list(at)), strict=True):
            labels[i] = record[label_key]
            ids[i] = next((record[key] for key in ID_KEYS if key in record), i)
            if images is not None:
                images[i] = np.asarray(decode(record)).reshape(images.shape[1:])

    folder = Path(str(builder.data_path))
    records = sorted(file for file in folder.iterdir() if file.is_file())
    try:
        if images is not None:
            found = read_all()
        else:
            found = index_file.remembered(f"tfds:{folder.resolve()}/{stored}", records, read_all, rescan=rescan)
    except DECODE_ERRORS as error:
        raise UserError(f"tfds:{name}: split {stored!r} is damaged: {reason(error)}.") from None
    labels, order = found["labels"], found["order"]
    names = Texts(found["names"], found["lengths"]) if named else None
    if images is not None:
        return from_arrays(role, images[order], labels, names=names, stored=stored)

    def read(i: int) -> Image.Image:
        return decode(source[int(order[i])])

    def file(i: int) -> io.BytesIO:
        return io.BytesIO(source[int(order[i])][image_key])

    return Split(
        role, labels, np.arange(n, dtype=np.int64), read, names=names, stored=stored, file=file, within=records
    )


def _text(identifier: Any) -> str:
    return identifier.decode(errors="replace") if isinstance(identifier, bytes) else str(identifier)


def _rename(split: Split, name: str) -> Split:
    return split.take(np.arange(len(split)), name)
