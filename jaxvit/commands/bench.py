"""`bench`: how fast models train and predict here, compared with the hardware, timm and an earlier result."""

import argparse
import ast
import os
from typing import Any

from jaxvit.commands.parser import file_to_write, make_parser, positive, size
from jaxvit.errors import UserError
from jaxvit.runtime import compile_cache, interrupt

DESCRIPTION = """Measure training and inference of models on this machine, on synthetic images.

  %(prog)s --model vit_base_patch16_224 swin_tiny_patch4_window7_224 --dtype bfloat16
  %(prog)s --model resnet18 --field stem=cifar --image-size 32 --batch-size 512 --loop
  %(prog)s --model resnet18 --compare timm --torch-python venv/bin/python --json new.json
  %(prog)s --model resnet18 --baseline new.json
  %(prog)s --loader --data folder:PATH --model resnet18 --compare torch

Rates are medians of several repeats on one device; MFU is the share of the matmul rate measured here. Compilation is
timed with an empty cache (cold) and from that cache (warm). Memory is what the device reports, or what XLA plans.
--json is rewritten after each row ("complete" is false until the last one), so that a stopped run keeps its results."""


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code: 1 where a figure fell behind the baseline."""
    args = _parse(argv)
    if args.compare:  # JAX would take three quarters of a GPU, and timm needs memory too; read by the backend
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    compile_cache.use()
    import jax

    from jaxvit.bench import compare, report
    from jaxvit.bench.measure import Effort
    from jaxvit.runtime import console
    from jaxvit.runtime.console import err, warn, working
    from jaxvit.workdir import run_files

    if args.loader:
        return _loader(args)
    baseline = compare.read_baseline(args.baseline) if args.baseline else None
    wanted = _wanted(args)
    if args.compare:
        compare.check_timm(args.torch_python)
    effort = Effort(args.repeats, args.seconds, args.compile_times)
    modes = {"both": ("train", "infer"), "train": ("train",), "infer": ("infer",), "none": ()}[args.mode]
    found: dict[str, Any] = {"complete": False}

    def keep() -> None:
        if args.json and found.get("results"):
            run_files.write_json(args.json, found)

    interrupt.something_to_save()  # the rows that there are
    if jax.default_backend() == "cpu" and "bfloat16" in (s.dtype for s in wanted):
        warn("bfloat16 on a CPU says little about accelerators")
    try:
        with working("measuring") as status:

            def say(text: str) -> None:
                status.update(text)
                if not err.moves:
                    err.print(text)

            report.run(found, wanted, modes, args.batch_size, effort, say, keep)
            if args.loop:
                _add_loops(found, wanted, args, say, keep)
            if args.compare:
                _add_timm(found, args, say, keep)
            found["complete"] = True
    finally:  # what was measured before a model that does not fit, or before Ctrl-C, is kept
        keep()
        if found.get("results"):
            report.print_tables(found)
    worse: list[str] = []
    if baseline is not None:
        found["baseline"], worse = compare.regressions(found, baseline, args.tolerance)
        keep()
        compared = f"{len(found['baseline'])} figures compared, {len(worse)} worse by more than {args.tolerance:.0%}"
        console.say(f"against {args.baseline}: {compared}")
    for line in worse:
        warn(f"error: {line}")
    return 1 if worse else 0


def _loader(args: argparse.Namespace) -> int:
    """Measures the way of photos to the device, and the models that they would feed."""
    import jax

    from jaxvit.bench import compare, loader, report
    from jaxvit.bench.measure import Effort, measure
    from jaxvit.bench.subjects import make_subject
    from jaxvit.models.layers import to_pair
    from jaxvit.runtime import console
    from jaxvit.runtime.console import err
    from jaxvit.workdir import run_files

    environment = report.environment()
    cores, found = environment["cores"], {"environment": environment, "results": [], "complete": False}
    for settings in _wanted(args):
        subject = make_subject(settings)
        size, batch = to_pair(subject.image_shape[:2]), args.batch_size or 64
        timm: dict[str, Any] = {}

        def beside(batch: int, seconds: float, size: tuple[int, int] = size, timm: dict[str, Any] = timm) -> None:
            err.print("timm's loader")
            folder = args.data.partition(":")[2]
            split = next((d for d in ("train", "training") if os.path.isdir(os.path.join(folder, d))), "")
            answer = compare.loader_rates(args.torch_python, {
                "folder": os.path.abspath(os.path.join(folder, split)), "image_size": list(size),
                "batch_size": batch, "workers": sorted({1, cores}), "seconds": seconds, "least": loader.LEAST,
            })  # fmt: skip
            before = timm.get("by_workers", {})
            best = {n: max(rate, before.get(n, 0.0)) for n, rate in answer["by_workers"].items()}
            timm.update(answer, by_workers=best)

        row = loader.measure(
            args.data, size, batch, cores=cores, seconds=args.seconds, decoder=args.decoder, say=err.print,
            between=beside if args.compare else None,
        )  # fmt: skip
        err.print(f"{settings.name}: training, batch {batch}")
        own = measure(subject, "train", batch, Effort(args.repeats, args.seconds, "none"), None)
        model = own["images_per_second"]["median"]
        row |= {"model": settings.name, "dtype": settings.dtype, "model_images_per_second": model}
        row["verdict"] = loader.verdict(row["images_per_second"], model, cores)
        if args.compare:
            row["timm"] = timm
        found["results"].append(row)
        if args.json:
            run_files.write_json(args.json, found)
    found["complete"] = True
    if args.json:
        run_files.write_json(args.json, found)
    for row in found["results"]:
        times = {stage: f"{1e3 * seconds:.2f} ms" for stage, seconds in row["seconds_per_photo"].items()}
        h, w = row["image_size"]
        title = f"{row['data']}: {row['photos']:,} photos to {h}x{w}, {row['decoder']}, {cores} cores"
        console.table(title, ["", *times], [["time of one", *times.values()]], left=[""])
        kinds = [kind for kind in ("threads", "processes") if f"by_{kind}" in row]
        counts = sorted({n for kind in kinds for n in row[f"by_{kind}"]})
        rates = [[kind, *(f"{rate:,.0f}" if (rate := row[f"by_{kind}"].get(n)) else "" for n in counts)]
                 for kind in kinds]  # fmt: skip
        console.table("images/s by the number of workers", ["", *map(str, counts)], rates, left=[""])
        model = (
            f"{row['model']} trains on {row['model_images_per_second']:,.0f} images/s on {jax.devices()[0].device_kind}"
        )
        console.say(f"{model}; {row['verdict']}")
        if "timm" in row:
            best = max(row["timm"]["by_workers"].values())
            versions = row["timm"]["versions"]
            console.say(
                f"timm {versions['timm']}'s loader on the same cores: {best:,.0f} images/s; "
                f"jaxvit's feeds {row['images_per_second'] / best:.2f} times that"
            )
    return 0


def _add_timm(found: dict[str, Any], args: argparse.Namespace, say: Any, keep: Any) -> None:
    """Adds timm's rows and the ratios to them."""
    from jaxvit.bench import compare

    rows = [row for row in found["results"] if row["mode"] != "loop"]

    def done(versions: dict[str, Any], others: list[dict[str, Any]]) -> None:
        found["timm"] = {"versions": versions, "results": others, "ratios": compare.ratios(rows, others)}
        keep()

    done({}, [])
    given = {"repeats": args.repeats, "seconds": args.seconds, "say": say, "done": done}
    compare.timm_rows(
        rows,
        python=args.torch_python,
        compile_too=not args.no_torch_compile,
        eager_too=not args.no_torch_eager,
        **given,
    )


def _add_loops(found: dict[str, Any], wanted: list[Any], args: argparse.Namespace, say: Any, keep: Any) -> None:
    """Adds a row per model: the loop against its bare step, at the batch size of the training rows."""
    from jaxvit.bench.loop import measure_loop

    for settings in wanted:
        same = [
            row for row in found["results"]
            if (row["model"], row["dtype"], row["mode"]) == (settings.name, settings.dtype, "train")
        ]  # fmt: skip
        batch_size = args.batch_size or (same[0]["batch_size"] if same else None)
        if batch_size is None:
            raise UserError("--loop needs --batch-size, or --mode with train to find one")
        say(f"{settings.name} {settings.dtype}: training loop, batch {batch_size}")
        row = measure_loop(settings, batch_size, data_name=args.data, seconds=max(args.seconds, 2.0))
        shared = {"model": settings.name, "dtype": settings.dtype, "fields": dict(settings.fields)}
        found["results"].append({**shared, "image_size": settings.image_size, **row})
        keep()


def _wanted(args: argparse.Namespace) -> list[Any]:
    """The models to measure; mistakes in names and fields are found before anything is compiled."""
    from jaxvit import models
    from jaxvit.bench.subjects import DTYPES, Settings

    dtypes = tuple(DTYPES) if args.dtype == "both" else (args.dtype,)
    wanted = []
    for name in args.model:
        fields = {} if args.image_size is None else {"image_size": args.image_size}
        given: dict[str, Any] = dict(args.field)
        model: Any = models.create_model(name, **given, **fields)
        if not model.num_classes and "num_classes" not in given:
            given["num_classes"] = 1000  # weights of features alone, as DINO's; a training step needs a classifier
        wanted += [Settings(name, dtype, args.image_size, tuple(given.items())) for dtype in dtypes]
    return wanted


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not a field; expected NAME=VALUE, for example stem=cifar")
    if name in ("dtype", "image_size"):
        raise argparse.ArgumentTypeError(f"{name} has a separate option: --{name.replace('_', '-')}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; expected 0 to 1, for example 0.1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = make_parser("bench", DESCRIPTION)
    add = parser.add_argument
    add("--model", nargs="+", action="extend", metavar="NAME", help="timm names")
    add("--field", type=_field, action="append", default=[], metavar="NAME=VALUE", help="a field of the models")
    add("--mode", choices=("both", "train", "infer", "none"), default="both", help="default: both")
    add("--batch-size", type=positive, metavar="N", help="default: doubled while the rate rises and the batch fits")
    add("--dtype", choices=("float32", "bfloat16", "both"), default="float32", help="default: float32")
    add("--image-size", type=size, metavar="SIZE", help="224 or 192x256; default: the model's own")
    add("--repeats", type=positive, default=5, metavar="N", help="repeats of each rate; default 5")
    add("--seconds", type=_seconds, default=2.0, metavar="S", help="seconds for all repeats of a rate; default 2")
    add(
        "--compile-times",
        choices=("both", "cold", "none"),
        default="both",
        help="none: use the usual compilation cache",
    )
    add("--json", type=file_to_write, metavar="FILE", help="write all figures there")
    add("--compare", choices=("timm", "torch"), help="measure timm too, eager and compiled, in a separate process")
    add("--torch-python", metavar="PYTHON", help="the Python that has torch and timm; default: this one")
    add("--no-torch-compile", action="store_true", help="compare with eager timm only")
    add("--no-torch-eager", action="store_true", help="compare with compiled timm only")
    add(
        "--loop",
        action="store_true",
        help="compare the whole training loop, data included, with its training step alone",
    )
    add("--loader", action="store_true", help="measure how fast photos of --data become batches, by stage")
    add("--decoder", choices=("pillow", "opencv"), default="pillow", help="decoder of --loader; default: pillow")
    add("--data", metavar="NAME", help="data of --loop or --loader: cifar10, folder:PATH, ...; default: synthetic")
    add("--baseline", metavar="FILE", help="an earlier --json; exit code 1 if a result is worse")
    add(
        "--tolerance",
        type=_share,
        default=0.1,
        metavar="X",
        help="allowed loss compared with the baseline; default 0.1",
    )
    args = parser.parse_args(argv)
    if not args.model:
        raise UserError("no --model NAME; for example --model resnet18 vit_base_patch16_224")
    if args.data and not (args.loop or args.loader):
        raise UserError("--data needs --loop or --loader; without them the images are synthetic")
    if args.loader and (args.loop or args.baseline or args.mode != "both"):
        raise UserError("--loader measures only photos; it cannot be combined with --loop, --baseline or --mode")
    if args.loader and not args.data:
        raise UserError("--loader needs --data, such as folder:PATH")
    if args.loader and args.compare and not args.data.startswith("folder:"):
        raise UserError(f"--compare reads folder:PATH with timm's loader, not {args.data}")
    if args.no_torch_compile and args.no_torch_eager:
        raise UserError("--no-torch-compile and --no-torch-eager together leave nothing to compare")
    if args.torch_python and not args.compare:
        raise UserError("--torch-python needs --compare timm")
    return args
