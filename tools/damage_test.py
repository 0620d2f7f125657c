"""Damages the files of runs at random and sees to it that nothing is silent, nothing breaks, nothing good is lost.

    python tools/damage_test.py --damages 300 --out results/damage_test.json [--seed 0]

Half of the damages hit a run that was stopped half-way, half a finished one. A damage is a flipped bit, a truncation
or a deletion of one file under checkpoints/, of config.json, metrics.jsonl or another file that the run vouches for.
Then the training command is given again (in this process, with the steps that are compiled already), and:

- something was said that names the file or its checkpoint, or an error of at most two lines (no traceback);
- every checkpoint that was intact before is still on disk, bit for bit;
- the run has come to the end that it has without damage: the same last state, metrics.jsonl, predictions and final
  metrics, unless it said that the best checkpoint is lost.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from kill_test import compare, config_of, ending  # noqa: E402

KINDS = ("flip", "truncate", "delete")
STOP_AFTER = 20  # steps of the run that is stopped half-way
COLUMNS = ("run", "file", "damage", "said", "error", "wrong")  # of a record, and how many are alike
OF_THE_BEST = ("best", "predictions", "final")  # what may differ where the best checkpoint is lost


def prepare_runs(scratch: Path) -> tuple[Any, dict[str, Path], dict[str, Any]]:
    """Returns (config, {"stopped": workdir, "finished": workdir}, the undamaged end); later runs compile nothing."""
    import jax
    import jax.numpy as jnp

    from jaxvit import config as config_lib
    from jaxvit.runtime.interrupt import Interrupted
    from jaxvit.train import loop as train
    from jaxvit.train import summary
    from jaxvit.workdir.checkpoint import Checkpoints

    words = config_of("adamw_cosine") | {"num_epochs": 3, "batch_size": 64}
    words["data"] = {"name": "digits", "val_fraction": 0.5}
    words["checkpoint"] = {"every_steps": 8}
    summary.count_macs = lambda model, shape: 0  # half of the time of so short a run
    config = config_lib.from_mapping(words)
    prepare, ready = train.prepare, {}

    def prepare_once(given: Any, workdir: Path, **words: Any) -> Any:
        if not ready:
            run, state = prepare(given, workdir, **words)
            run.checkpoints.close()
            ready.update(run=run, state=jax.device_get(state), place=jax.tree.map(lambda x: x.sharding, state))
        state = jax.tree.map(lambda x, place: jnp.copy(jax.device_put(x, place)), ready["state"], ready["place"])
        return dataclasses.replace(
            ready["run"], workdir=workdir, checkpoints=Checkpoints(workdir / "checkpoints")
        ), state

    class Stop:
        looks = 0

        @property
        def signum(self) -> int | None:
            self.looks += 1
            return signal.SIGINT if self.looks > 2 * STOP_AFTER else None

    train.prepare = prepare_once
    deferred = train.deferred
    train.deferred = lambda: contextlib.nullcontext(Stop())
    with contextlib.suppress(Interrupted):
        train.train_and_evaluate(config, scratch / "stopped")
    train.deferred = deferred
    train.train_and_evaluate(config, scratch / "finished")
    return config, {name: scratch / name for name in ("stopped", "finished")}, ending(scratch / "finished")


def victims(workdir: Path) -> list[Path]:
    """The files that may be hit: those of checkpoints, and those that the run vouches for."""
    from jaxvit.workdir import resume

    found = [p for p in (workdir / "checkpoints").rglob("*") if p.is_file()]
    return sorted(found) + [workdir / name for name in (*resume.SEALED, "manifest.json") if (workdir / name).is_file()]


def hit(rng: random.Random, path: Path) -> str:
    """Damages a file; returns how."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(KINDS) if content else "delete"
    if kind == "flip":
        place = rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    elif kind == "truncate":
        path.write_bytes(content[: rng.randrange(len(content))])
    else:
        path.unlink()
    return kind


def intact_steps(workdir: Path) -> dict[str, dict[str, str]]:
    """{"last/8": {file: SHA-256}} of the steps whose files are as their manifest says."""
    from jaxvit.workdir import manifest

    found = {}
    for step in (workdir / "checkpoints").glob("[lb]*/[0-9]*"):
        copies = [manifest.read(step / manifest.NAME)]
        copies.append(manifest.read(workdir / "checkpoints" / "manifests" / f"{step.parent.name}-{step.name}.json"))
        wanted = next((copy for copy in copies if copy is not None), None)
        if wanted is not None and not manifest.differences(step, wanted, manifest.files_below(step)):
            found[f"{step.parent.name}/{step.name}"] = wanted
    return found


def lost(before: dict[str, dict[str, str]], workdir: Path) -> list[str]:
    """The steps of `before` that are nowhere below checkpoints/ any more."""
    from jaxvit.workdir import manifest

    there = []
    for inner in (workdir / "checkpoints").rglob("state"):
        step = inner.parent
        there.append({name: manifest.sha256(step / name) for name in manifest.files_below(step)})
    return [name for name, files in before.items() if files not in there]


def one_damage(rng: random.Random, config: Any, base: Path, workdir: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Damages a copy of a run, gives the command again, and returns what happened and what was wrong with that."""
    from jaxvit.errors import RunError, UserError
    from jaxvit.runtime import streams
    from jaxvit.runtime.console import err
    from jaxvit.train import loop as train

    shutil.copytree(base, workdir)
    path = rng.choice(victims(workdir))
    kind, wrong, error = hit(rng, path), [], ""
    before = intact_steps(workdir)
    name = path.relative_to(workdir).as_posix()
    said = io.StringIO()
    err.file = said
    try:
        train.train_and_evaluate(config, workdir)
    except (UserError, RunError) as caught:
        error = str(caught)
        if len(error.splitlines()) > 2:
            wrong.append("an error of more than two lines")
    except BaseException:
        wrong.append("traceback: " + traceback.format_exc()[-1500:])
    finally:
        err.file = streams.STDERR
    told = ("is damaged", "was damaged", "lost", " is made again", "cut off")
    lines = [line for line in said.getvalue().splitlines() if any(word in line for word in told)]
    parts = Path(name).parts
    if parts[0] == "checkpoints":
        kind_of, step = (Path(name).stem.split("-") if parts[1] == "manifests" else parts[1:3])[:2]
        names = {f"{kind_of}/{step}", f"{kind_of}-{step}"}
    else:
        names = {name}
    if not any(known in line for line in [*lines, error] for known in names):
        wrong.append("silent")
    after_finish = base.name == "finished"
    gone = lost(before, workdir)
    if after_finish and gone:
        wrong.append(f"lost {gone}")
    if not after_finish and [g for g in gone if not _superseded(g, workdir)]:
        wrong.append(f"lost {gone}")
    if not error and not wrong:
        differences = compare(expected, _ending(workdir))
        if any("is lost; the next best counts" in line for line in lines) or (
            after_finish and name.startswith("checkp")
        ):
            differences = [d for d in differences if not d.startswith(OF_THE_BEST) and d != "last: best"]
        differences = [d for d in differences if d not in ("damaged", "best: steps", "last: steps")]
        if after_finish and name.startswith("checkpoints/last"):
            differences = [d for d in differences if not d.startswith("last")]
        if differences:
            wrong.append(f"another end: {differences}")
    known = {str(workdir): "RUN", name: "FILE"} | dict.fromkeys(names - {name}, "STEP")
    if parts[0] == "checkpoints":
        known["/".join(parts[3:]) or name] = "FILE"
    for text, word in known.items():
        lines = [line.replace(text, word) for line in lines]
    return dict(zip(COLUMNS, (base.name, name, kind, lines, error, wrong), strict=True))


def of_any_step(text: str) -> str:
    """The text with STEP and HASH in place of those of its paths: so records of one kind are alike."""
    return re.sub(r"\b[0-9a-f]{32}\b", "HASH", re.sub(r"/\d+/", "/STEP/", text))


def _superseded(name: str, workdir: Path) -> bool:
    """Whether the run has since made newer steps of that kind, so that retention let the old one go."""
    kind, step = name.split("/")
    newer = [int(p.name) for p in (workdir / "checkpoints" / kind).glob("[0-9]*") if int(p.name) >= int(step)]
    return len(newer) >= 1


def _ending(workdir: Path) -> dict[str, Any]:
    try:
        return ending(workdir)
    except Exception as error:
        return {"ending": f"{type(error).__name__}: {error}"[:300]}


def damages(number: int, seed: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """Yields the record of each damage."""
    rng = random.Random(seed)
    config, bases, expected = prepare_runs(scratch)
    for i in range(number):
        workdir = scratch / f"damage{i}"
        record = one_damage(rng, config, bases[("stopped", "finished")[i % 2]], workdir, expected)
        if not record["wrong"]:
            shutil.rmtree(workdir)
        yield record


def main() -> int:
    """Does the damages; returns 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON record")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    scratch = Path(tempfile.mkdtemp(prefix="damage_test_"))
    records = []
    for i, record in enumerate(damages(args.damages, args.seed, scratch), 1):
        records.append(record)
        if record["wrong"]:
            print(f"{i}: {record['damage']} {record['file']} ({record['run']}): {record['wrong']}", flush=True)
        elif i % 25 == 0:
            print(f"{i} damages", flush=True)
    wrong = [record for record in records if record["wrong"]]
    counts = {
        "damages": len(records),
        "silent": sum("silent" in r["wrong"] for r in records),
        "tracebacks": sum(any(w.startswith("traceback") for w in r["wrong"]) for r in records),
        "good_checkpoints_lost": sum(any(w.startswith("lost") for w in r["wrong"]) for r in records),
        "another_end": sum(any(w.startswith("another end") for w in r["wrong"]) for r in records),
        "runs_that_went_on": sum(not r["error"] for r in records),
        "errors_of_two_lines": sum(bool(r["error"]) for r in records),
    }
    print(json.dumps(counts))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        said = sorted({line for record in records for line in record["said"]})  # a record has their places
        records = [record | {"said": [said.index(line) for line in record["said"]]} for record in records]
        alike = Counter(of_any_step(json.dumps([record[column] for column in COLUMNS])) for record in records)
        rows = [[*json.loads(row), count] for row, count in sorted(alike.items())]
        whole = {**counts, "said": said, "columns": [*COLUMNS, "alike"], "records": rows}
        args.out.write_text(json.dumps(whole, separators=(",", ":")) + "\n")
    if not wrong:
        shutil.rmtree(scratch)
    return 1 if wrong else 0


if __name__ == "__main__":
    import quiet

    quiet.run(main)
