"""Runs every packet, tiny, on this machine, in an environment like the GPU machine's, made anew.

    python3 tools/gpu rehearse [PACKET ...] --torch-python PYTHON [--home DIR] [--python python3.12]

The environment has Python 3.12 and the packages of PACKAGES, and none of ml_collections, tensorboardX, grain,
tensorflow-datasets and dm-pix: those that a packet needs travel as wheels. timm's half runs in PYTHON, which has torch
and timm. A copy of the tracked files, with tiny data sets, is laid out in DIR, anew for each call, as it is on the
machine; every call of a packet runs there, one after the other, and `merge --check` reads what came back. Takes about
40 minutes of two cores in all, and 1 GB in DIR.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.gpu import packets, prepare
from tools.gpu.jobs import ROOT, Packet

# What the machine has, with its versions, of what jaxvit can make use of
PACKAGES = (
    "jax==0.11.2", "jaxlib==0.11.2", "flax==0.12.12", "optax==0.2.8", "orbax-checkpoint==0.12.8", "numpy==2.5.2",
    "scikit-learn", "rich", "matplotlib", "jinja2", "safetensors", "huggingface_hub", "tensorboard", "pillow",
    "pyyaml", "absl-py", "packaging", "protobuf", "flatbuffers",
)  # fmt: skip
ABSENT = ("ml_collections", "tensorboardX", "grain", "tensorflow_datasets", "dm_pix", "jaxvit")
CLASSES, TRAIN, TEST = 4, 192, 64  # of the tiny data sets


def make_environment(home: Path, python: str) -> Path:
    """Returns the Python of the clean environment in `home`, made where it is not there yet."""
    executable = home / "venv" / "bin" / "python"
    if not (home / "venv" / "whole").exists():
        shutil.rmtree(home / "venv", ignore_errors=True)
        _must([python, "-m", "venv", str(home / "venv")], f"cannot make an environment with --python {python}")
        _must([str(executable), "-m", "pip", "install", "-q", *PACKAGES], "cannot install the machine's packages")
        (home / "venv" / "whole").touch()
    code = f"import importlib.util as u; print(*[n for n in {ABSENT!r} if u.find_spec(n)])"
    words = [str(executable), "-I", "-c", code]
    if there := subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip():
        raise SystemExit(f"error: {executable} has {there}, which the machine has not")
    return executable


def _must(words: list[str], message: str) -> None:
    """Runs a command; ends with its last line where it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"error: {message}: {error.strerror}") from None
    if done.returncode:
        raise SystemExit(f"error: {message}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def make_data(home: Path) -> Path:
    """Tiny data sets as arrays."""
    import numpy as np

    for seed, name in enumerate(("cifar10", "cifar100")):
        rng = np.random.default_rng(seed)
        (home / name).mkdir(parents=True, exist_ok=True)
        for split, n in (("train", TRAIN), ("test", TEST)):
            label = (np.arange(n) % CLASSES).astype(np.int32)
            image = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
            np.savez(home / name / f"{split}.npz", image=image, label=label)
    (home / "weights").mkdir(exist_ok=True)
    (home / "weights" / prepare.WEIGHTS).write_bytes(b"")  # tiny runs start from none
    return home


def copy_tree(root: Path, to: Path) -> None:
    """The files that travel: tracked, or not ignored by git."""
    shutil.rmtree(to, ignore_errors=True)
    words = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in set(names) - {""}:
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, to / name)


def rehearse(packet: Packet, home: Path, python: Path, torch_python: str) -> list[str]:
    """Runs the calls of a packet; returns what went wrong, in lines."""
    kit, work, out = home / "kit", home / "work", home / "out" / packet.name
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    words = [str(python), str(ROOT / "tools" / "gpu"), "prepare", packet.name, "--data", str(home / "data")]
    words += ["--out", str(kit), "--teacher", str(home / "out" / "b")]
    if subprocess.run(words).returncode:
        return [f"{packet.name}: prepare failed"]
    environment = {word: value for word, value in os.environ.items() if word not in ("PYTHONPATH", "XLA_FLAGS")}
    environment |= {"JAX_PLATFORMS": "cpu", "OUT": str(out)}
    wrong = []
    for call in packet.calls:
        copy_tree(ROOT, home / "tree")
        (home / "tree" / ".gpu").mkdir()
        shutil.copytree(kit / call.name, home / "tree" / ".gpu" / call.name)
        command = [str(python), "tools/gpu", "run", call.name, "--tiny", "--work", str(work)]
        command += ["--torch-python", torch_python]
        print(f"== {call.name}", flush=True)
        if subprocess.run(command, cwd=home / "tree", env=environment).returncode:
            wrong.append(f"{call.name}: a job failed; {out}/logs.tar.gz")
    words = [str(python), str(ROOT / "tools" / "gpu"), "merge", str(out), "--check", "--all"]
    if subprocess.run(words).returncode:
        wrong.append(f"{packet.name}: merge cannot read what came back")
    return wrong


def main(argv: list[str]) -> int:
    """Returns 1 where a job failed or gave no result."""
    parser = argparse.ArgumentParser(
        prog="gpu rehearse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(packets.PACKETS)
    parser.add_argument("packets", nargs="*", metavar="PACKET", help=f"of {known}; default: all, in this order")
    parser.add_argument("--torch-python", required=True, metavar="PYTHON", help="that has torch and timm")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "jaxvit-rehearsal")
    parser.add_argument("--python", default="python3.12", help="of which the environment is made")
    args = parser.parse_args(argv)
    if unknown := set(args.packets) - set(packets.PACKETS):
        parser.error(f"no packet {', '.join(sorted(unknown))}; there are {known}")
    home = args.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    python = make_environment(home, args.python)
    make_data(home / "data")
    wrong = []
    for name in args.packets or packets.PACKETS:  # b before t, which takes its teacher
        wrong += rehearse(packets.PACKETS[name], home, python, args.torch_python)
    print(*(wrong or ["every job ran, and merge reads what came back"]), sep="\n")
    return 1 if wrong else 0
