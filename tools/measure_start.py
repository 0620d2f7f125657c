"""Measures how long a folder of very many small JPEGs takes to start, the first time and later, and its memory.

    python tools/measure_start.py --files 200000 [--out results/imagenet_start.json] [--label NAME]

Makes 1,000 folders of ImageNet's synsets in train/ and val/ below a temporary directory, hard links to 64 small JPEGs,
and starts in a process of its own each time. `load`: `data.load_dataset` alone; `process`: with Python and the imports.
The index of the files lies in the temporary directory too, which is removed at the end.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# What a start does, up to the order of the first epoch.
START = """
import json, resource, sys, time
from jaxvit import data
from jaxvit.build.facts import of_dataset

def memory():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

data.load_dataset("digits"), data.epoch_order(0, 0, 9)  # what is imported on first use is not measured
before, begun, processor = memory(), time.perf_counter(), time.process_time()
found = data.load_dataset(sys.argv[1], val_fraction=0.0)
seconds = {"load": time.perf_counter() - begun, "load_processor": time.process_time() - processor}
found.fingerprint(), of_dataset(found), data.epoch_order(0, 0, len(found.train))
seconds["load_and_order"] = time.perf_counter() - begun
megabytes = {"memory": memory() - before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before}
images = [len(found.train), len(found.val), len(found.test)]
print(json.dumps({"images": images, "seconds": seconds, "megabytes": megabytes}))
"""


def make(root: Path, files: int) -> None:
    """Links about `files` images into train/ and, one of 27 as in ImageNet, val/."""
    import numpy as np
    from PIL import Image

    sys.path.insert(0, str(ROOT))
    synsets = [row[0] for row in json.loads((ROOT / "jaxvit/data/imagenet_classes.json").read_text(encoding="utf-8"))]
    rng, sources = np.random.default_rng(0), []
    for i in range(64):
        h, w = rng.integers(40, 64, 2).tolist()
        cells = rng.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3), np.uint8)
        sources.append(root / f"{i}.jpg")
        Image.fromarray(cells).resize((w, h)).save(sources[-1], quality=80)
    done = 0
    for split, each in (("train", files * 26 // 27 // len(synsets)), ("val", max(files // 27 // len(synsets), 1))):
        for k, synset in enumerate(synsets):
            folder = root / "imagenet" / split / synset
            folder.mkdir(parents=True)
            for i in range(each):
                name = f"{synset}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{k * each + i + 1:08d}.JPEG"
                os.link(sources[done % 64], folder / name)
                done += 1


def start(root: Path) -> dict[str, Any]:
    """Starts once; a row."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(root / "cache"), "JAX_PLATFORMS": "cpu"}
    environment.setdefault("PYTHONPATH", str(ROOT))
    begun = time.perf_counter()
    words = [sys.executable, "-c", START, f"folder:{root / 'imagenet'}"]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    row = json.loads(done.stdout)
    row["seconds"]["process"] = time.perf_counter() - begun
    index = sum(file.stat().st_size for file in (root / "cache").rglob("*.index"))
    rounded = {word: {name: round(value, 2) for name, value in row[word].items()} for word in ("seconds", "megabytes")}
    return {"images": row["images"], **rounded, "index_megabytes": round(index / 2**20, 1)}


def main() -> int:
    """Runs the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=200_000, help="images, default 200,000")
    parser.add_argument("--starts", type=int, default=3, help="starts, the first included, default 3")
    parser.add_argument("--label", default="now", help="what is measured, for the file")
    parser.add_argument("--out", type=Path, help="a JSON file to which the rows are added")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory), args.files)
        time.sleep(3)  # folders that have just changed would be listed twice
        rows = []
        for i in range(args.starts):
            rows.append(
                {
                    "label": args.label,
                    "start": i + 1,
                    "load_average": round(os.getloadavg()[0]),
                    **start(Path(directory)),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    if args.out:
        known = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []
        about = {
            "command": "python tools/measure_start.py --files N --out FILE.json",
            "date": datetime.date.today().isoformat(),
            "hardware": f"{os.cpu_count()} cores, shared with other work: see load_average; a local disk",
        }
        lines = ",\n".join(json.dumps(row) for row in [*known, *rows])
        args.out.write_text(f'{json.dumps(about)[:-1]}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    import quiet

    quiet.run(main)
