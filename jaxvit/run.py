"""The parts of a run, built from its config: data, model, optimiser, compiled steps, checkpoints."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvit import data, optim, pretrained, setup, sharding, steps
from jaxvit.checkpoint import Checkpoints
from jaxvit.data.augment import make_augment
from jaxvit.errors import UserError
from jaxvit.state import TrainState, create_state, init_variables

DRY_RUN_STEPS = 2


@dataclasses.dataclass
class Run:
    """Everything of a run that does not change while it goes on."""

    config: ConfigDict  # resolved
    workdir: Path
    dataset: data.Dataset
    model: Any
    feeds: dict[str, Any]
    train_step: Callable
    eval_step: Callable
    checkpoints: Checkpoints
    batch_size: int
    eval_batch_size: int
    steps_per_epoch: int
    trainable: Any
    compile_seconds: float = 0.0


def prepare(given: ConfigDict, workdir: Path) -> tuple[Run, TrainState]:
    """Builds all parts of a run and its state at step 0."""
    dataset = setup.load_data(given, skipped_file=workdir / "skipped_files.txt")
    config = setup.resolve(given, dataset)
    model, variables = _make_model(config)
    setup.record_fields(config, model)
    if not len(dataset.train):
        raise UserError(f"{config.data.name} has no training images")

    batch_size = min(config.batch_size, len(dataset.train))
    batch_size -= batch_size % config.optim.accum_steps
    if batch_size < 1:
        raise UserError(f"{len(dataset.train)} training images are fewer than optim.accum_steps")
    num_devices = config.parallel.num_devices
    if num_devices is None:  # all that the batch divides over
        micro = batch_size // config.optim.accum_steps
        num_devices = max(n for n in range(1, jax.device_count() + 1) if micro % n == 0)
        config.parallel.num_devices = num_devices
    mesh = sharding.make_mesh(num_devices)
    sharding.check_batch_size(batch_size, config.optim.accum_steps, mesh)
    placed = sharding.batch_sharding(mesh) if mesh.size > 1 else None
    whole = sharding.replicated(mesh)

    steps_per_epoch = len(dataset.train) // batch_size
    if config.fast_dev_run:
        steps_per_epoch, config.num_epochs = min(steps_per_epoch, DRY_RUN_STEPS), 1
    trainable = optim.freeze_mask(variables["params"], config.optim.freeze)
    tx, schedule = _make_optimizer(config, variables["params"], trainable, steps_per_epoch)
    shared = {
        "model": model,
        "to_float": setup.make_to_float(config.model.in_channels),
        "normalise": setup.make_normalise(
            config.data.image_size, config.data.interpolation, config.data.mean, config.data.std
        ),
    }
    train_step = steps.make_train_step(
        **shared,
        tx=tx,
        schedule=schedule,
        augment=make_augment(config.augment.to_dict()),
        num_classes=config.model.num_classes,
        trainable=trainable,
        label_smoothing=config.loss.label_smoothing,
        accum_steps=config.optim.accum_steps,
        value_and_grad=_value_and_grad(config),
    )
    state = create_state(variables, tx, trainable, jax.random.key(config.seed))
    state = jax.device_put(jax.tree.map(jnp.copy, state), whole)
    eval_size = math.ceil(batch_size / mesh.size) * mesh.size
    run = Run(
        config=config,
        workdir=workdir,
        dataset=dataset,
        model=model,
        feeds={
            split.name: setup.make_feed(config, split, placed)
            for split in (dataset.train, dataset.val, dataset.test)
            if len(split)
        },
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=whole),
        eval_step=jax.jit(steps.make_eval_step(**shared), out_shardings=whole),
        checkpoints=Checkpoints(workdir / "checkpoints"),
        batch_size=batch_size,
        eval_batch_size=eval_size,
        steps_per_epoch=steps_per_epoch,
        trainable=trainable,
    )
    return run, state


def _make_model(config: ConfigDict) -> tuple[Any, Any]:
    if config.pretrained is None:
        model = setup.make_model(config)
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        return model, init_variables(model, key, (*config.data.image_size, config.model.in_channels))
    is_path = setup.pretrained_name(config.pretrained) is None
    name, checkpoint = (config.model.name, config.pretrained) if is_path else (config.pretrained, None)
    return pretrained.load_pretrained(name, checkpoint, seed=config.seed, **setup.model_fields(config))


def _make_optimizer(config: ConfigDict, params: Any, trainable: Any, steps_per_epoch: int) -> tuple[Any, Callable]:
    words = config.optim.schedule.to_dict()
    name = words.pop("name")
    # A short trial of a long recipe keeps the recipe's shape: the warm-up is never more than half of it.
    words["warmup_epochs"] = min(words["warmup_epochs"], config.num_epochs / 2)
    schedule = optim.make_schedule(
        name,
        learning_rate=config.optim.learning_rate,
        total_steps=steps_per_epoch * config.num_epochs,
        steps_per_epoch=steps_per_epoch,
        **{word: value for word, value in words.items() if value is not None},
    )
    shared = ("name", "weight_decay", "b1", "b2", "eps", "momentum", "nesterov", "grad_clip_norm", "layer_decay")
    tx = optim.make_optimizer(
        params,
        schedule=schedule,
        trainable=trainable,
        mu_dtype=config.optim.mu_dtype,
        **{word: config.optim[word] for word in shared},
    )
    return tx, schedule


def _value_and_grad(config: ConfigDict) -> Callable:
    sam = config.optim.sam
    if sam.rho == 0:
        return jax.value_and_grad
    return functools.partial(optim.sam_value_and_grad, rho=sam.rho, adaptive=sam.adaptive, eta=sam.eta)
