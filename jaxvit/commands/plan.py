"""`plan`: compiles a training step for hardware that this machine does not have; estimates its memory and time."""

import importlib.util
import os
import signal
import subprocess
import sys
from typing import Any

from jaxvit.commands.parser import file_to_write, make_parser, positive
from jaxvit.errors import UserError
from jaxvit.runtime import compile_cache, interrupt

DESCRIPTION = """Compile the training step of a config for hardware that this machine does not have, and report
what it needs.

  %(prog)s --config FILE --topology v5e:4x4 [--config.OPTION=VALUE ...]

Pretraining and each size of `data.train_sizes` are compiled too.
Topologies: v4:4x4x4, v5e:4x4, v5p:4x4x4, v6e:4x4 and other shapes (the `tpu` extra has the compiler; no TPU is needed),
h100:1 to h200:8 (the `cuda` extra; no GPU is needed), and cpu:8 for virtual devices. Nothing is allocated, no data are
read. The exit code is 0 whether or not it fits."""

_CHILD = "JAXVIT_PLAN_PROCESS"
_QUIET = {"TPU_SKIP_MDS_QUERY": "1", "TPU_LOG_DIR": "disabled", "TPU_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3",
          "TF_CPP_MIN_LOG_LEVEL": "3", "TPU_ACCELERATOR_TYPE": "v5litepod-16",
          "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}  # fmt: skip


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = make_parser("plan", DESCRIPTION)
    parser.add_argument("--config", metavar="FILE", help="a config: .py (run as code), .yaml or .json (data)")
    parser.add_argument("--topology", metavar="SLICE", help="for example v5e:4x4, v5p:4x4x4, h200:1, cpu:8")
    parser.add_argument(
        "--num-classes", type=positive, metavar="N", help="number of classes, if the data set is not on this machine"
    )
    parser.add_argument(
        "--num-train",
        type=positive,
        metavar="N",
        help="number of training images, if the data set is not on this machine",
    )
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write all figures there")
    args, rest = parser.parse_with_overrides(argv)
    for option in ("config", "topology"):
        if getattr(args, option) is None:
            raise UserError(f"no --{option}; for example --config configs/digits_vit.py --topology v5e:4x4")
    from jaxvit.plan import chips, gpus

    topology = chips.parse(args.topology)
    if topology.is_gpu and not any(_has(name) for name in gpus.PLUGINS):
        raise UserError(
            "a plan for GPUs needs JAX's CUDA packages, which are not installed\n"
            "pip install 'jaxvit[cuda]', in a separate environment; no GPU is needed"
        )
    if not topology.is_cpu and not topology.is_gpu and not _has("libtpu"):
        raise UserError(
            "a plan for TPUs needs their compiler, which is not installed\n"
            "pip install 'jaxvit[tpu]', in a separate environment if this one has a GPU; cpu:8 needs nothing"
        )
    if os.environ.get(_CHILD) != "1":  # the backend is chosen once in a process
        return _in_a_process(argv, topology)
    return _plan(args, rest, topology)


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def _in_a_process(argv: list[str], topology: Any) -> int:
    flags = os.environ.get("XLA_FLAGS", "")
    if topology.is_cpu:
        flags = f"{flags} --xla_force_host_platform_device_count={topology.chips}"
    elif topology.is_gpu:
        from jaxvit.plan import gpus

        flags = f"{flags} {gpus.FLAGS}"
    environment = {**os.environ, **_QUIET, _CHILD: "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    program = f"import sys; sys.argv[0] = {sys.argv[0]!r}; from jaxvit.cli import main; sys.exit(main(sys.argv[1:]))"
    interrupt.something_to_save()  # a signal is passed on to the child
    child = subprocess.Popen([sys.executable, "-c", program, "plan", *argv], env=environment)
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())  # Ctrl-C comes to both by itself
    try:
        code = child.wait()
    except BaseException:
        child.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if code >= 0 else 128 - code


def _plan(args: Any, rest: list[str], topology: Any) -> int:
    from jaxvit import config as config_lib
    from jaxvit import models
    from jaxvit.build import checks
    from jaxvit.plan import estimate, facts, step
    from jaxvit.runtime import console, platform
    from jaxvit.workdir import run_files

    config = config_lib.load(args.config, rest, models.model_fields)
    checks.check(config)
    compile_cache.use()
    if config.dtype == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)
    with platform.made_for(topology.chip.platform):
        found = step.compile_steps(config, facts.find(config, args.num_classes, args.num_train), topology)
    plan = estimate.whole(found, topology)
    console.say("\n".join(estimate.lines(plan)))
    if args.json:
        run_files.write_json(args.json, plan)
    return 0
