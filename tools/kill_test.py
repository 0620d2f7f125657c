"""Kills runs with SIGKILL at random moments, starts them again, and compares the ends bit for bit.

    python tools/kill_test.py --kills 80 --out results/kill_test [--only adamw_cosine] [--seed 0]

Each scenario is trained once without interruption. Then the same command is started, killed and started again until it
has finished. The moment of a kill is drawn: a time within the start-up, or so many milliseconds after the n-th step,
evaluation, save, seal (the manifest of a save) or final file. The child says over a pipe where it is; otherwise it is
`main.py`. Compared are all arrays of the last and the best checkpoint (parameters, statistics, optimiser, average),
their meta, metrics.jsonl, predictions.npz and the final metrics; only times may differ.
"""

import argparse
import datetime
import json
import os
import random
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TIMES = ("seconds", "log")  # of the meta: how long it took; the log is compared as metrics.jsonl
JITTER = 0.03  # seconds after an event
MARKS = {  # what a child reports: (module, class or None, function)
    "prepare": ("train.loop", None, "prepare"),
    "step": ("train.run", "Run", "take_step"),
    "evaluate": ("train.epochs", None, "pass_over"),
    "save": ("workdir.checkpoint", "Checkpoints", "save"),
    "seal": ("workdir.checkpoint", "Checkpoints", "_seal"),
    "end of epoch": ("train.epochs", None, "_end_epoch"),
    "resume": ("train.loop", None, "resumed"),
    "finish": ("train.loop", None, "finish"),
    "write": ("runtime.files", None, "write"),
    "predictions": ("workdir.run_files", None, "write_npz"),
}

TEACHER = "a run of one epoch of adamw_cosine"
_VIT = {"name": "vit_tiny_patch16_224", "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
_SHARED = {
    "batch_size": 32,
    "num_epochs": 5,
    "log_every_steps": 5,
    "data": {"name": "digits", "val_fraction": 0.3},
    "parallel": {"num_devices": 1},
    "checkpoint": {"every_steps": 4},
}
SCENARIOS: dict[str, dict[str, Any]] = {
    "adamw_cosine": {
        "model": {**_VIT, "drop_path_rate": 0.1},
        "augment": {"crop_padding": 1},
        "optim": {"name": "adamw", "grad_clip_norm": 1.0, "schedule": {"name": "cosine", "warmup_epochs": 1.0}},
    },
    "sgd_plateau_early_stopping": {
        "num_epochs": 12,
        "model": {"name": "resnet18", "layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "stem": "cifar"},
        "optim": {
            "name": "sgd", "learning_rate": 0.3, "momentum": 0.9, "nesterov": True,
            "schedule": {"name": "plateau", "patience": 0, "factor": 0.3, "threshold": 0.02},
        },
        "early_stopping": {"patience": 3, "min_delta": 0.01, "metric": "loss"},
        "checkpoint": {"every_steps": 5, "keep_best": 1, "keep_every_steps": 50},
    },
    "asam_ema_mixup_accumulation": {
        "model": {**_VIT, "proj_drop_rate": 0.1},
        "augment": {"crop_padding": 1, "mixup_alpha": 0.8, "cutmix_alpha": 1.0},
        "optim": {"accum_steps": 2, "sam": {"rho": 0.5, "adaptive": True, "every": 2}},
        "ema": {"decay": 0.9, "warmup": True},
        "loss": {"on_nan": "skip"},
        "checkpoint": {"every_steps": 3},
    },
    "unfreeze_dispatch_distillation": {
        "num_epochs": 4,
        "model": {**_VIT, "drop_path_rate": 0.1},
        "augment": {"crop_padding": 1},
        "steps_per_dispatch": 3,
        "distill": {"teacher": TEACHER, "alpha": 0.5},
        "optim": {"freeze": "head_only", "unfreeze": ((1, "last_1_blocks"), (3, "none")), "layer_decay": 0.8},
        "ema": {"decay": 0.9},
        "checkpoint": {"every_steps": 7},
    },
    "mae_then_labels": {
        "num_epochs": 2,
        "model": {**_VIT, "drop_path_rate": 0.1},
        "pretrain": {"name": "mae", "num_epochs": 2, "decoder_depth": 1, "decoder_embed_dim": 16},
        "checkpoint": {"every_steps": 6},
    },
}  # fmt: skip


def config_of(scenario: str, teacher: Path | str = TEACHER) -> dict[str, Any]:
    """Returns the scenario's config as data."""
    words = SCENARIOS[scenario]
    config = {**_SHARED, **words, "checkpoint": {**_SHARED["checkpoint"], **words.get("checkpoint", {})}}
    return {**config, "distill": {**words["distill"], "teacher": str(teacher)}} if "distill" in words else config


def child(pipe: int, argv: list[str]) -> int:
    """Runs the command line with a mark on the pipe at each event; a mark is one byte, its place in MARKS."""
    import importlib

    os.write(pipe, b"\xff")
    code = {name: bytes([i]) for i, name in enumerate(MARKS)}

    def marked(function: Any, mark: bytes) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            os.write(pipe, mark)
            return function(*args, **kwargs)

        return call

    for name, (module, owner, attribute) in MARKS.items():
        place = importlib.import_module(f"jaxvit.{module}")
        place = getattr(place, owner) if owner else place
        setattr(place, attribute, marked(getattr(place, attribute), code[name]))
    from jaxvit.cli import main

    return main(argv)


class Attempt:
    """One process of a run, from its start to its end or its kill."""

    def __init__(self, config: Path, workdir: Path, log: Path, flags: Sequence[str] = ()):
        """Starts the process; `flags` go to the command line."""
        self.begun = time.monotonic()
        self._read, write = os.pipe()
        command = [sys.executable, __file__, "--child", str(write), "--config", str(config), "--workdir", str(workdir)]
        command += flags
        with open(log, "ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, pass_fds=[write], start_new_session=True)
        os.close(write)
        self.marks: list[tuple[str, float]] = []  # (event, seconds since the start)

    def run(self, trigger: dict[str, Any] | None) -> dict[str, Any]:
        """Waits for the end or for the trigger; returns what happened."""
        names = list(MARKS)
        selector = selectors.DefaultSelector()
        selector.register(self._read, selectors.EVENT_READ)
        seen, killed = 0, None
        while True:
            if trigger and trigger["event"] == "time":
                left = max(0.0, trigger["seconds"] - (time.monotonic() - self.begun))
            else:
                left = 60.0
            if selector.select(left):
                content = os.read(self._read, 4096)
                if not content:
                    break  # the process has ended
                for byte in content:
                    name = "python is up" if byte == 0xFF else names[byte]
                    self.marks.append((name, time.monotonic() - self.begun))
                    seen += trigger is not None and trigger["event"] == name
                if trigger is None or trigger["event"] == "time" or seen < trigger["count"]:
                    continue
                time.sleep(trigger["delay"])
                killed = self._kill()
                break
            if trigger and trigger["event"] == "time":
                killed = self._kill()
                break
        rc = self._process.wait()
        os.close(self._read)
        seconds = round(time.monotonic() - self.begun, 3)
        return {"exit": rc, "killed": killed, "seconds": seconds}

    def wait_for(self, event: str, count: int) -> bool:
        """Waits for the `count`-th event of a kind; returns whether it came."""
        code, seen = list(MARKS).index(event), 0
        while seen < count and (content := os.read(self._read, 1)):
            seen += content[0] == code
        return seen == count

    def send(self, signum: int) -> None:
        """Sends a signal."""
        self._process.send_signal(signum)

    def _kill(self) -> str:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        rest = os.read(self._read, 65536)
        self.marks += [(list(MARKS)[byte] if byte != 0xFF else "python is up", 0.0) for byte in rest]
        return self.marks[-1][0] if self.marks else "nothing yet"


def draw(rng: random.Random, start_up: float) -> dict[str, Any]:
    """Returns the moment of a kill."""
    kind = rng.choices(
        ["time", "step", "evaluate", "save", "seal", "end of epoch", "write", "predictions", "finish", "resume"],
        [3, 4, 3, 3, 5, 2, 1, 1, 1, 1],
    )[0]
    if kind == "time":
        return {"event": "time", "seconds": round(rng.uniform(0, 1.2 * start_up), 3)}
    most = {"step": 60, "evaluate": 4, "save": 12, "seal": 12, "end of epoch": 3, "write": 3, "predictions": 2}
    return {"event": kind, "count": rng.randint(1, most.get(kind, 1)), "delay": round(rng.uniform(0, JITTER), 4)}


def arrays(directory: Path) -> dict[str, np.ndarray]:
    """Returns all arrays of a checkpoint as they lie on disk."""
    import orbax.checkpoint as ocp

    from jaxvit.tree import named_leaves

    tree = ocp.StandardCheckpointer().restore((directory / "state").absolute())
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def ending(workdir: Path) -> dict[str, Any]:
    """Returns all that has to be equal at the end of a run: {name: array, text or number}."""
    found: dict[str, Any] = {}
    for kind in ("last", "best"):
        steps = sorted(int(p.name) for p in (workdir / "checkpoints" / kind).iterdir())
        found[f"{kind}: steps"] = steps
        newest = workdir / "checkpoints" / kind / str(steps[-1])
        found |= {f"{kind}/{name}": value for name, value in arrays(newest).items()}
        meta = json.loads((newest / "meta" / "metadata").read_text())
        found |= {f"{kind}: {word}": value for word, value in meta.items() if word not in TIMES}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found["metrics.jsonl"] = [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]
    with np.load(workdir / "predictions.npz") as predictions:
        found |= {f"predictions/{name}": predictions[name] for name in predictions.files}
    if (workdir / "pretrain").exists():
        found["pretrain/model.safetensors"] = np.fromfile(workdir / "pretrain" / "model.safetensors", np.uint8)
        found["pretrain/metrics.jsonl"] = (workdir / "pretrain" / "metrics.jsonl").read_text()
        with np.load(workdir / "pretrain" / "reconstructions.npz") as pictures:
            found |= {f"pretrain/reconstructions/{name}": pictures[name] for name in pictures.files}
    found["final"] = json.loads((workdir / "summary.json").read_text())["final"]
    found["left behind"] = sorted(p.name for p in workdir.glob(".*"))
    found["damaged"] = sorted(p.name for p in (workdir / "checkpoints" / "damaged").glob("*"))
    return found


def compare(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Returns the names of what differs in a bit."""

    def same(x: Any, y: Any) -> bool:
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        return type(x) is type(y) and x == y

    return [name for name in sorted(a.keys() | b.keys()) if not same(a.get(name), b.get(name))]


def provenance(tool: str = "tools/kill_test.py") -> dict[str, Any]:
    """Returns what a record must say of itself: command, date, commit, hardware and versions."""
    from jaxvit.runtime import machine

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short=10", "HEAD") or "unknown"
    changed = " with changes" if git("status", "--porcelain", "jaxvit", "tools") else ""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    words = [word for flag, word in zip(sys.argv, sys.argv[1:], strict=False) if flag != "--scratch"]
    return {
        "command": shlex.join(["python", tool, *(w for w in words if w != "--scratch")]),
        "date": datetime.date.today().isoformat(),
        "commit": commit + changed,
        "cpu": cpu,
        "cores_of_the_run": len(os.sched_getaffinity(0)),
        "environment": machine.environment(),
    }


def run_scenario(scenario: str, kills: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Kills runs of one scenario until there are `kills`; returns the record."""
    rng = random.Random(f"{scenario} {seed}")
    config, teacher = scratch / f"{scenario}.json", scratch / scenario / "teacher"
    config.write_text(json.dumps(config_of(scenario, teacher)))
    if "distill" in SCENARIOS[scenario]:
        taught = scratch / f"{scenario}_teacher.json"
        taught.write_text(json.dumps({**config_of("adamw_cosine"), "num_epochs": 1}))
        Attempt(taught, teacher, scratch / f"{scenario}.log").run(None)
    whole = scratch / scenario / "whole"
    first = Attempt(config, whole, scratch / f"{scenario}.log")
    done = first.run(None)
    if done["exit"]:
        raise SystemExit(f"the uninterrupted run of {scenario} failed; see {scratch / scenario}.log")
    expected = ending(whole)
    start_up = next(seconds for name, seconds in first.marks if name == "step")
    record: dict[str, Any] = {
        "scenario": scenario, **provenance(), "config": config_of(scenario), "seed": seed,
        "uninterrupted_seconds": done["seconds"], "seconds_to_first_step": round(start_up, 3),
        "arrays_compared": sum(isinstance(v, np.ndarray) for v in expected.values()),
        "metrics_lines": len(expected["metrics.jsonl"]), "runs": [],
    }  # fmt: skip
    number = 0
    while number < kills:
        workdir = scratch / scenario / f"killed{len(record['runs'])}"
        attempts: list[dict[str, Any]] = []
        while True:
            trigger = draw(rng, start_up) if number < kills else None
            attempt = Attempt(config, workdir, scratch / f"{scenario}.log")
            happened = attempt.run(trigger)
            attempts.append({"trigger": trigger, **happened})
            if happened["killed"]:
                number += 1
                print(f"{scenario}: kill {number}/{kills} at {trigger}, in {happened['killed']!r}", flush=True)
            elif happened["exit"]:
                break  # a failure of its own
            else:
                break
        if attempts[-1]["exit"]:
            differences = [f"exit code {attempts[-1]['exit']}"]
        else:
            differences = compare(expected, ending(workdir))
        print(f"{scenario}: run of {len(attempts)} attempts, differences: {differences or 'none'}", flush=True)
        record["runs"].append({"attempts": attempts, "differences": differences})
        if not differences:
            shutil.rmtree(workdir)
    record["kills"] = number
    record["runs_that_differ"] = sum(bool(run["differences"]) for run in record["runs"])
    where: dict[str, int] = {}
    for run in record["runs"]:
        for attempt in run["attempts"]:
            if attempt["killed"]:
                where[attempt["killed"]] = where.get(attempt["killed"], 0) + 1
    record["killed_in"] = dict(sorted(where.items()))
    return record


def main() -> int:
    """Runs the scenarios; returns 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=80, help="over the scenarios that are run; default 80")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SCENARIOS)
    parser.add_argument("--out", type=Path, help="a directory for one JSON record a scenario")
    parser.add_argument("--scratch", type=Path, help="where the runs lie; default: a temporary directory")
    args = parser.parse_args()
    names = [args.only] if args.only else list(SCENARIOS)
    scratch = args.scratch or Path(tempfile.mkdtemp(prefix="kill_test_"))
    bad = 0
    for name in names:
        (scratch / name).mkdir(parents=True, exist_ok=True)
        record = run_scenario(name, -(-args.kills // len(names)), args.seed, scratch)
        bad += record["runs_that_differ"]
        print(f"{name}: {record['kills']} kills in {record['killed_in']}; differing runs: {record['runs_that_differ']}")
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"scratch: {scratch}" if bad else "no differences")
    return 1 if bad else 0


if __name__ == "__main__":
    import quiet

    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(int(sys.argv[2]), sys.argv[3:]))
    quiet.run(main)
