"""One measurement of several models: the work list, the JSON and the tables."""

import datetime
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxvit.bench.ceiling import matmul_ceiling, on_paper
from jaxvit.bench.measure import Effort, measure
from jaxvit.bench.subjects import Settings, make_subject
from jaxvit.models import registry
from jaxvit.runtime import machine
from jaxvit.runtime.console import count, table

FLAGS = (
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "OMP_NUM_THREADS",
    "MALLOC_MMAP_MAX_",
)


def run(
    report: dict[str, Any],
    wanted: Sequence[Settings],
    modes: Sequence[str],
    batch_size: int | None,
    effort: Effort,
    say: Callable[[str], None] = lambda text: None,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Measures each model in each mode; `report` becomes what goes into the JSON; `done` follows each row."""
    report.update({"environment": environment(), "ceiling_flops": {}, "results": []})
    for dtype in dict.fromkeys(settings.dtype for settings in wanted):
        say(f"matmul ceiling in {dtype}")
        report["ceiling_flops"][dtype] = matmul_ceiling(dtype, seconds=min(effort.seconds, 1.0))
    for settings in wanted:
        for row in rows(settings, modes, batch_size, effort, report["ceiling_flops"], say):
            report["results"].append(row)
            done()


def rows(
    settings: Settings,
    modes: Sequence[str],
    batch_size: int | None,
    effort: Effort,
    ceilings: dict[str, float],
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """The rows of one model; without a given batch size, inference takes the one found for training."""

    def tell(text: str) -> None:
        say(f"{settings.name} {settings.dtype}: {text}")

    tell("drawing weights")
    subject = make_subject(settings)
    counted = subject.xla_macs()
    for mode in modes:
        row = measure(subject, mode, batch_size, effort, ceilings.get(settings.dtype), tell)
        batch_size = row["batch_size"]
        paper = on_paper(jax.devices()[0].device_kind, settings.dtype)
        if paper:
            row["share_of_paper"] = row["images_per_second"]["median"] * row["model_flops_per_image"] / paper
        yield {
            "model": settings.name,
            "dtype": settings.dtype,
            "fields": dict(settings.fields),
            "image_size": list(subject.image_shape[:2]),
            "parameters": subject.parameters,
            "gmacs": subject.macs / 1e9,
            "xla_gmacs": None if counted is None else counted / 1e9,
            **implementation(subject.model, train=mode != "infer"),
            **row,
        }


def implementation(model: Any, *, train: bool) -> dict[str, str]:
    """Which attention runs here, of a model with a choice."""
    runs = registry.family_of(model).attention_runs
    return {} if runs is None else {"attention": runs(model, train)}


def environment() -> dict[str, Any]:
    """Versions, hardware, what changes rates, and the command."""
    return {
        **machine.environment(),
        "cores": machine.cores(),
        "flags": {word: os.environ[word] for word in FLAGS if word in os.environ},
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def print_tables(report: dict[str, Any]) -> None:
    """Prints what was measured, for a person."""
    where = report["environment"]
    said = ", ".join(f"{dtype} {v / 1e12:.3g} TFLOP/s" for dtype, v in report["ceiling_flops"].items())
    print(f"{where['device']}, {where['cores']} cores, jax {where['jax']}; matmul ceiling {said}")
    columns = ("model", "dtype", "size", "mode", "batch", "images/s", "spread", "MFU", "latency", "cold", "warm",
               "memory", "parameters", "GMACs", "XLA's")  # fmt: skip
    shown = []
    for row in report["results"]:
        if row["mode"] == "loop":
            continue
        late, compile_ = row.get("latency_seconds"), row["compile_seconds"]
        memory = row["memory_peak_bytes"] or row["memory_planned_bytes"]
        shown.append(
            (
                row["model"], row["dtype"], "x".join(map(str, row["image_size"])), row["mode"], row["batch_size"],
                rate(row["images_per_second"]["median"]), f"{row['spread']:.1%}",
                f"{row['mfu']:.1%}" if "mfu" in row else "", f"{1e3 * late['median']:.3g} ms" if late else "",
                *(f"{s:.1f} s" if s is not None else "" for s in (compile_["cold"], compile_["warm"])),
                f"{memory / 2**20:,.0f} MiB" if memory else "", count(row["parameters"]),
                f"{row['gmacs']:.3g}", f"{row['xla_gmacs']:.3g}" if row["xla_gmacs"] else "",
            )
        )  # fmt: skip
    if shown:
        table("", columns, shown, left=("model", "dtype", "mode"))
    _print_timm(report)
    for row in report["results"]:
        if row["mode"] == "loop":
            print(
                f"{row['model']} {row['dtype']}, batch {row['batch_size']}: the training loop with data "
                f"({row['data']}) reaches {rate(row['images_per_second']['median'])} images/s, its step alone "
                f"{rate(row['step_images_per_second']['median'])}; gap {row['gap']:.1%} (target: below 5 %)"
            )


def _print_timm(report: dict[str, Any]) -> None:
    if "timm" not in report:
        return
    shown = []
    for entry in report["timm"]["ratios"]:
        cells = [entry["model"], entry["dtype"], entry["mode"], entry["batch_size"]]
        for kind in ("eager", "compiled"):
            given = f"{kind}_images_per_second" in entry
            cells += [rate(entry[f"{kind}_images_per_second"]), f"{entry[kind]:.2f}"] if given else ["", ""]
        cells += [f"{entry[k]:.2f}" if k in entry else "" for k in ("eager_latency", "compiled_latency")]
        shown.append(cells)
    versions = report["timm"]["versions"]
    title = (
        f"timm {versions.get('timm')}, torch {versions.get('torch')}, {versions.get('device')}; above 1: ours is faster"
    )
    columns = ("model", "dtype", "mode", "batch", "timm eager", "ratio", "timm compiled", "ratio",
               "latency: eager", "compiled")  # fmt: skip
    table(title, columns, shown, left=("model", "dtype", "mode"))
    for entry in report["timm"]["ratios"]:
        for kind in ("eager", "compiled"):
            if f"{kind}_error" in entry:
                print(f"timm {entry['model']} {entry['mode']} {kind}: {entry[f'{kind}_error']}")


def rate(value: float) -> str:
    """Images per second: four digits at most."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
