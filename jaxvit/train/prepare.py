"""From a blueprint to a run: data, weights and checkpoints of a run."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import data, models, pretrained
from jaxvit.build import batches, binary, class_balance, optimiser, parts, pretraining
from jaxvit.build.blueprint import Blueprint, draw
from jaxvit.build.facts import Facts, of_dataset
from jaxvit.build.phases import check_names, read_phases
from jaxvit.build.resolve import check_given, check_student, complete
from jaxvit.build.sizes import read_sizes, train_sizes
from jaxvit.build.teacher import Teacher, describe
from jaxvit.config.default import Config
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import compile_time, multihost, sharding
from jaxvit.runtime.console import err, working
from jaxvit.runtime.paths import expand
from jaxvit.step.state import TrainState, init_variables
from jaxvit.train import distill, leaks, micro_batch
from jaxvit.train.decisions import make_rules
from jaxvit.train.options import make_options
from jaxvit.train.run import Run
from jaxvit.workdir import resume
from jaxvit.workdir.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True)
class Material:
    """What a run reads before it begins: its data, the weights that it starts from, its teacher."""

    dataset: data.Dataset
    facts: Facts
    loaded: pretrained.Loaded | None
    teacher: Teacher | None


def gather(given: Config, workdir: Path, *, dataset: Any = None) -> Material:
    """Reads data, weights and teacher; `dataset` goes before the config's.

    Raises:
      UserError: the config asks for what is not there, or for what does not fit.
    """
    make_rules(given.early_stopping, given.optim.schedule)
    _check_without_data(given)
    skipped_file = workdir / "skipped_files.txt" if multihost.is_main() else None
    class_names = multihost.by_main(lambda: resume.class_names(workdir))
    with working(f"reading {given.data.name}"):
        dataset = parts.load_data(given, skipped_file, class_names, given=dataset)
    facts = of_dataset(dataset)
    config = complete(given, facts)
    _check_data(config, dataset)
    binary.check(config, facts)
    class_balance.check(config, facts, dataset.class_names)
    d = config.distill
    teacher = None if d.teacher is None else distill.load_teacher(d.teacher, d.model, list(dataset.class_names))
    with working("loading weights"):
        loaded = _load_weights(config, facts)
    if config.data.check is not None:
        deep = loaded if config.data.check == "leaks_deep" else None
        features = None if deep is None else functools.partial(_features, config, dataset, deep)
        dataset = leaks.check(config, dataset, workdir, features)
        facts = of_dataset(dataset)
    return Material(dataset, facts, loaded, teacher)


def prepare(
    given: Config,
    workdir: Path,
    *,
    schedule: Callable[[Any], Any] | None = None,
    dataset: Any = None,
    material: Material | None = None,
) -> tuple[Run, TrainState]:
    """Returns a run and its state at step 0; `schedule`, `dataset` and `material` go before the config's."""
    begun = compile_time.seconds()
    material = gather(given, workdir, dataset=dataset) if material is None else material
    dataset, facts, loaded, teacher = material.dataset, material.facts, material.loaded, material.teacher
    config = complete(given, facts)

    def drawn(pieces: int | None = None) -> Blueprint:
        known = {} if loaded is None else {"model": loaded.model, "variables": loaded.variables}
        return draw(given, facts, teacher=teacher, schedule=schedule, pieces=pieces, **known)

    blueprint = drawn()
    if loaded is None:
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        variables, origin = init_variables(blueprint.model, key, blueprint.image_shape), {}
    else:
        variables, file = loaded.variables, loaded.checkpoint
        origin = {"sha256": file.sha256, "licence": loaded.licence, "notes": list(loaded.notes)}
    if config.dtype == "float64":
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    variables = jax.device_get(variables)
    with working("preparing the images"):
        feeds = {
            split.name: parts.make_feed(
                blueprint.config, split, blueprint.placed, to_train=split.name == "train", sizes=blueprint.sizes
            )
            for split in (dataset.train, dataset.val, dataset.test)
            if len(split)
        }
    asked = None
    if teacher is not None:
        err.print(f"teacher {describe(teacher, blueprint.teacher_cached)}")
        if blueprint.teacher_cached:
            feeds["train"] = distill.teach(feeds["train"], teacher, blueprint.pixels.to_float)
        else:
            asked = sharding.put(teacher.variables, sharding.replicated(blueprint.mesh))
    if micro_batch.is_left_to_us(config):
        always = config.auto_micro_batch == "always"
        blueprint = micro_batch.fit(blueprint, drawn, lambda b: _largest(b, feeds["train"], asked), always=always)
    c = config.checkpoint
    run = Run(
        blueprint=blueprint,
        workdir=workdir,
        dataset=dataset,
        feeds=feeds,
        checkpoints=Checkpoints(
            workdir / "checkpoints",
            keep={"last": c.keep_last, "best": c.keep_best},
            keep_every_steps=c.keep_every_steps,
        ),
        options=make_options(blueprint.config),
        rules=make_rules(given.early_stopping, given.optim.schedule),
        origin=origin,
        teacher=asked,
        begun=begun,
        safe=config.pretrain.name is not None,
    )
    return run, first_state(blueprint, variables)


def _features(config: Config, dataset: data.Dataset, loaded: pretrained.Loaded) -> dict[str, np.ndarray]:
    return leaks.make_features(config, dataset, loaded.model, loaded.variables)


def first_state(blueprint: Blueprint, variables: Any) -> TrainState:
    """The state at step 0, in its place on the devices."""
    first = blueprint.phases[0]
    places = jax.tree.map(lambda x: x.sharding, first.template)

    def create(variables: Any) -> TrainState:  # each leaf its own buffer, as steps are given them for good
        return jax.tree.map(jnp.copy, first.create(variables))

    return jax.jit(create, out_shardings=places)(variables)


def _largest(blueprint: Blueprint, feed: Any, teacher: Any) -> tuple[Callable, tuple[Any, ...]]:
    """A program that will run, so that it is not compiled to be measured alone: of the phase that needs most."""
    phase, size, several = blueprint.largest, blueprint.batches.size, blueprint.batches.per_dispatch
    if several > 1:
        slots = feed.place(np.zeros((several, size), np.int32))
        return next(iter(phase.many_steps.values())), (phase.template, feed.arrays, slots, teacher)
    draws = data.Draws(0, phase.epoch, np.arange(size)) if blueprint.cropped else None  # crops of the phase's size
    batch = next(iter(feed.batches(np.arange(size), size, draws=draws)))
    return next(iter(phase.train_steps.values())), (phase.template, batch, teacher)


def _load_weights(config: Config, facts: Facts) -> pretrained.Loaded | None:
    """The weights that the config names; what can be told without them is checked before they are read."""
    if config.pretrained is None:
        return None
    size, pieces = batches.split_batch(config, facts.num_train)
    batches.make_mesh(config, size, pieces)
    optimiser.make_schedule(config, facts.num_train // size)
    optimiser.make_gradient(config, size)
    is_path = parts.pretrained_name(config.pretrained) is None
    name, checkpoint = (config.model.name, config.pretrained) if is_path else (config.pretrained, None)
    return pretrained.load(name, checkpoint, seed=config.seed, **parts.model_fields(config))


def _check_without_data(config: Config) -> None:
    """Raises UserError where the config asks for what cannot be or is not there, before data are read for it."""
    if config.dtype == "float64" and jnp.result_type(float) != jnp.float64:
        raise UserError("dtype=float64 needs jax.config.update('jax_enable_x64', True), which the command line calls")
    entries = read_phases(config.optim.freeze, config.optim.unfreeze, config.num_epochs)
    read_sizes(config.data.train_sizes, config.num_epochs)
    if config.data.image_size is not None:
        train_sizes(config)
    optimiser.make_gradient(config, batches.split_batch(config, config.batch_size)[0])
    if (count := config.parallel.num_devices) is not None:
        sharding.make_mesh(count, fsdp=config.parallel.fsdp, tensor=config.parallel.tensor)
    optimiser.check(config)
    model = check_names(config, entries)
    if model is not None and config.pretrain.name is not None:
        pretraining.make_autoencoder(config, model)

    def absent(value: str) -> bool:
        return (
            not pretrained.is_repository(value) and parts.pretrained_name(value) is None and not expand(value).exists()
        )

    start, teacher = config.pretrained, config.distill.teacher
    if start is not None and absent(start):
        near = suggest(start, models.list_models(pretrained=True))
        raise UserError(f"pretrained is {start!r}; expected an existing file or directory, or a timm name.{near}")
    if start is not None and parts.pretrained_name(start) is not None:
        models.data_config(start)  # refuses a tag that the model has not
    check_given(config)
    if teacher is not None:
        given = {k: v for k, v in config.model.items() if k != "name" and v is not None}
        check_student(config.distill.mode, {**models.model_fields(config.model.name), **given}, config.model.name)
    if teacher is not None and absent(teacher):
        raise UserError(
            f"distill.teacher {teacher!r} is not a run's workdir, a weight file or a model that `models` lists"
        )
    if config.distill.model is not None:
        models.model_fields(config.distill.model)


def _check_data(config: Config, dataset: data.Dataset) -> None:
    """Raises UserError where the config asks for what the data set does not have."""
    if not len(dataset.train):
        raise UserError(f"{config.data.name} has no training images")
    if not len(dataset.test):
        if dataset.train.groups is not None:
            few = f"groups of {len(dataset.train)} images leave none to test on; expected more groups"
        else:
            few = (
                f"{len(dataset.train)} images in as many classes leave none to test on; expected more images per class"
            )
        raise UserError(f"{config.data.name}: {few}.")
    needs = {
        "optim.schedule.name=plateau": config.optim.schedule.name == "plateau",
        "early_stopping.patience": config.early_stopping.patience is not None,
    }
    for word, on in needs.items():
        if on and not len(dataset.val):
            raise UserError(f"{word} needs validation images; {config.data.name} has none: set data.val_fraction")
