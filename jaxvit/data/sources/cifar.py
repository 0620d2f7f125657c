"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): prepared in TFDS's own layout, without TensorFlow."""

import contextlib
import dataclasses
import hashlib
import io
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from jaxvit.data.sources import tfds_source
from jaxvit.data.splits import Source
from jaxvit.errors import UserError
from jaxvit.runtime.console import bar, err, working
from jaxvit.runtime.paths import expand

MAX_BYTES = 400 * 2**20  # of the archive, packed
MAX_MEMBER_BYTES = 200 * 2**20  # of one file in it
PIXELS = 32 * 32 * 3


@dataclasses.dataclass(frozen=True)
class Archive:
    """The official binary archive of one data set: where it lies, and which of its files matter."""

    url: str
    md5: str
    folder: str
    members: dict[str, tuple[str, ...]]  # split -> files, in order
    label_names: dict[str, str]  # label key -> text file; a record starts with one byte for each, in this order
    num_classes: dict[str, int]


ARCHIVES = {
    "cifar10": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        members={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        label_names={"label": "batches.meta.txt"},
        num_classes={"label": 10},
    ),
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        members={"train": ("train.bin",), "test": ("test.bin",)},
        label_names={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
        num_classes={"coarse_label": 20, "label": 100},
    ),
}


_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": tuple(_CIFAR100.split()),
}  # for copies prepared without names


def load(name: str, data_dir: str | None = None, archive: str | None = None, *, md5: str | None = None) -> Source:
    """Reads CIFAR through TFDS; where it is not prepared yet, prepares it from the official archive first.

    `archive` is a local copy of that archive; `md5` replaces the official checksum. Raises UserError where the
    archive can neither be found nor downloaded, or has another checksum.
    """
    if not tfds_source.is_prepared(name, data_dir):
        prepare(name, data_dir, archive, md5=md5)
    source = tfds_source.load(name, data_dir)
    if source.class_names == [str(i) for i in range(len(source.class_names))]:  # prepared without names
        source = dataclasses.replace(source, class_names=list(CLASS_NAMES.get(name, source.class_names)))
    return source


def prepare(name: str, data_dir: str | None, archive: str | None = None, *, md5: str | None = None) -> None:
    """Writes the data set into `data_dir` as TFDS would (array_record, version 3.0.2), all or nothing."""
    spec = ARCHIVES[name]
    with contextlib.ExitStack() as stack:
        if archive is None:
            file = stack.enter_context(tempfile.TemporaryFile())
            found = _download(name, spec.url, file)
        else:
            file, found = _open_local(stack, expand(archive))
        expected = md5 or spec.md5
        if found != expected:
            raise UserError(f"{archive or spec.url}: checksum (md5) is {found}; expected {expected}. Not used.")
        file.seek(0)
        contents = _members(name, spec, file, archive or spec.url)
    splits, label_names = _parse(spec, contents, archive or spec.url)
    try:
        _write(name, spec, splits, label_names, data_dir)
    except OSError as error:
        raise UserError(f"{name}: cannot be prepared in {data_dir or 'the default directory'}: {error}.") from None


def _open_local(stack: contextlib.ExitStack, path: Path) -> tuple[IO[bytes], str]:
    try:
        file = stack.enter_context(path.open("rb"))
        return file, hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"data.archive {path}: cannot be read ({error.strerror}).") from None


def _download(name: str, url: str, file: IO[bytes]) -> str:
    """Downloads into `file` with a progress bar and returns the md5."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with contextlib.ExitStack() as stack:
            answer = stack.enter_context(urllib.request.urlopen(url, timeout=30))
            total = int(answer.headers.get("Content-Length") or 0) or None
            meter = stack.enter_context(bar(f"downloading {name}", total, "B"))
            while block := answer.read(2**18):
                file.write(block)
                digest.update(block)
                meter.advance(len(block))
                if file.tell() > MAX_BYTES:
                    raise UserError(f"{url}: more than {MAX_BYTES >> 20} MiB; expected the official archive.")
    except (OSError, urllib.error.URLError, TimeoutError) as error:
        why = getattr(error, "reason", None) or error
        raise UserError(
            f"{name}: cannot be downloaded from {url} ({why}).\n"
            "Set data.archive to a local copy of that file, or data.dir to a directory of prepared TFDS data."
        ) from None
    return digest.hexdigest()


def _members(name: str, spec: Archive, file: IO[bytes], where: str) -> dict[str, bytes]:
    """Reads the files that matter into memory: plain members of the right name only, nothing touches the disk."""
    wanted = {file for files in spec.members.values() for file in files} | set(spec.label_names.values())
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=file, mode="r|gz") as tar:
            for member in tar:
                folder, _, base = member.name.removeprefix("./").partition("/")
                if folder != spec.folder or base not in wanted or not member.isreg():
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    raise UserError(f"{where}: {member.name} has {member.size} bytes; not the official archive.")
                stream = tar.extractfile(member)
                contents[base] = stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{where}: damaged archive ({error}).") from None
    missing = sorted(wanted - set(contents))
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing; expected the binary version of {name}.")
    return contents


def _parse(spec: Archive, contents: dict[str, bytes], where: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Returns ({split: (labels {key: int [n]}, images uint8 [n, 32, 32, 3])}, {label key: class names})."""
    names = {
        key: [line.strip() for line in contents[file].decode("utf-8", "replace").splitlines() if line.strip()]
        for key, file in spec.label_names.items()
    }
    for key, count in spec.num_classes.items():
        if len(set(names[key])) != count:
            raise UserError(f"{where}: {len(set(names[key]))} class names for {key}; expected {count}.")
    record = len(names) + PIXELS
    splits = {}
    for split, files in spec.members.items():
        data = b"".join(contents[file] for file in files)
        if not data or len(data) % record:
            raise UserError(f"{where}: {split} has {len(data)} bytes; expected a multiple of {record}.")
        rows = np.frombuffer(data, np.uint8).reshape(-1, record)
        labels = {key: rows[:, i].astype(np.int64) for i, key in enumerate(names)}
        for key, values in labels.items():
            if values.max() >= len(names[key]):
                raise UserError(f"{where}: {key} {values.max()}, but {len(names[key])} class names.")
        planes = rows[:, len(names) :].reshape(-1, 3, 32, 32)  # stored plane by plane
        splits[split] = (labels, np.ascontiguousarray(planes.transpose(0, 2, 3, 1)))
    return splits, names


def _write(name: str, spec: Archive, splits: dict[str, Any], names: dict[str, list[str]], data_dir: str | None) -> None:
    """Feeds TFDS's own builder with encoded PNG bytes, which its Image feature takes without TensorFlow."""
    target = data_dir or "TFDS's default directory"
    err.print(f"preparing {name} in {target}, once (about a minute)")
    with tfds_source.quiet(), working(f"preparing {name}"):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import registered
        from tensorflow_datasets.image_classification import cifar as theirs

        def split_generators(self, dl_manager):
            del dl_manager
            for key, values in names.items():
                self.info.features[key].names = values
            return {split: self._generate_examples(split) for split in splits}

        def generate_examples(self, split):
            labels, images = splits[split]
            for i, image in enumerate(images):
                row = {key: int(values[i]) for key, values in labels.items()}
                yield i, {"id": f"{split}_{i:05d}", "image": _png(image), **row}

        parent = {"cifar10": theirs.Cifar10, "cifar100": theirs.Cifar100}[name]
        overrides = {
            "_split_generators": split_generators,
            "_generate_examples": generate_examples,
            "__module__": theirs.__name__,
            "code_path": None,  # asks for importlib_resources, which TFDS does not install
        }
        with registered.skip_registration():
            builder_cls = type(parent.__name__, (parent,), overrides)
        builder = builder_cls(file_format="array_record", **tfds_source.where(data_dir))
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


def _png(image: np.ndarray) -> IO[bytes]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    buffer.seek(0)
    return buffer
