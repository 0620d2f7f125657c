"""The whole training loop, data and metrics included, compared with its step alone: the difference is overhead."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit.bench.clock import timed
from jaxvit.bench.subjects import DTYPES, Settings
from jaxvit.errors import UserError
from jaxvit.runtime import packages
from jaxvit.workdir import run_files

CLASSES = 10


def measure_loop(
    settings: Settings, batch_size: int, *, data_name: str | None = None, seconds: float = 4.0, augment: bool = True
) -> dict[str, Any]:
    """Trains for an epoch and times the step alone of the same run; returns rates and the gap between them.

    Args:
      settings: the model.
      batch_size: images a step.
      data_name: a data set of `config.data.name`; None writes synthetic images, enough for `seconds`.
      seconds: about what one epoch takes.
      augment: flips and crops inside the step.

    Raises:
      UserError: a package of the trainer is missing, or the data do not fit.
    """
    try:
        import orbax.checkpoint  # noqa: F401
        import tensorboardX  # noqa: F401

        from jaxvit import config as config_lib
        from jaxvit.build import batches
        from jaxvit.train.loop import train_and_evaluate
        from jaxvit.train.prepare import prepare
    except ModuleNotFoundError as error:
        lacking = packages.missing(error)
        if lacking is None:
            raise
        raise UserError(f"--loop needs the whole trainer; {lacking}") from None

    with tempfile.TemporaryDirectory(prefix="jaxvit-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        config = config_lib.default()
        config.model.name, config.dtype, config.batch_size = settings.name, settings.dtype, batch_size
        with config.unlocked():
            config.model.update(dict(settings.fields))
        config.augment.flip = augment
        config.augment.crop_padding = 4 if augment else 0
        config.num_epochs, config.parallel.num_devices = 1, 1
        config.data.val_fraction = 0.0
        config.data.image_size = settings.image_size
        config.data.name = data_name or write_images(directory / "data", batch_size, 2, settings)
        config.fast_dev_run = True
        run, state = prepare(config, directory / "probe")
        batch = next(iter(run.feeds["train"].batches(np.arange(batch_size), batch_size)))
        step = run.phase.train_steps[False]
        bare, state = timed(lambda s: step(s, batch, None)[0], state, repeats=5, seconds=seconds)
        run.checkpoints.close()
        config.fast_dev_run = False
        steps, blueprint = max(8, round(seconds / bare.median)), run.blueprint
        many = batches.steps_per_dispatch(
            None,
            steps,
            able="train" in blueprint.resident,
            dry_run=False,
            flops=lambda: batches.flops_per_step(blueprint.model, blueprint.image_shape, batch_size, sharp=False),
        )
        if data_name is None:
            steps = -(-steps // many) * many
            config.data.name = write_images(directory / "more", batch_size, steps, settings)
        train_and_evaluate(config, directory / "run")
        done = run_files.read_json(directory / "run" / "summary.json")
    # The first dispatch compiles and is in no time.
    loop = (done["final"]["step"] - many) * batch_size / done["train_seconds"]
    return {
        "mode": "loop",
        "batch_size": batch_size,
        "images_per_second": {"median": loop, "least": loop, "most": loop},
        "step_images_per_second": bare.rate(batch_size),
        "steps": done["final"]["step"],
        "steps_per_dispatch": many,
        "gap": 1 - loop * bare.median / batch_size,
        "data": data_name or "synthetic",
    }


def write_images(directory: Path, batch_size: int, steps: int, settings: Settings) -> str:
    """Writes enough synthetic images for `steps` steps; returns their name for `config.data.name`."""
    from jaxvit import models
    from jaxvit.models.layers import to_pair

    fields = dict(settings.fields)
    model: Any = models.create_model(settings.name, dtype=DTYPES[settings.dtype], **fields)
    size = to_pair(settings.image_size or model.image_size)
    rng = np.random.default_rng(0)
    directory.mkdir(parents=True)
    classes = min(CLASSES, batch_size * steps)  # each has a training image
    for split, n in (("train", batch_size * steps), ("test", classes)):
        images = rng.integers(0, 256, (n, *size, model.in_channels), dtype=np.uint8)
        np.savez(directory / f"{split}.npz", image=images, label=np.arange(n, dtype=np.int32) % classes)
    return f"npz:{directory}"
