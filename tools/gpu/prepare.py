"""Fills .gpu/ with what the calls of a packet bring along, one folder a call, and checks its size.

    python3 tools/gpu prepare PACKET [--data DIR] [--teacher OUT] [--cache OUT/jaxcache.tar]

DIR holds a folder for each data set, cifar10 or cifar100, in one of two forms. Strips: train_000.webp, train_001.webp
and so on, and test_000.webp likewise, lossless, 32 pixels wide, 500 images one under the other; train_labels.npz and
test_labels.npz with the array `label` and, where the images are not in the official order, `index`, the official row of
each. Or arrays: train.npz and test.npz with `image` (uint8 [n, 32, 32, 3]) and `label`, of which strips are made once.
DIR/weights holds deit_tiny_patch16_224.safetensors. OUT is what packet b brought back.

A call's folder and the working tree travel together: at most 64 MiB.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from tools.gpu import kit, packets, tuned
from tools.gpu.jobs import ROOT, Call, Packet

LIMIT = 64 * 2**20  # bytes that travel with a call
MARGIN = 2**19  # bytes left free, for what an archive of them adds
WHEELS = ("ml_collections==1.1.0", "tensorboardX==2.6.5")  # pure Python, and not on the machine
PLATFORM = ("--python-version", "3.12", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64",
            "--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64")  # fmt: skip
WEIGHTS = "deit_tiny_patch16_224.safetensors"


class Missing(Exception):
    """What a packet needs is not here; the message says what and where."""


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def tree(root: Path) -> int:
    """Bytes of the working tree that travel: tracked files, and those that git does not ignore."""
    words = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\0")
    return sum((root / name).stat().st_size for name in set(names) - {""} if (root / name).is_file())


def wheels(out: Path) -> list[Path]:
    """The packages that the machine lacks, fetched once."""
    out.mkdir(parents=True, exist_ok=True)
    if len(list(out.glob("*.whl"))) < len(WHEELS):
        words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *PLATFORM]
        done = subprocess.run([*words, "-d", str(out), *WHEELS], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Missing(f"cannot fetch {' and '.join(WHEELS)}: {said}")
    return sorted(out.glob("*.whl"))


def strips(data: Path, name: str, made: Path) -> Path:
    """The folder with a data set's strips and labels; made in `made` from arrays."""
    home = data / name
    if list(home.glob("train_[0-9]*.webp")):
        lacking = [f for f in ("train_labels.npz", "test_labels.npz", "test_000.webp") if not (home / f).exists()]
        if lacking:
            raise Missing(f"{home} has strips of images, but no {lacking[0]}")
        return home
    if not ((home / "train.npz").exists() and (home / "test.npz").exists()):
        raise Missing(f"{home} holds neither strips of images (train_000.webp, ...) nor train.npz and test.npz")
    if not (made / "test_labels.npz").exists():
        encode(home, made)
    return made


def encode(home: Path, made: Path) -> None:
    """Makes strips of arrays, labels last; a folder with test_labels.npz is whole."""
    try:
        import numpy as np
        from PIL import Image
    except ImportError as error:
        raise Missing(f"{error}: strips of images are made of arrays with numpy and Pillow") from None
    made.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        with np.load(home / f"{split}.npz") as arrays:
            image, label = arrays["image"], arrays["label"]
        if image.dtype != np.uint8 or image.shape[1:] != (kit.SIDE, kit.SIDE, 3):
            raise Missing(
                f"{home / split}.npz has images {image.dtype} {list(image.shape)}; expected uint8 [n, 32, 32, 3]"
            )
        for number, begun in enumerate(range(0, len(image), kit.STRIP)):
            strip = Image.fromarray(image[begun : begun + kit.STRIP].reshape(-1, kit.SIDE, 3))
            strip.save(made / f"{split}_{number:03d}.webp", lossless=True, method=4)
        np.savez(made / f"{split}_labels.npz", label=label)


def divide(files: list[Path], room: list[int]) -> list[list[Path]]:
    """Files in order, as many to each call as its room, in bytes, allows; raises Missing where they do not fit."""
    parts: list[list[Path]] = [[] for _ in room]
    at, left = 0, list(room)
    for path in files:
        while at < len(room) and size(path) > left[at]:
            at += 1
        if at == len(room):
            raise Missing(
                f"{sum(map(size, files))} bytes of images do not fit the {sum(room)} that the calls have room for"
            )
        parts[at].append(path)
        left[at] -= size(path)
    return parts


def common(call: Call, packet: Packet, args: argparse.Namespace) -> list[tuple[Path, str]]:
    """(file, its place in the call's folder) of all that is no image."""
    found = [(path, f"whl/{path.name}") for path in wheels(args.out / "whl")]
    if "weights" in call.brings:
        file = args.data / "weights" / WEIGHTS
        if not file.exists():
            raise Missing(f"no file {file}: packet {packet.name} starts from these weights")
        found.append((file, f"weights/{WEIGHTS}"))
    if "teacher" in call.brings:
        parts = sorted(args.teacher.glob("teacher.[0-9]*")) if args.teacher else []
        if not parts:
            raise Missing(f"packet {packet.name} needs --teacher OUT with teacher.00, which packet b brings back")
        found += [(path, path.name) for path in parts]
    if (args.root / tuned.FILE).is_file():
        found.append((args.root / tuned.FILE, tuned.FILE.name))
    if args.cache and call is packet.calls[0]:
        if not args.cache.is_file():
            raise Missing(f"no file {args.cache}")
        found.append((args.cache, "jaxcache.tar"))
    return found


def lay_out(packet: Packet, args: argparse.Namespace) -> list[tuple[str, int]]:
    """Fills the folders of a packet's calls; returns (call, bytes that travel) for each."""
    base = tree(args.root)
    stamp = {"commit": _commit(args.root), "digest": kit.digest(args.root)}
    chosen = {call.name: common(call, packet, args) for call in packet.calls}
    room = {name: LIMIT - MARGIN - base - sum(size(path) for path, _ in files) for name, files in chosen.items()}
    for data in dict.fromkeys(word.partition(":")[0] for call in packet.calls for word in call.brings if ":" in word):
        home = strips(args.data, data, args.out / "strips" / data)
        files = [*sorted(home.glob("*_labels.npz")), *sorted(home.glob("test_[0-9]*.webp")),
                 *sorted(home.glob("train_[0-9]*.webp"))]  # fmt: skip
        into = [call.name for call in packet.calls if any(word.startswith(f"{data}:") for word in call.brings)]
        for name, part in zip(into, divide(files, [room[name] for name in into]), strict=True):
            chosen[name] += [(path, f"data/{data}/{path.name}") for path in part]
    sizes = []
    for call in packet.calls:
        folder = args.out / call.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path, place in chosen[call.name]:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / place)
        (folder / "commit.json").write_text(json.dumps(stamp) + "\n")
        sizes.append((call.name, base + size(folder)))
    return sizes


def _commit(root: Path) -> str:
    words = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True)
    changed = subprocess.run(["git", "-C", str(root), "status", "--porcelain", "-uno"], capture_output=True, text=True)
    return (done.stdout.strip() or "unknown") + (" with changes" if changed.stdout.strip() else "")


def main(argv: list[str]) -> int:
    """Prints the size of each call's load; returns 2 where something is missing or too much."""
    parser = argparse.ArgumentParser(
        prog="gpu prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packet", choices=packets.PACKETS, metavar="PACKET", help=", ".join(packets.PACKETS))
    parser.add_argument("--data", type=Path, default=Path("data"), help="described above; default: data")
    parser.add_argument("--teacher", type=Path, metavar="OUT", help="of packet t: what packet b brought back")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="compiled programs that an earlier run brought back")
    parser.add_argument("--out", type=Path, default=ROOT / ".gpu", help="default: .gpu in the checkout")
    args = parser.parse_args(argv)
    args.root = ROOT
    try:
        sizes = lay_out(packets.PACKETS[args.packet], args)
    except Missing as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, load in sizes:
        print(f"{args.out.name}/{name}: {load / 2**20:.1f} MiB travel with the call, the tree included; at most 64")
    if any(load > LIMIT for _, load in sizes):
        print("error: that is more than a call may bring along; track less, or leave out --cache", file=sys.stderr)
        return 2
    if "with changes" in _commit(ROOT):
        print("the tree has changes: commit them first, so that results can name a commit", file=sys.stderr)
    return 0
