"""What is brought along, on the machine: packages, parts of data sets, weights, a teacher, compiled programs.

A call's files lie in KIT/CALL: whl/*.whl, data/NAME/ (strips of images and labels), weights/, teacher.NN, jaxcache.tar,
commit.json. They are copied aside, as the next call lays the working tree anew.
"""

import hashlib
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.gpu import parts

CODE = ("jaxvit", "configs", "tools")
STRIP = 500  # images in a strip, one under the other
SIDE = 32  # pixels


def set_up(
    brought: Path, work: Path, data: Sequence[str], noise: Mapping[str, tuple[int, int, int]], *, tiny: bool = False
) -> Iterator[str]:
    """Lays out what a call has brought, and the data sets its jobs need; yields lines that say so."""
    kit = work / "kit"
    if brought.is_dir():
        shutil.copytree(brought, kit, dirs_exist_ok=True)
    for wheel in sorted((kit / "whl").glob("*.whl")):  # pure Python: a wheel is an archive
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "site")
    for name in ("jaxcache.tar", "tuned.tar.xz"):
        if (kit / name).exists():
            with tarfile.open(kit / name) as tar:
                tar.extractall(work / "jaxcache", filter="data")
    if teacher := sorted(kit.glob("teacher.[0-9]*")):
        parts.join(teacher, kit / "teacher")
        yield "teacher: unpacked"
    wanted = {*data, *(path.name for path in (kit / "data").glob("*"))} - {""}
    for name in sorted(wanted):
        yield make_noise(work / "data" / name, *noise[name], tiny=tiny) if name in noise else unpack(kit, work, name)


def copy_code(root: Path, to: Path) -> None:
    """Copies the code aside: what outlives a call imports from it while the next call lays the working tree anew."""
    if to.exists() and digest(to) == digest(root):
        return
    shutil.rmtree(to, ignore_errors=True)
    for name in CODE:
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "main.py", to)


def lacking(work: Path, data: Sequence[str], words: Sequence[str]) -> list[str]:
    """What jobs of these data sets and words need and is not here: better known before the first of them starts."""
    files = [
        work / "data" / name / f"{split}.npz" for name in dict.fromkeys(data) if name for split in ("train", "test")
    ]
    for word in words:
        if "=WEIGHTS/" in word:
            files.append(work / "kit" / "weights" / word.partition("=WEIGHTS/")[2])
        if word.endswith("=TEACHER"):
            files.append(work / "kit" / "teacher" / "config.json")
    return [str(path.relative_to(work)) for path in dict.fromkeys(files) if not path.exists()]


def unpack(kit: Path, work: Path, name: str) -> str:
    """Strips of all parts that are here -> data/NAME/{train,test}.npz in the official order; says what there is."""
    import numpy as np

    said = []
    for split in ("test", "train"):
        target = work / "data" / name / f"{split}.npz"
        files = sorted((kit / "data" / name).glob(f"{split}_[0-9]*.webp"))
        labels = kit / "data" / name / f"{split}_labels.npz"
        if target.exists() or not labels.exists():
            said.append(f"{split} {'is here' if target.exists() else 'has no labels'}")
            continue
        with np.load(labels) as arrays:
            label = arrays["label"].astype(np.int32)
            order = np.argsort(arrays["index"]) if "index" in arrays else np.arange(len(label))
        wanted = -(-len(label) // STRIP)
        if len(files) < wanted:
            said.append(f"{split} {len(files)} strips of {wanted}")
            continue
        with ThreadPoolExecutor(16) as pool:  # Pillow's decoder lets go of the interpreter
            image = np.concatenate(list(pool.map(decode, files)))
        if len(image) != len(label):
            raise SystemExit(f"error: {name}/{split} has {len(image)} images and {len(label)} labels")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, image=image[order], label=label[order])
        said.append(f"{split} {len(label)} images")
    return f"{name}: {', '.join(said)}"


def decode(path: Path):
    """A strip -> uint8 [n, 32, 32, 3]."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as strip:
        return np.asarray(strip.convert("RGB")).reshape(-1, SIDE, SIDE, 3)


def make_noise(directory: Path, train: int, test: int, classes: int, *, tiny: bool = False) -> str:
    """Noise of a data set's shape: to compile with before the images are here, or where nothing is to be learnt."""
    import numpy as np

    if (directory / "test.npz").exists():
        return f"{directory.name}: is here"
    train, test, classes = (192, 64, 4) if tiny else (train, test, classes)
    rng = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", train), ("test", test)):
        image = rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
        np.savez(directory / f"{split}.npz", image=image, label=(np.arange(n) % classes).astype(np.int32))
    return f"{directory.name}: {train} and {test} images of noise"


def digest(root: Path) -> str:
    """SHA-256 of the code that measures, to tell whether a commit is what ran."""
    files = sorted(path for top in CODE for path in (root / top).rglob("*.py"))
    whole = hashlib.sha256()
    for path in [root / "main.py", *files]:
        if path.is_file():
            whole.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def commit(brought: Path, root: Path) -> str:
    """The commit that is measured; "with changes" where the code is not what `prepare` has seen."""
    try:
        said = json.loads((brought / "commit.json").read_text())
        known = said["digest"] == digest(root) or said["commit"].endswith(" with changes")
        return said["commit"] if known else f"{said['commit']} with changes"
    except (OSError, ValueError, KeyError):
        return "unknown"
