"""Puts what came back from the machine into results/gpu/, and draws the tables and results/WANTED.md anew.

    python3 tools/gpu merge OUT [OUT ...] [--check]

OUT holds index.json and results.tar.gz as `run` has written them; the last call of a packet brings all of it. A job
that was done gives results/gpu/PACKET/JOB.json with its figures, command, commit, hardware and versions; of a bench
or a speed run that was cut off the rows count that it had, and it stays wanted. Which kernels XLA found the fastest is
kept in results/gpu/tuned.tar.xz, for `prepare`. A packet leaves results/WANTED.md when all its jobs
are done.
Nothing is written where anything is incomplete, damaged or impossible.
"""

import argparse
import json
import re
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tools.gpu import packets, records, tables, tuned, wanted
from tools.gpu.jobs import ROOT, Job
from tools.gpu.records import Damaged

DONE = "done"
# kinds whose rows stand for themselves, also where the job was cut off, and their file
ROWS_COUNT = {"bench": "{}.json", "seeds": "runs/{}/seeds.json"}
NEEDED = ("packet", "tiny", "commit", "gpu", "versions", "jobs", "finished")


def read_index(out: Path) -> dict[str, Any]:
    """Reads OUT/index.json; raises Damaged where it is not what `run` writes at its end."""
    path = out / "index.json"
    if not path.is_file():
        raise Damaged(f"no file {path}; expected what `run` has written")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise Damaged(f"{path} is damaged: no JSON") from None
    lacking = [word for word in NEEDED if word not in index] if isinstance(index, dict) else list(NEEDED)
    if lacking:
        raise Damaged(f"{path} has no {lacking[0]!r}: it is not whole")
    if index["packet"] not in packets.PACKETS:
        raise Damaged(f"{path} is of packet {index['packet']!r}; there are {', '.join(packets.PACKETS)}")
    if not index["finished"]:
        raise Damaged(f"{path} is of a call that did not come to its end; the last call of the packet brings all of it")
    return index


def accept(index: dict[str, Any], out: Path) -> None:
    """Raises Damaged where results are of a rehearsal, or do not say of what."""
    if index["tiny"]:
        raise Damaged(f"{out} is a rehearsal (--tiny): its figures say nothing")
    if not index["gpu"]:
        raise Damaged(f"{out} names no GPU: it was measured elsewhere")
    if index["commit"] == "unknown":
        raise Damaged(f"{out} names no commit: nobody could measure it again")


def collect(out: Path, index: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The records of all jobs that have a result, by name; raises Damaged."""
    jobs = packets.PACKETS[index["packet"]].jobs()
    last = {entry["name"]: entry for entry in index["jobs"] if entry["name"] in jobs}  # a later call knows better
    found = {}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        try:
            with tarfile.open(out / "results.tar.gz", "r:gz") as tar:
                tar.extractall(home, filter="data")
        except FileNotFoundError:
            raise Damaged(f"no file {out / 'results.tar.gz'}") from None
        except (tarfile.TarError, EOFError, OSError) as error:
            first = str(error).partition("\n")[0]
            raise Damaged(f"{out / 'results.tar.gz'} is damaged: {first}") from None
        for entry in last.values():
            job = jobs[entry["name"]]
            file = ROWS_COUNT.get(job.kind, "").format(job.name)
            if entry["state"] == DONE or (file and "stopped" in entry["state"] and (home / file).is_file()):
                found[job.name] = record(job, entry, index, home)
    if not found:
        raise Damaged(f"{out} has no job of packet {index['packet']} that was done")
    return found


def record(job: Job, entry: dict[str, Any], index: dict[str, Any], home: Path) -> dict[str, Any]:
    """One record; a job that was cut off with all its rows was done."""
    found = _portable(records.condense(job, home))
    return {
        "packet": index["packet"],
        "job": job.name,
        "hardware": index["gpu"].split(",")[0],
        "gpu": index["gpu"],
        "commit": index["commit"],
        "versions": index["versions"],
        "python": index.get("python"),
        "command": _portable(entry["command"]),
        "state": DONE if _has_all(job, found) else entry["state"],
        "seconds": entry.get("seconds"),
        "found": found,
    }


def _has_all(job: Job, found: dict[str, Any]) -> bool:
    """Whether all rows are there that the packet asks for."""
    asked = [int(word.partition("=")[2]) for word in job.words if job.kind == "seeds" and word.startswith("--seeds=")]
    return found.get("complete") is True or bool(asked and len(found["runs"]) >= asked[0])


def _portable(value: Any) -> Any:
    """A value whose texts name no directory of the machine."""
    if isinstance(value, dict):
        return {name: _portable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner) for inner in value]
    return _anywhere(value) if isinstance(value, str) else value


def _anywhere(word: str) -> str:
    """A word of a command without the directories of the machine: its Python by name, its work directory as WORK."""
    word = re.sub(r"^/\S*/(python[\d.]*)$", r"\1", word)
    return re.sub(r"/[^\s=:]*/jaxvit-gpu(?=/|$)", "WORK", word)


def write(root: Path, packet: str, found: dict[str, dict[str, Any]]) -> None:
    """Writes the records."""
    home = root / records.HOME / packet
    home.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (home / f"{name}.json").write_text(text, encoding="utf-8")


def main(argv: list[str]) -> int:
    """Merges; returns 2, with one line, where that cannot be."""
    parser = argparse.ArgumentParser(
        prog="gpu merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="+", type=Path, metavar="OUT")
    parser.add_argument("--check", action="store_true", help="read and check, a rehearsal too; writes nothing")
    parser.add_argument("--all", action="store_true", help="of --check: every job of the packet must have a result")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the checkout; default: this one")
    args = parser.parse_args(argv)
    try:
        whole = []
        for out in args.out:
            index = read_index(out)
            if not args.check:
                accept(index, out)
            whole.append((index, collect(out, index)))
        if args.check:
            for index, found in whole:
                print(f"packet {index['packet']}: {len(found)} results: {', '.join(found)}")
                lacking = set(packets.PACKETS[index["packet"]].jobs()) - set(found)
                if args.all and lacking:
                    raise Damaged(f"packet {index['packet']} has no result of {', '.join(sorted(lacking))}")
                for name, content in found.items():
                    ratios = content["found"].get("timm", {}).get("ratios", [])
                    errors = [value for entry in ratios for word, value in entry.items() if word.endswith("_error")]
                    if args.all and errors:
                        raise Damaged(f"job {name}: timm said {errors[0]}")
            return 0
        tables.check(args.root)
        wanted.check(args.root)
        for out, (index, found) in zip(args.out, whole, strict=True):
            write(args.root, index["packet"], found)
            tuned.keep(out / "jaxcache.tar", args.root)
        changed = tables.redraw(args.root)
        changed += [wanted.FILE] if wanted.redraw(args.root) else []
    except Damaged as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for index, found in whole:
        lacking = wanted.missing(packets.PACKETS[index["packet"]], args.root)
        rest = f"still wanted: {', '.join(lacking)}" if lacking else "all of it is measured"
        print(f"packet {index['packet']}: {len(found)} results, {rest}")
        for entry in index["jobs"]:
            if entry["state"] not in (DONE, "stopped as meant", "goes on"):
                print(f"  {entry['name']}: {entry['state']}")
    print(f"drawn anew: {', '.join(changed) or 'nothing to change'}")
    return 0
