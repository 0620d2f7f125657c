"""Runs one call of a packet within its time: lanes side by side, a guard for each job, results packed after each.

    python3 tools/gpu run CALL [--out OUT] [--seconds N] [--tiny] [--only NAME,NAME] [--list]

A job is a process group of its own; at its guard, or at the end of the call, it gets Ctrl-C first, so that it can write
what it has, then SIGTERM, then SIGKILL, and its group with it. OUT gets results.tar.gz, logs.tar.gz, index.json and, at
the end, jaxcache.tar (compiled programs, for `prepare --cache`) and a teacher's weights: at most 8 files of 15 MiB.
What an earlier call on the same machine has brought, compiled or measured is found again; nothing is measured twice.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tools.gpu import jobs, kit, packets
from tools.gpu.jobs import ROOT, Job, Phase, Place

MOST = 15 * 2**20  # bytes of a file that comes back
MARGIN = 4  # seconds of a call in which nothing runs any more
PATIENCE = ((signal.SIGINT, 12), (signal.SIGTERM, 5), (signal.SIGKILL, 5))  # seconds after each
WORTHWHILE = 0.3  # of its guard: with less time left a job is not started
LEAST = 10  # seconds, likewise
_outliving: list[subprocess.Popen] = []  # what goes on when the call is over


class Clock(NamedTuple):
    """When a call began and when it ends, in seconds of the monotonic clock."""

    begun: float
    end: float

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun


class Index:
    """What became of each job, over all calls on this machine; written, with the results, after each of them."""

    def __init__(self, out: Path, work: Path, facts: dict[str, Any]):
        """Goes on from what an earlier call has left in `work`."""
        self.out, self.work, self._lock = out, work, threading.Lock()
        self._file = work / "index.json"
        before = json.loads(self._file.read_text()) if self._file.exists() else {}
        same = before.get("packet") == facts["packet"]  # another packet on the same machine begins anew
        self.content = {**facts, "jobs": before["jobs"] if same else [], "finished": False}

    def state(self, name: str) -> str:
        """What became of a job: the last that is known, or nothing."""
        return next((entry["state"] for entry in reversed(self.content["jobs"]) if entry["name"] == name), "")

    def add(self, entry: dict[str, Any]) -> None:
        """Adds a job and packs what there is."""
        with self._lock:
            self.content["jobs"].append(entry)
            self._write()

    def finish(self) -> None:
        """The call is over."""
        with self._lock:
            self.content["finished"] = True
            self._write()

    def _write(self) -> None:
        text = json.dumps(self.content, indent=1) + "\n"
        kept = dict.fromkeys(pattern for entry in self.content["jobs"] for pattern in entry.get("keep", ()))
        pack(self.out / "results.tar.gz", self.work, kept)
        pack(self.out / "logs.tar.gz", self.work, ("logs/*.log",))
        for path in sorted((self.work / "teacher").glob("teacher.*")):
            shutil.copy(path, self.out)
        for file in (self._file, self.out / "index.json"):
            partial = file.with_name(f".{file.name}.tmp")
            partial.write_text(text)
            os.replace(partial, file)


def pack(target: Path, home: Path, patterns: Any) -> None:
    """Packs the files below `home` that match, whole or not at all; predictions are left out where all is too much."""
    paths = [path for pattern in patterns for path in sorted(home.glob(pattern)) if path.is_file()]
    small = [path for path in paths if path.name != "predictions.npz"]
    for chosen in (paths, small):
        partial = target.with_name(f".{target.name}.tmp")
        with tarfile.open(partial, "w:gz", compresslevel=3) as tar:
            for path in dict.fromkeys(chosen):
                tar.add(path, str(path.relative_to(home)))
        if partial.stat().st_size < MOST:
            os.replace(partial, target)
            return
    partial.unlink()
    print(f"{target.name} would be larger than {MOST} bytes: the one of before stays", flush=True)


def environment(job: Job, work: Path) -> dict[str, str]:
    """Of a job. Packages that were brought along stay importable: PYTHONPATH is added to."""
    paths = [str(work / "site"), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(work / "jaxcache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # timm's process, or another lane's, needs memory too
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        "TRITON_CACHE_DIR": str(work / "triton"),
        **dict(job.env),
    }


def stop(process: subprocess.Popen) -> None:
    """Ends a job and its group, the gentle way first."""
    for signum, patience in PATIENCE:
        if not _tell(process, signum):
            break
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            continue
    _tell(process, signal.SIGKILL)


def _tell(process: subprocess.Popen, signum: int) -> bool:
    try:
        os.killpg(process.pid, signum)
    except ProcessLookupError:
        return False
    return True


def run(job: Job, place: Place, clock: Clock, end: float, index: Index, call: str) -> None:
    """Runs one job and enters what became of it."""
    command, begun = jobs.command(job, place), time.monotonic()
    entry = {"name": job.name, "kind": job.kind, "call": call, "at": round(clock.spent, 1)}
    entry |= {"command": list(command.argv), "keep": list(command.keep) if jobs.KINDS[job.kind].leaves else []}
    left = min(_guard(job, place), end - begun, clock.end - MARGIN - begun)
    if index.state(job.name) == "done":
        return
    if left < max(LEAST, WORTHWHILE * job.guard) and not place.tiny:
        index.add({**entry, "state": "left out: no time"})
        return
    log = place.work / "logs" / f"{call}.{job.name}.log"
    with open(log, "w") as out:
        process = subprocess.Popen(
            command.argv, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
            cwd=place.work / "tree", env=environment(job, place.work),
        )  # fmt: skip
    if command.stdin:
        assert process.stdin is not None
        process.stdin.write(command.stdin)
        process.stdin.flush()  # left open: see timm_side
    state = _watch(process, job, place, log, begun + left)
    state = state or ("done" if process.returncode == 0 else f"failed with {process.returncode}")
    entry |= {"state": state, "seconds": round(time.monotonic() - begun, 1)}
    if state.startswith("failed"):
        entry["said"] = log.read_text(errors="replace").splitlines()[-3:]
    index.add(entry)
    print(f"{entry['at']:7.1f} s  {job.name:<24}{state}  {entry['seconds']} s", flush=True)


def _guard(job: Job, place: Place) -> float:
    """Seconds until a job is stopped; in a rehearsal many, but few until the next call has to fetch what outlives."""
    return job.guard if not place.tiny else 5 if job.outlives else 10 * job.guard


def _watch(process: subprocess.Popen, job: Job, place: Place, log: Path, end: float) -> str:
    """Waits for a job's end; returns what was done to it, or nothing where it ended by itself."""
    until = jobs.pattern(job, place)
    while process.poll() is None:
        time.sleep(0.2)
        if until and re.search(until, log.read_text(errors="replace")):
            stop(process)
            return "stopped as meant"
        if time.monotonic() > end:
            if job.outlives:
                _outliving.append(process)
                (place.work / f"{job.name}.pid").write_text(str(process.pid))
                return "goes on"
            stop(process)
            return "stopped by its guard"
    return ""


def carry_out(phases: tuple[Phase, ...], place: Place, clock: Clock, index: Index, call: str) -> None:
    """Runs the phases in order, the lanes of each side by side."""
    for phase in phases:
        begun = time.monotonic()
        end = min(begun + (3600 if place.tiny else phase.seconds), clock.end)

        def follow(lane: tuple[Job, ...], end: float = end) -> None:
            for job in lane:
                run(job, place, clock, end, index, call)

        with ThreadPoolExecutor(1 if place.tiny else len(phase.lanes)) as pool:  # a rehearsal has few processors
            for done in [pool.submit(follow, lane) for lane in phase.lanes]:
                done.result()


def only(phases: tuple[Phase, ...], names: list[str]) -> tuple[Phase, ...]:
    """The phases with these jobs, and what fills the caches for them."""
    names = [*names, *(f"{word}_{name}" for word in ("warm", "timm") for name in names)]
    return tuple(
        phase._replace(lanes=tuple(tuple(job for job in lane if job.name in names) for lane in phase.lanes))
        for phase in phases
    )


def keep_programs(out: Path, cache: Path) -> None:
    """Compiled programs, and which kernels were the fastest, for another time; the small files first."""
    partial, size = out / ".jaxcache.tmp", 0
    tuned = [path for path in cache.glob("xla_gpu_*/**/*") if path.is_file()]
    with tarfile.open(partial, "w") as tar:
        for path in sorted([*cache.glob("*-cache"), *tuned], key=lambda path: path.stat().st_size):
            size += path.stat().st_size + 1024
            if size < MOST:
                tar.add(path, str(path.relative_to(cache)))
    os.replace(partial, out / "jaxcache.tar")


def machine() -> dict[str, Any]:
    """The hardware and the versions."""
    from importlib.metadata import distributions

    wanted = r"jax|jaxlib|flax|optax|orbax-checkpoint|numpy|torch|timm|triton|jax-cuda.*|nvidia-cudnn.*|ml.collections"
    found = {str(d.metadata["Name"]).lower(): d.version for d in distributions()}
    asked = "--query-gpu=name,driver_version,memory.total,clocks.max.sm"
    try:
        words = ["nvidia-smi", asked, "--format=csv,noheader"]
        gpu = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        gpu = ""
    versions = {name: found[name] for name in sorted(found) if re.fullmatch(wanted, name)}
    return {"gpu": gpu, "cores": os.cpu_count(), "python": sys.version.split()[0], "versions": versions}


def main(argv: list[str]) -> int:
    """Runs a call; returns 1 where a job failed in a rehearsal, or where no job was done."""
    parser = argparse.ArgumentParser(
        prog="gpu run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("call", choices=packets.CALLS, metavar="CALL", help=", ".join(packets.CALLS))
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "out")), help="default: $OUT, or out")
    parser.add_argument("--seconds", type=float, help="of the whole call; default: as planned")
    parser.add_argument("--kit", type=Path, default=ROOT / ".gpu", help="what `prepare` has filled; default .gpu")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir(), "jaxvit-gpu"),
        help="default: jaxvit-gpu in the temporary directory",
    )
    parser.add_argument("--torch-python", default=sys.executable, help="that has torch and timm; default: this one")
    parser.add_argument("--tiny", action="store_true", help="small models on small images, on any machine")
    parser.add_argument("--only", help="names of jobs, separated by commas")
    parser.add_argument("--list", action="store_true", help="the jobs and their commands; runs nothing")
    args = parser.parse_args(argv)
    packet, call = packets.CALLS[args.call]
    place = Place(args.work.absolute(), packets.MODELS, args.tiny, args.torch_python)
    phases = call.phases
    if args.only:
        names = args.only.split(",")
        known = {job.name for phase in phases for lane in phase.lanes for job in lane}
        if unknown := set(names) - known:
            parser.error(f"{args.call} has no job {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
        phases = only(phases, names)
    if args.list:
        for job in (job for phase in phases for lane in phase.lanes for job in lane):
            print(f"{job.name:<24}{job.guard:>4} s  {' '.join(jobs.command(job, place).argv)}")
        return 0
    brought = args.kit.absolute() / call.name
    if not brought.is_dir():
        parser.error(f"no folder {brought}: `prepare {packet.name}` fills it, and it must be brought along")
    begun = time.monotonic()
    clock = Clock(begun, begun + (args.seconds or (7200 if args.tiny else call.seconds)))
    args.out.mkdir(parents=True, exist_ok=True)
    for name in (
        "site",
        "data",
        "runs",
        "logs",
        "jaxcache",
        "kit/weights",
        "teacher",
    ):  # a study is told of all of them
        (place.work / name).mkdir(parents=True, exist_ok=True)
    os.chmod(place.work / "jaxcache", 0o700)
    kit.copy_code(ROOT, place.work / "tree")
    wanted = [job for phase in phases for lane in phase.lanes for job in lane]
    data = [job.data for job in wanted]
    for line in kit.set_up(brought, place.work, data, packets.NOISE, tiny=args.tiny):
        print(f"{clock.spent:7.1f} s  {line}", flush=True)
    if lacking := kit.lacking(place.work, data, [word for job in wanted for word in job.words]):
        print(f"error: no {lacking[0]}: an earlier call of packet {packet.name} brings it", file=sys.stderr)
        return 2
    facts = {"packet": packet.name, "tiny": args.tiny, "commit": kit.commit(brought, ROOT), **machine()}
    index = Index(args.out, place.work, facts)
    try:
        carry_out(phases, place, clock, index, call.name)
    finally:
        keep_programs(args.out, place.work / "jaxcache")
        index.finish()
    entries = [entry for entry in index.content["jobs"] if entry["call"] == call.name]
    bad = [entry for entry in entries if entry["state"].startswith("failed")]
    for entry in bad:
        print(entry["name"], *entry["said"], sep="\n  ")
    print(f"{clock.spent:7.1f} s  {sum(entry['state'] == 'done' for entry in entries)} done of {len(entries)}")
    return 1 if bad and args.tiny else 0
