"""The process that trains runs of a study: `python -m jaxvit.studies.worker JOBS.json`, started by `studies.conduct`.

A separate process returns its memory to the machine, and its end does not affect the study. It ends, after a
checkpoint, when the process that started it is gone.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from jaxvit.errors import UserError, is_out_of_memory
from jaxvit.runtime import allocator, escape, files, streams, verbosity

STOPPED_CODE = 75  # a run was interrupted and has saved its state


def main(argv: list[str]) -> int:
    """Runs the jobs of a file; each leaves its outcome in its own file."""
    allocator.keep_freed_memory()
    _watch_parent()
    jobs = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    verbosity.use(quiet="--quiet" in argv, verbose="--verbose" in argv)
    _quiet()
    from jaxvit.runtime import compile_cache

    compile_cache.use()
    for job in jobs:
        if verbosity.level > verbosity.QUIET:
            print(escape.terminal(job["heading"]), file=sys.stderr, flush=True)
        begun = time.monotonic()
        sys.argv = job["argv"]  # what summary.json records as the command
        outcome = run(job)
        outcome["seconds"] = time.monotonic() - begun
        _write(Path(job["outcome"]), outcome)
        if outcome["status"] != "done":
            said = f"{job['key']}: {outcome['status']}: {outcome['reason']}"
            print(escape.terminal(said), file=sys.stderr, flush=True)
        if outcome["status"] == "interrupted":
            return STOPPED_CODE
    return 0


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Trains one run and measures what the study asks for; returns {"status", "reason", ...}."""
    from jaxvit import config as config_lib
    from jaxvit.runtime.interrupt import Interrupted
    from jaxvit.train.loop import train_and_evaluate
    from jaxvit.train.progress import Diverged

    try:
        config = config_lib.from_mapping(job["config"])
        train_and_evaluate(config, job["workdir"])
        measured = throughput(job["workdir"]) if job["throughput"] else {}
        if job["neighbours"] is not None:
            measured |= nearest(job["workdir"], job["neighbours"])
        return {"status": "done", "reason": "", **measured}
    except Interrupted as stop:
        return {"status": "interrupted", "reason": str(stop)}
    except KeyboardInterrupt:
        return {"status": "interrupted", "reason": "stopped before the first checkpoint"}
    except Diverged as error:
        return {"status": "diverged", "reason": str(error)}
    except UserError as error:
        return {"status": "failed", "reason": " ".join(str(error).split()), "mistake": True}
    except Exception as error:
        said = escape.message(error)
        if is_out_of_memory(error):
            return {"status": "out of memory", "reason": said}
        (Path(job["workdir"]) / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return {"status": "failed", "reason": f"{type(error).__name__}: {said} (error.txt in the run's directory)"}


def throughput(workdir: str, seconds: float = 1.0) -> dict[str, Any]:
    """Test images per second of a run's best model, in its own batches, images already on the device."""
    import jax
    import jax.numpy as jnp

    from jaxvit import inference

    classifier = inference.from_run(workdir)
    assert classifier.config is not None
    size, words = int(classifier.config.batch_size), classifier.data_config
    images = jnp.zeros((size, *words["image_size"], words["in_channels"]), jnp.float32)
    apply = jax.jit(lambda variables, images: classifier.model.apply(variables, images).argmax(-1))
    apply(classifier.variables, images).block_until_ready()
    done, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds or done == 0:
        apply(classifier.variables, images).block_until_ready()
        done += size
    return {"test_images_per_second": done / (time.monotonic() - begun)}


def nearest(workdir: str, k: int) -> dict[str, Any]:
    """Test accuracy of the k nearest training images in the features of a run's best model.

    Raises:
      UserError: images of several labels, or fewer training images than neighbours.
    """
    from jaxvit import inference
    from jaxvit.inference import features, neighbours

    classifier = inference.from_run(workdir)
    images = features.open_images(classifier)
    train, labels = features.of_split(classifier, images, "train")
    test, truth = features.of_split(classifier, images, "test")
    return {"knn_accuracy": float((neighbours.knn(train, labels, test, k) == truth).mean())}


def _write(path: Path, outcome: dict[str, Any]) -> None:
    files.write(path, json.dumps(outcome).encode())


def _watch_parent() -> None:
    """Asks this process to stop when its standard input, a pipe that the parent holds, comes to its end."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _quiet() -> None:
    """Only our own lines on the terminal, as `jaxvit.cli` has it."""
    import logging
    import warnings

    for library in ("absl", "huggingface_hub", "jax", "matplotlib", "orbax", "tensorboardX"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.showwarning = lambda message, *_: print(f"warning: {escape.message(str(message), 1000)}", file=sys.stderr)


if __name__ == "__main__":
    try:
        with streams.guarded():
            code = main(sys.argv[1:])
    except KeyboardInterrupt:  # before a run had begun
        code = 130
    sys.exit(code)
