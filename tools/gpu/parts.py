"""The best weights of a run in files small enough to come back, and together again.

    python3 tools/gpu/parts.py split RUN OUT       OUT/teacher.00, OUT/teacher.01, ...

They are those that `main.py convert --from RUN` writes, as 16-bit floats in an archive: a teacher of 11 M parameters
takes 21 MiB, and its answers change in the third digit.
"""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MOST = 15 * 2**20  # bytes of a file that comes back


def split(run: Path, out: Path) -> list[Path]:
    """Writes a run's best weights as OUT/teacher.NN; returns these files."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "teacher"
        command = [sys.executable, str(ROOT / "main.py"), "convert", "--from", str(run), "--to", str(home)]
        subprocess.run(command, check=True)
        weights = home / "model.safetensors"
        halved = {key: array.astype(np.float16) for key, array in load_file(weights).items()}
        save_file(halved, weights)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
            for path in sorted(home.iterdir()):
                tar.add(path, path.name)
    whole, files = packed.getvalue(), []
    for number in range(-(-len(whole) // MOST)):
        files.append(out / f"teacher.{number:02d}")
        files[-1].write_bytes(whole[number * MOST : (number + 1) * MOST])
    return files


def join(parts: list[Path], out: Path) -> None:
    """Unpacks what `split` wrote; weights become float32 again."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    whole = b"".join(path.read_bytes() for path in sorted(parts))
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:gz") as tar:
        tar.extractall(out, filter="data")
    weights = out / "model.safetensors"
    save_file({key: array.astype(np.float32) for key, array in load_file(weights).items()}, weights)


def main() -> int:
    """Splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("split",))
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    for path in split(args.run, args.out):
        print(path, path.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the checkout
    from tools import quiet

    quiet.run(main)
