"""Comparison with timm in a separate process, and with an earlier measurement."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxvit.errors import UserError
from jaxvit.runtime import escape
from jaxvit.runtime.paths import near
from jaxvit.workdir import run_files

KEY = ("model", "fields", "dtype", "image_size", "mode", "batch_size")
TORCH_DEVICES = {"cpu": "cpu", "gpu": "cuda"}


def timm_rows(
    rows: Sequence[dict[str, Any]],
    *,
    python: str | None,
    compile_too: bool,
    repeats: int,
    seconds: float,
    eager_too: bool = True,
    say: Callable[[str], None] = lambda text: None,
    done: Callable[[dict[str, Any], list[dict[str, Any]]], None] = lambda versions, rows: None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measures the same models, batches and types with timm; returns (versions, rows: eager and compiled).

    Args:
      rows: our results, of `measure` with "model", "dtype", "image_size" and "fields".
      python: the interpreter that has torch and timm; None = this one.
      compile_too: torch.compile as well.
      repeats: how often the clock is read.
      seconds: of each rate, about.
      eager_too: without torch.compile as well.
      say: called with lines on the progress.
      done: is given the versions and the rows so far after each of them.

    Raises:
      UserError: that Python has no torch or no timm, or no device of our kind.
    """
    backend = jax.default_backend()
    if backend not in TORCH_DEVICES:
        raise UserError(f"--compare timm does not support {backend}; expected a CPU or a GPU")
    jobs = [
        {"name": row["model"], **{k: row[k] for k in ("dtype", "mode", "batch_size", "image_size", "fields")}}
        for row in rows
    ]
    words = {
        "device": TORCH_DEVICES[backend],
        "compile": compile_too,
        "eager": eager_too,
        "repeats": repeats,
        "seconds": seconds,
    }
    versions: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for answer in _ask(python or sys.executable, {"jobs": jobs, **words}):
        if "versions" in answer:
            versions = answer["versions"]
            continue
        say(f"timm {answer['name']} {answer['mode']} {'compiled' if answer['compiled'] else 'eager'} done")
        found.append(answer)
        done(versions, found)
    return versions, found


def check_timm(python: str | None) -> None:
    """Raises UserError, before anything else is measured, where a Python has no torch or no timm."""
    list(_ask(python or sys.executable, {"jobs": [], "device": "cpu", "compile": False}))


def loader_rates(python: str | None, request: dict[str, Any]) -> dict[str, Any]:
    """Photos/s of timm's loader, by its number of workers; the request is that of `timm_loader_side`."""
    (answer,) = _ask(python or sys.executable, request, "timm_loader_side.py")
    return answer


def _ask(python: str, request: dict[str, Any], script_name: str = "timm_side.py") -> Iterator[dict[str, Any]]:
    """Yields the answers of `timm_side` as they come."""
    script = Path(__file__).with_name(script_name)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:  # a pipe would fill up
        try:
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                [python, str(script)], stdin=pipe, stdout=pipe, stderr=errors, text=True, start_new_session=True
            )
        except OSError as error:
            raise UserError(f"cannot run --torch-python {python!r}: {error.strerror}") from None
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()  # and left open: its end tells the child that we are gone
            for line in process.stdout:
                yield json.loads(line)
            process.wait()
        except BrokenPipeError:
            process.wait()
        finally:
            _end(process)
        errors.seek(0)
        said = errors.read().strip().splitlines() or ["no message"]
    if process.returncode:
        reason = escape.message(said[-1], 200)
        raise UserError(f"timm cannot be measured with {python!r}: {reason}\n--torch-python chooses another Python")


def _end(process: subprocess.Popen) -> None:
    """Ends a child and its group, whatever it is doing: nothing of it may stay on the device."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()  # type: ignore[union-attr]


def ratios(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our images/s over timm's for each of our rows, as "eager" and "compiled"; "_latency" is timm's over ours."""
    out = []
    for row in rows:
        entry = {word: row[word] for word in KEY}
        for other in others:
            same = other["name"] == row["model"] and all(other[k] == row[k] for k in KEY[1:])
            if not same:
                continue
            kind = "compiled" if other["compiled"] else "eager"
            if "error" in other:
                entry[f"{kind}_error"] = other["error"]
                continue
            entry[kind] = row["images_per_second"]["median"] / other["images_per_second"]["median"]
            entry[f"{kind}_images_per_second"] = other["images_per_second"]["median"]
            if "latency_seconds" in row and "latency_seconds" in other:
                entry[f"{kind}_latency"] = other["latency_seconds"]["median"] / row["latency_seconds"]["median"]
        out.append(entry)
    return out


def read_baseline(path: str) -> dict[str, Any]:
    """Reads what `--json` wrote; raises UserError where the file is not that."""
    if not Path(path).is_file():
        raise UserError(f"no file {path!r}; --baseline is a file that bench --json has written.{near(Path(path))}")
    found = run_files.read_json(Path(path))
    if not isinstance(found.get("results"), list) or "environment" not in found:
        raise UserError(f"{path!r} is not a file that bench --json has written")
    return found


def regressions(
    report: dict[str, Any], baseline: dict[str, Any], tolerance: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """(comparisons with the same rows of the baseline, what got worse by more than `tolerance`, in words).

    Raises UserError where the baseline is of another device or has no row in common.
    """
    here, there = (found["environment"]["device"] for found in (report, baseline))
    if here != there:
        raise UserError(f"the baseline was measured on {there!r}, not on {here!r}; rates cannot be compared")
    old = {_key(row): row for row in baseline["results"]}
    compared, worse = [], []
    for row in report["results"]:
        before = old.get(_key(row))
        if before is None:
            continue
        for figure, better in (("images_per_second", 1), ("latency_seconds", -1), ("memory_planned_bytes", -1)):
            now, then = _number(row.get(figure)), _number(before.get(figure))
            if not now or not then:
                continue
            change = now / then
            compared.append({**{k: row[k] for k in KEY}, "figure": figure, "now": now, "then": then, "change": change})
            if (change < 1 - tolerance) if better > 0 else (change > 1 + tolerance):
                name = f"{row['model']} {row['dtype']} {row['mode']}"
                worse.append(f"{name}: {figure} {then:.4g} -> {now:.4g} ({change - 1:+.1%})")
    if not compared:
        raise UserError("the baseline has no row for these models, types, sizes and batches; nothing was compared")
    return compared, worse


def _key(row: dict[str, Any]) -> str:
    return json.dumps([row.get(word) for word in KEY], sort_keys=True)


def _number(value: Any) -> float | None:
    return value["median"] if isinstance(value, dict) else value
