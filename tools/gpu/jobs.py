"""What a packet is made of, and the command of each kind of job, in full size and tiny.

A job is data: its kind, what it is of, words. `command` makes a command line of it. Tiny commands run the same program
with a small model on small images, on any machine.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent


class Job(NamedTuple):
    """A process. Times in seconds."""

    name: str
    kind: str  # of KINDS
    of: str = ""  # a model of packets.MODELS, a recipe, a study, or several models
    guard: int = 120  # after which it is stopped
    data: str = ""  # a data set that was brought along, or noise of its shape
    words: tuple[str, ...] = ()  # added to the command
    timm: bool = False  # of a bench: against timm
    until: str = ""  # stopped, as meant, once its log has this pattern
    outlives: bool = False  # left running where the call ends; a job of kind "wait" with its name fetches it
    env: tuple[tuple[str, str], ...] = ()


class Phase(NamedTuple):
    """Lanes side by side, for at most so many seconds; the jobs of a lane one after the other."""

    seconds: int
    lanes: tuple[tuple[Job, ...], ...]


class Call(NamedTuple):
    """One command on the machine: how long it may take, and what is brought along."""

    name: str
    seconds: int
    phases: tuple[Phase, ...]
    brings: tuple[str, ...] = ()  # "cifar100:1", "cifar100:2" (parts of a data set), "weights", "teacher"


class Packet(NamedTuple):
    """Calls on one machine, one after the other within half a minute."""

    name: str
    title: str
    minutes: int  # in all, with the start of the machine
    calls: tuple[Call, ...]
    remark: str = ""

    def jobs(self) -> dict[str, Job]:
        """The jobs that leave results, by name, in order of their first appearance."""
        found: dict[str, Job] = {}
        for call in self.calls:
            for phase in call.phases:
                for job in (job for lane in phase.lanes for job in lane):
                    if KINDS[job.kind].leaves and job.kind != "wait":
                        found.setdefault(job.name, job)
        return found


class Model(NamedTuple):
    """A model as the bench measures it."""

    name: str  # timm's
    batch: int
    fields: tuple[str, ...] = ()
    size: int | None = None  # pixels; None: the model's own


class Place(NamedTuple):
    """Where a job runs: directories, whether tiny, and the Python that has torch and timm."""

    work: Path
    models: dict[str, Model]
    tiny: bool = False
    torch_python: str = sys.executable


class Command(NamedTuple):
    """What is started. `keep`: patterns of files below the work directory that are its results."""

    argv: tuple[str, ...]
    keep: tuple[str, ...] = ()
    stdin: str = ""  # a line; stdin stays open behind it


class Kind(NamedTuple):
    """How a kind of job becomes a command, and whether that leaves results."""

    command: Callable[[Job, Place], Command]
    leaves: bool = True


# What makes a model tiny, by the beginning of its name.
TINY = {
    "vit": ("depth=1", "embed_dim=32", "num_heads=2"),
    "deit": ("depth=1", "embed_dim=48", "num_heads=3"),
    "swin": ("depths=(2,)", "num_heads=(2,)", "embed_dim=16", "window_size=4"),
    "convnext": ("depths=(1,1,1,1)", "dims=(8,8,8,8)"),
    "resnet": ("layers=(1,1,1,1)", "channels=(8,8,8,8)"),  # as many stages as timm's expects
}
TINY_BATCH = 8  # of a bench and of timm's, so that what one has compiled the other finds
ON_ANY_MACHINE = {"attn_implementation=pallas": "attn_implementation=interpret"}
TINY_TRAINING = (
    "--config.dtype=float32", "--config.batch_size=16", "--config.num_epochs=2", "--config.eval_every_epochs=1",
    "--config.optim.schedule.warmup_epochs=0",
)  # fmt: skip
# of a training run; predictions are what the same bits are judged by
KEPT = ("summary.json", "metrics.jsonl", "config.json", "predictions.npz")
KEPT_MAE = ("pretrain/metrics.jsonl", "pretrain/reconstructions.png")
TINY_MAE = (
    "--config.pretrain.num_epochs=2",
    "--config.pretrain.batch_size=16",
    "--config.pretrain.decoder_embed_dim=32",
)


def tiny_fields(model: str) -> tuple[str, ...]:
    """What makes this model tiny."""
    return next(fields for family, fields in TINY.items() if model.startswith(family))


def bench(job: Job, place: Place) -> Command:
    """`main.py bench` of one model."""
    model = place.models[job.of]
    fields = [_portable(field) if place.tiny else field for field in model.fields]
    size, batch = model.size, model.batch
    timing = ("--dtype", "bfloat16", "--seconds", "1.5")
    if place.tiny:
        fields += tiny_fields(model.name)
        size, batch, timing = 32, TINY_BATCH, ("--dtype", "float32", "--seconds", "0.05", "--repeats", "2")
    argv = [sys.executable, "main.py", "bench", "--model", model.name, "--batch-size", str(batch), *timing]
    argv += [part for field in fields for part in ("--field", field)]
    argv += ["--image-size", str(size)] if size else []
    argv += ["--compare", "timm", "--no-torch-eager", "--torch-python", place.torch_python] if job.timm else []
    argv += job.words if "--compile-times" in job.words else ("--compile-times", "none", *job.words)
    return Command((*argv, "--json", str(place.work / f"{job.name}.json")), (f"{job.name}.json",))


def warm(job: Job, place: Place) -> Command:
    """Fills the cache of compiled programs with those of a bench."""
    python, _, _, *words = bench(job._replace(timm=False), place).argv
    return Command((python, "tools/gpu/compile.py", *words[:-2]))  # without --json


def warm_timm(job: Job, place: Place) -> Command:
    """Fills torch.compile's caches for models of MODELS, in the modes of `words`."""
    asked = []
    for name in job.of.split():
        model = place.models[name]
        given = tiny_fields(model.name) if place.tiny else ()
        pairs = (f.split("=", 1) for f in (*model.fields, *given) if not f.startswith("attn"))
        fields = {key: _value(value) for key, value in pairs}
        side, batch = (32, TINY_BATCH) if place.tiny else (model.size or 224, model.batch)
        common = {"name": model.name, "batch_size": batch, "image_size": [side, side], "fields": fields}
        dtype = "float32" if place.tiny else "bfloat16"
        asked += [{**common, "dtype": dtype, "mode": mode} for mode in job.words or ("train", "infer")]
    request = {"jobs": asked, "device": "cpu" if place.tiny else "cuda", "compile": True, "eager": False,
               "repeats": 1, "seconds": 0.05}  # fmt: skip
    return Command((place.torch_python, "jaxvit/bench/timm_side.py"), stdin=json.dumps(request) + "\n")


def profile(job: Job, place: Place) -> Command:
    """Where the time of a training step goes."""
    model = place.models[job.of]
    argv = [
        sys.executable,
        "tools/profile_step.py",
        "--model",
        model.name,
        "--json",
        str(place.work / f"{job.name}.json"),
    ]
    fields, size, batch = list(model.fields), model.size, model.batch
    if place.tiny:
        fields, size, batch = [*map(_portable, fields), *tiny_fields(model.name)], 32, TINY_BATCH
        argv += ["--dtype", "float32", "--steps", "2"]
    argv += ["--batch-size", str(batch), *(["--image-size", str(size)] if size else [])]
    return Command((*argv, *(part for field in fields for part in ("--field", field))), (f"{job.name}.json",))


def kernels(job: Job, place: Place) -> Command:
    """Whether Swin's kernel is right on the hardware."""
    words = ("--interpret", "--batch", "1", "--stages", "1") if place.tiny else job.words
    file = f"{job.name}.json"
    return Command((sys.executable, "tools/check_kernels.py", *words, "--json", str(place.work / file)), (file,))


def step_ratios(job: Job, place: Place) -> Command:
    """What a step costs by method."""
    words = ("--batch-size=2", "--repeats=1", "--image-size=32") if place.tiny else job.words
    argv = (sys.executable, "tools/measure_steps.py", job.of, "--out", str(place.work / job.name), *words)
    return Command(argv, (f"{job.name}/*.json",))


def train(job: Job, place: Place) -> Command:
    """A training run of a recipe of configs/."""
    data = f"--config.data.name=npz:{place.work / 'data' / job.data}"
    words = [_placed(word, place) for word in job.words]
    if place.tiny:
        words = [*_small(words), *_tiny_recipe(job.of, place)]
    argv = (
        sys.executable,
        "main.py",
        "--config",
        f"configs/{job.of}.py",
        "--workdir",
        str(place.work / "runs" / job.name),
    )
    kept = (*KEPT, *(KEPT_MAE if "mae" in job.of else ()))
    return Command((*argv, data, *words), tuple(f"runs/{job.name}/{file}" for file in kept))


def seeds(job: Job, place: Place) -> Command:
    """A speed run: seeds of a fast recipe, one after the other."""
    words = [*_small(job.words), *_tiny_recipe(job.of, place), "--seeds=2"] if place.tiny else job.words
    out = place.work / "runs" / job.name
    argv = (sys.executable, "tools/gpu/seeds.py", str(out), "--config", f"configs/{job.of}.py")
    data = ("--data", f"npz:{place.work / 'data' / job.data}")
    return Command((*argv, *data, *words), (f"runs/{job.name}/seeds.json", f"runs/{job.name}/seed*/metrics.jsonl"))


def study(job: Job, place: Place) -> Command:
    """Rows of a study, in a directory of their own."""
    home = f"runs/{job.name}"
    words = [*(w for w in job.words if not w.startswith("--config.")), "--smoke"] if place.tiny else job.words
    argv = (sys.executable, "main.py", "study", job.of, "--workdir", str(place.work / home), *words)
    brought = ("--data", f"npz:{place.work / 'data' / job.data}", "--checkpoints", str(place.work / "kit" / "weights"))
    files = ("study.json", *(f"*/seed*/{file}" for file in ("summary.json", "metrics.jsonl", "config.json")))
    return Command((*argv, *brought), tuple(f"{home}/{file}" for file in files))


def wait(job: Job, place: Place) -> Command:
    """Waits for a run that has outlived its call; fails where it is over without its last file."""
    done, pid = place.work / "runs" / job.name / job.of, place.work / f"{job.name}.pid"
    code = (
        "import os, time\n"
        f"process, done = '/proc/' + open({str(pid)!r}).read(), {str(done)!r}\n"
        "while not os.path.exists(done):\n"
        "    time.sleep(0.5)\n"
        "    if not os.path.exists(process) and not os.path.exists(done):\n"
        "        raise SystemExit('it has ended without its last file')\n"
    )
    return Command((sys.executable, "-c", code))


def teacher(job: Job, place: Place) -> Command:
    """The best weights of a run as files that come back and are brought along another time."""
    run, out = place.work / "runs" / job.of, place.work / "teacher"
    return Command((sys.executable, "tools/gpu/parts.py", "split", str(run), str(out)))


KINDS = {
    "bench": Kind(bench), "profile": Kind(profile), "kernels": Kind(kernels), "step_ratios": Kind(step_ratios),
    "train": Kind(train), "study": Kind(study), "seeds": Kind(seeds), "wait": Kind(wait),
    "warm": Kind(warm, leaves=False), "warm_timm": Kind(warm_timm, leaves=False),
    "warm_train": Kind(train, leaves=False), "warm_steps": Kind(step_ratios, leaves=False),
    "teacher": Kind(teacher, leaves=False),
}  # fmt: skip


def command(job: Job, place: Place) -> Command:
    """The command of a job."""
    return KINDS[job.kind].command(job, place)


def pattern(job: Job, place: Place) -> str:
    """What ends a job that only warms a cache, for as many epochs as a tiny run has."""
    return re.sub(r"/\d+", "/2", job.until) if place.tiny else job.until


def _portable(field: str) -> str:
    return ON_ANY_MACHINE.get(field, field)


def _value(text: str):
    if text.isdigit():
        return int(text)
    return [int(part) for part in re.findall(r"\d+", text)] if text.startswith("(") else text


def _placed(word: str, place: Place) -> str:
    """`WEIGHTS/` and `TEACHER` in a word stand for what was brought along."""
    kit = place.work / "kit"
    return word.replace("WEIGHTS/", f"{kit / 'weights'}/").replace("TEACHER", str(kit / "teacher"))


def _small(words) -> list[str]:
    """The words that a tiny run takes over: neither sizes nor weights."""
    sized = (
        "--config.dtype",
        "--config.pretrained",
        "--config.num_epochs",
        "--config.eval_every",
        "--config.steps_per_dispatch",
    )
    return [word for word in words if not word.startswith((*sized, "--seeds"))]


def _tiny_recipe(recipe: str, place: Place) -> list[str]:
    """The words that make a recipe tiny."""
    if not place.tiny:
        return []
    family = "deit" if "deit" in recipe else "vit" if "vit" in recipe else "resnet"
    words = [*TINY_TRAINING, *(f"--config.model.{field}" for field in TINY[family])]
    words += TINY_MAE if "mae" in recipe else ()
    return [*words, "--config.pretrained=None", "--config.data.image_size=32"] if family == "deit" else words
