"""`export`: a model in one file that runs without this package, checked by a new process before it is kept."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvit import plugins
from jaxvit.commands import export_onnx
from jaxvit.commands.parser import add_target, add_temperature, add_weights, check_target, make_parser
from jaxvit.errors import RunError, UserError
from jaxvit.runtime import compile_cache

if TYPE_CHECKING:
    from jaxvit.commands.source import Source

PLATFORMS = ("cpu", "cuda", "tpu")
BATCHES = (1, 3)  # two sizes show that the batch is free
TOLERANCE = 1e-5  # of the largest logit
LIMIT = 2_000_000_000  # bytes of weights in one StableHLO file, whose format counts with 32 bits
BESIDE = ("preprocessing.json", "classes.json")
FILES = {
    "stablehlo": ("model.stablehlo", *BESIDE),
    "onnx": (export_onnx.WHOLE, export_onnx.INT8, *BESIDE),
    "safetensors": ("model.safetensors", "config.json", *BESIDE),
}
# What a new process does with the files: (directory, arrays in, arrays out). The first needs only jax.
RELOAD = {
    "stablehlo": """
import pathlib, sys, jax, numpy as np
directory, given, made = sys.argv[1:]
run = jax.jit(jax.export.deserialize(bytearray((pathlib.Path(directory) / "model.stablehlo").read_bytes())).call)
""",
    "onnx": export_onnx.RELOAD,
    "safetensors": """
import sys, jax, jaxvit, numpy as np
directory, given, made = sys.argv[1:]
model, variables = jaxvit.load_pretrained(None, directory)
run = jax.jit(lambda images: model.apply(variables, images))
""",
}
CALL = """
with np.load(given, allow_pickle=False) as images:
    np.savez(made, **{name: np.asarray(run(images[name])) for name in images.files})
"""
DESCRIPTION = """Write a trained model for use elsewhere, with its preprocessing and class names as JSON next to it.

  stablehlo     one file for jax.export, weights inside, any batch size, CPU, CUDA and TPU; needs only jax
  onnx          one file, uint8 images in, any batch size, for onnxruntime and others; pip install 'jaxvit[onnx]'
  safetensors   model.safetensors and config.json, for timm and jaxvit

The files are loaded by a new process, which must give the model's own numbers, before they are put in place."""


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code: 1 where the files give other numbers than the model."""
    parser = make_parser("export", DESCRIPTION)
    parser.add_argument("--format", choices=tuple(FILES), default="stablehlo", help="default: stablehlo")
    parser.add_argument("--workdir", metavar="DIR", help="a run: its best checkpoint")
    parser.add_argument("--model", metavar="NAME", help="or a timm name, or hf_hub:user/name@revision")
    parser.add_argument("--checkpoint", metavar="FILE", help="its weights: a file or a directory; default: the hub")
    add_weights(parser)
    add_temperature(parser)
    add_target(parser)
    export_onnx.add_options(parser)
    args = parser.parse_args(argv)
    from jaxvit.commands import source

    source.check_choice(args.workdir, args.model, args.checkpoint, "--workdir")
    target = check_target(args, FILES[args.format])
    export_onnx.check_options(args)
    compile_cache.use()
    if args.workdir is not None:
        source.check_bare(args.workdir, [args.model, args.checkpoint, args.weights])
        given = source.from_run(args.workdir, args.temperature)
    else:
        given = source.from_file(args.model, args.checkpoint, args.temperature, weights=args.weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target if target.is_dir() else target.parent  # on the same file system, where files can be moved
    with tempfile.TemporaryDirectory(prefix=".export-", dir=beside) as name:
        draft = Path(name) / "files"
        draft.mkdir()
        write(given, args.format, draft, args.opset)
        found = export_onnx.samples(given, args) if args.format == "onnx" else None
        inputs = export_onnx.batches(given, found) if found is not None else None
        differences, outputs = check(given, args.format, draft, inputs)
        worst = max(differences.values())
        if not worst <= TOLERANCE:
            print(
                f"error: a new process gets different numbers from the files: largest difference {worst:.1e} of the "
                f"largest output, allowed {TOLERANCE:.0e}; nothing was written",
                file=sys.stderr,
            )
            return 1
        notes = [] if found is None else export_onnx.check_classes(args, found, outputs)
        if args.quantize:
            notes += export_onnx.quantize(given, args, draft)
        target.mkdir(exist_ok=True)
        for file in FILES[args.format]:  # --force: none of the last export's is to lie beside the new ones
            if not (draft / file).exists():
                (target / file).unlink(missing_ok=True)
        for file in sorted(draft.iterdir()):
            os.replace(file, target / file.name)
    checked = ", ".join(f"batch {n}: {difference:.1e}" for n, difference in differences.items())
    files = [file for file in FILES[args.format] if (target / file).exists()]
    of = f" on {found.what}" if found is not None else ""
    checked = f"by a new process{of}, largest difference over largest output: {checked}"
    source.say([*source.describe(given), *source.written(target, files), ("checked", checked), *notes])
    return 0


def write(given: "Source", form: str, directory: Path, opset: int | None = None) -> None:
    """Writes the model, `preprocessing.json` and, where the classes have names, `classes.json`."""
    from jaxvit.commands import source

    words = {name: value for name, value in given.data_config.items() if name != "num_classes"}
    height, width = words["image_size"]
    shape = ["batch", height, width, given.model.in_channels]
    values = "pixels in [0, 1], less mean, over std"
    words |= {"model": given.name, "input": {"shape": shape, "dtype": "float32", "values": values}}
    words["output"] = "logits" if given.model.num_classes else "features"
    if given.thresholds is not None:
        words["probabilities"] = "sigmoid of each logit; a class is predicted if it reaches its threshold"
        words["thresholds"] = given.thresholds.tolist()
    if given.temperature != 1:
        words["temperature"] = given.temperature  # the logits are divided by it already
    if form == "stablehlo":
        (directory / "model.stablehlo").write_bytes(to_stablehlo(given.model, given.variables))
    elif form == "onnx":
        words["input"] |= {"dtype": "uint8", "values": "pixels; / 255, less mean, over std is inside"}
        export_onnx.write(given, words, directory, opset)
    else:
        source.write_safetensors(given, directory)
    (directory / "preprocessing.json").write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
    if given.class_names is not None:
        (directory / "classes.json").write_text(json.dumps(given.class_names, indent=0) + "\n", encoding="utf-8")


def to_stablehlo(model: Any, variables: Any) -> bytes:
    """Returns images [b, h, w, c] float32 -> logits float32 with a free b, for all of PLATFORMS, weights inside."""
    import jax
    import jax.numpy as jnp

    from jaxvit.models.layers import to_pair

    need = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables))
    if need > LIMIT:
        raise UserError(
            f"the weights take {need:,} bytes, a StableHLO file at most {LIMIT:,}; use --format safetensors"
        )
    model = portable(model)
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *to_pair(model.image_size), model.in_channels), jnp.float32)
    function = jax.jit(lambda images: model.apply(variables, images))
    exported = jax.export.export(function, platforms=PLATFORMS)(images)
    try:
        return bytes(exported.serialize())
    except ImportError:
        raise UserError("writing StableHLO needs flatbuffers: pip install flatbuffers") from None


def portable(model: Any) -> Any:
    """The model computing in float32, with no kernel that only one platform has."""
    from jaxvit.models.macs import by_formula

    model = by_formula(model)
    return model.clone(dtype=None) if hasattr(model, "dtype") else model


def check(
    given: "Source", form: str, directory: Path, inputs: dict[int, tuple[Any, Any]] | None = None
) -> tuple[dict[int, float], Any]:
    """Compares the model with what a new process computes from the files, both on the CPU.

    `inputs`: by batch size, what the file reads and what the model reads; drawn numbers where there is none.

    Returns, by batch size, the largest difference over the largest output, and what the file says of all images.
    """
    import jax
    import numpy as np

    from jaxvit.models.layers import to_pair

    model = portable(given.model)
    shape = (*to_pair(model.image_size), model.in_channels)
    if inputs is None:
        rng = np.random.default_rng(0)
        drawn = [rng.standard_normal((n, *shape), dtype=np.float32) for n in BATCHES]
        inputs = {len(batch): (batch, batch) for batch in drawn}
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise UserError("the comparison runs on the CPU, which JAX_PLATFORMS leaves out; add cpu to it") from None
    with jax.default_device(cpu):
        variables = jax.tree.map(np.asarray, given.variables)
        wanted = {n: np.asarray(jax.jit(model.apply)(variables, batch)) for n, (_, batch) in inputs.items()}
    if not all(np.isfinite(array).all() for array in wanted.values()):
        raise UserError(
            "the model's outputs are not finite numbers, so nothing can be compared; are its weights damaged?"
        )
    if not any(array.any() for array in wanted.values()):
        warnings.warn(
            "the model's outputs are all zero (a fresh classifier?), so comparing them shows little", stacklevel=2
        )
    own = plugins.modules_of([("model", given.name)]) if form == "safetensors" else ()  # the others need no class
    made = _reload(form, directory, {n: batch for n, (batch, _) in inputs.items()}, own)
    worst = {n: float(np.abs(made[n] - wanted[n]).max() / (np.abs(wanted[n]).max() or 1)) for n in wanted}
    return worst, np.concatenate(list(made.values()))


def _reload(form: str, directory: Path, images: dict[int, Any], modules: tuple[str, ...] = ()) -> dict[int, Any]:
    import numpy as np

    given, made = directory.parent / "given.npz", directory.parent / "made.npz"
    np.savez(given, **{str(n): array for n, array in images.items()})
    # The package may have been found through the current directory alone.
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, places))}
    code = f"from jaxvit import plugins\nplugins.use({modules!r})\n" if modules else ""
    command = [sys.executable, "-c", code + RELOAD[form] + CALL, str(directory), str(given), str(made)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"a new process cannot run the exported files: {last}")
    with np.load(made, allow_pickle=False) as arrays:
        return {n: arrays[str(n)] for n in images}
