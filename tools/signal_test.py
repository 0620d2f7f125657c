"""Sends SIGTERM to runs at given moments and measures how long they take to save and to end.

    python tools/signal_test.py --out results/signals.json

The moments: in the first compilation, in a step, within several steps in one program, in an evaluation, in the last
test, and to one of two processes. Each run is then started again and has to come to its end; the exit code of the
stopped one has to be 143, of all of its processes.
"""

import argparse
import json
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kill_test import Attempt, config_of, provenance  # noqa: E402

# name -> (event, its number, seconds after it, words of the config, processes)
MOMENTS: dict[str, tuple[str, int, float, dict[str, Any], int]] = {
    "compiling": ("step", 1, 0.3, {}, 1),
    "step": ("step", 12, 0.0, {}, 1),
    "8 steps in one program": ("step", 3, 0.0, {"steps_per_dispatch": 8, "checkpoint": {}}, 1),
    "evaluation": ("evaluate", 2, 0.0, {}, 1),
    "test": ("finish", 1, 0.05, {"num_epochs": 1}, 1),
    "one of two processes, step": ("step", 12, 0.0, {"parallel": {}}, 2),
    "one of two processes, evaluation": ("evaluate", 2, 0.0, {"parallel": {}}, 2),
}


def attempts(config: Path, workdir: Path, processes: int) -> list[Attempt]:
    """Starts the processes of a run."""
    log = workdir.parent / "log"
    if processes == 1:
        return [Attempt(config, workdir, log)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        flags = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--num-processes", str(processes)]
    return [Attempt(config, workdir, log, [*flags, "--process-id", str(i)]) for i in range(processes)]


def measure(name: str, scratch: Path) -> dict[str, Any]:
    """Stops one run at one moment and takes it to its end."""
    event, count, delay, words, processes = MOMENTS[name]
    place = scratch / name.replace(" ", "_").replace(",", "")
    place.mkdir()
    config, workdir = place / "config.json", place / "run"
    config.write_text(json.dumps({**config_of("adamw_cosine"), **words}))
    started = attempts(config, workdir, processes)
    reached = started[-1].wait_for(event, count)
    time.sleep(delay)
    begun = time.monotonic()
    started[-1].send(signal.SIGTERM)
    codes = [attempt.run(None)["exit"] for attempt in started]
    seconds = time.monotonic() - begun
    ended = [attempt.run(None)["exit"] for attempt in attempts(config, workdir, processes)]
    finished = (workdir / "summary.json").exists() and set(ended) == {0}
    return {"moment": name, "reached": reached, "exit": codes, "seconds": round(seconds, 2), "went_on": finished}


def main() -> int:
    """Measures all moments; returns 1 where a run did not stop in order or did not go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MOMENTS, default=list(MOMENTS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="signal_test_"))
    rows = []
    for name in args.only:
        rows.append(measure(name, scratch))
        print(json.dumps(rows[-1]), flush=True)
    if args.out:
        about = {**provenance("tools/signal_test.py"), "config": config_of("adamw_cosine")}
        args.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    good = all(set(row["exit"]) == {143} and row["reached"] and row["went_on"] for row in rows)
    print("all stopped in order" if good else f"see {scratch}")
    return 0 if good else 1


if __name__ == "__main__":
    import quiet

    quiet.run(main)
