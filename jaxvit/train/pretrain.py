"""The first phase of a run where `pretrain.name` is set: its encoder learns from the training images without labels.

Its files lie in the run's `pretrain/`, its states in `checkpoints/pretrain/`. It leaves `model.safetensors` with a
`config.json`: weights that `pretrained=` takes, of this run and of others.
"""

import dataclasses
import io
import json
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import pretrained, tree
from jaxvit.build import parts, pretraining
from jaxvit.build.blueprint import Blueprint, draw
from jaxvit.build.pretraining import Pretraining
from jaxvit.config.default import Config
from jaxvit.models.layers import to_pair
from jaxvit.models.macs import count_macs
from jaxvit.runtime import compile_time, files, machine, multihost, sharding
from jaxvit.runtime.console import duration, err, warn
from jaxvit.runtime.interrupt import deferred
from jaxvit.step.reconstruction import painted, unpatchify
from jaxvit.step.state import TrainState, init_variables
from jaxvit.train.decisions import Rules
from jaxvit.train.epochs import check_data, check_fits, fit, resumed
from jaxvit.train.options import make_options
from jaxvit.train.prepare import Material, first_state
from jaxvit.train.progress import Progress
from jaxvit.train.run import Run
from jaxvit.workdir import resume, run_files, trackers
from jaxvit.workdir.checkpoint import Checkpoints

PICTURES = 8  # images that are reconstructed at the end
GREY = 0.5  # what a masked patch is shown as, in [0, 1]
DATA_WORDS = ("mean", "std", "crop_pct", "interpolation")


def conduct(config: Config, workdir: Path, material: Material, *, force: bool = False) -> pretrained.Loaded:
    """Pretrains, unless that is done already; returns the run's model with the weights that training starts from.

    Raises:
      UserError: the config describes no such phase, or the workdir holds another one.
      Interrupted: SIGINT or SIGTERM came; the state is saved.
      Diverged: the loss became NaN or infinite.
    """
    place = workdir / run_files.PRETRAIN
    facts, loaded = material.facts, material.loaded
    known = {} if loaded is None else {"model": loaded.model, "variables": loaded.variables}
    first = pretraining.outline(config, facts, model=known.get("model"))
    second = draw(config, facts, teacher=material.teacher, **known)  # says now what it would say in hours
    before = multihost.by_main(lambda: _finished(place))
    if before is not None:
        resume.check_data(workdir, second.words["data"]["name"], before["data"], material.dataset.fingerprint(), force)
    if force:
        check_fits(first.blueprint, workdir / "checkpoints" / run_files.PRETRAIN)
        check_fits(second, workdir / "checkpoints")
    multihost.by_main(lambda: resume.write_config(workdir, second.words, material.dataset.class_names, force))
    err.print(f"pretrain {first.describe()}")
    if before is None:
        _pretrain(first, second, workdir, material, force)
    else:
        err.print(f"         done before: loss {before['loss']:.4f} after {before['epochs']} epochs")
    complete = second.config
    found = pretrained.load(complete.model.name, place, seed=complete.seed, **parts.model_fields(complete))
    return dataclasses.replace(found, licence="")  # they are our own, not those that the name has


def _finished(place: Path) -> dict[str, Any] | None:
    """The summary of a phase that is over and whose files are as it wrote them, or None."""
    if not (place / "summary.json").exists():
        return None
    missing = [f"{name} is missing" for name in run_files.PRETRAIN_FILES if not (place / name).is_file()]
    said = [*missing, *run_files.damage(place).values()]
    if not run_files.sealed(place):
        said.append(f"{place / 'manifest.json'} is damaged or missing")
    for line in said:
        warn(f"{place}: {line}; it is created again")
    return None if said else run_files.read_json(place / "summary.json")


def _pretrain(first: Pretraining, second: Blueprint, workdir: Path, material: Material, force: bool) -> None:
    place = workdir / run_files.PRETRAIN
    multihost.by_main(lambda: place.mkdir(exist_ok=True))
    run, state = _prepare(first, workdir, material)
    b = run.blueprint
    rate = f"learning rate {b.config.optim.learning_rate:.3g}"
    macs = f"{first.macs() / count_macs(second.model, second.image_shape):.2f} of the model's MACs an image"
    err.print(f"         adamw, {rate}, {macs}, on {b.mesh.size} x {jax.devices()[0].device_kind}")
    try:
        run.checkpoints.verify()
        check_data(run, second.words["data"]["name"], force)
        with deferred() as run.flag:
            state, progress = resumed(run, state)
            words, step = _tracked(second, workdir), int(state.step)
            multihost.by_main(lambda: run.trackers.extend(trackers.make_trackers(place, step, words)))
            state, progress = fit(run, state, progress)
            run.checkpoints.wait()
            _finish(run, first, second, state, progress)
    finally:
        run.checkpoints.close()
        for tracker in run.trackers:
            tracker.close()


def _prepare(first: Pretraining, workdir: Path, material: Material) -> tuple[Run, TrainState]:
    """The phase as a run, and its state at step 0."""
    begun, blueprint, dataset = compile_time.seconds(), first.blueprint, material.dataset
    config = blueprint.config
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    drawn = jax.device_get(init_variables(blueprint.model, key, blueprint.image_shape))
    known = None if material.loaded is None else material.loaded.variables
    variables = pretraining.start(first, drawn, known)
    if config.dtype == "float64":
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    run = Run(
        blueprint=blueprint,
        workdir=workdir / run_files.PRETRAIN,
        dataset=dataset,
        feeds={"train": parts.make_feed(config, dataset.train, blueprint.placed, to_train=True)},
        checkpoints=Checkpoints(
            workdir / "checkpoints" / run_files.PRETRAIN,
            keep={"last": config.checkpoint.keep_last},
            keep_every_steps=config.checkpoint.keep_every_steps,
        ),
        options=make_options(config),
        rules=Rules(),
        origin={},
        begun=begun,
        pretrains=True,
    )
    return run, first_state(blueprint, jax.device_get(variables))


def _tracked(second: Blueprint, workdir: Path) -> dict[str, Any]:
    """The run's config under the name that the phase has in trackers."""
    words = json.loads(json.dumps(dict(second.words)))
    words["wandb"]["name"] = f"{words['wandb']['name'] or workdir.resolve().name} {run_files.PRETRAIN}"
    return words


def _finish(run: Run, first: Pretraining, second: Blueprint, state: TrainState, progress: Progress) -> None:
    """Writes what the phase leaves."""
    params = sharding.fetch(state.params)
    multihost.by_main(lambda: _write(run, first, second, params, progress))
    multihost.barrier("pretrained")


def _write(run: Run, first: Pretraining, second: Blueprint, params: Any, progress: Progress) -> None:
    place, config = run.workdir, second.config
    features = first.vit.clone(num_classes=0)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    drawn = jax.device_get(init_variables(features, key, second.image_shape))
    variables = pretraining.pretrained_variables(drawn, params["encoder"])
    words = {word: config.data[word] for word in DATA_WORDS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that timm has no name for a field does not matter here
        pretrained.save(features, variables, place, name=config.model.name, data_config=words, licence="")
    pictures = reconstructions(run, first, params)
    run_files.write_npz(place / "reconstructions.npz", **pictures)
    sheet = trackers.mosaic(
        np.concatenate([pictures[name] for name in ("image", "seen", "reconstruction")]),
        np.zeros(3 * len(pictures["image"]), bool),
        columns=len(pictures["image"]),
    )
    files.write(place / "reconstructions.png", _png(sheet))
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    loss = next(line["pretrain/loss"] for line in reversed(lines) if "pretrain/loss" in line)
    images = run.batches.total_steps * run.batches.size
    described = {
        "name": config.pretrain.name,
        "loss": loss,  # mean of the last epoch
        "epochs": progress.epoch,
        "steps": run.batches.total_steps,
        "batch_size": run.batches.size,
        "num_train": len(run.dataset.train),
        "mask_ratio": config.pretrain.mask_ratio,
        "patches": first.num_patches,
        "visible": first.visible,
        "encoder_parameters": tree.count(params["encoder"]),
        "decoder_parameters": tree.count(params["decoder"]),
        "gmacs": first.macs() / 1e9,
        "train_seconds": progress.seconds,
        "compile_seconds": run.compile_seconds,
        "images_per_second": images / max(progress.seconds, 1e-9),
        "skipped_steps": progress.skipped,
        "rollbacks": progress.rollbacks,
        "data": run.dataset.fingerprint(),
        "environment": machine.environment(),
    }
    run_files.write_json(place / "summary.json", described)
    run_files.seal(place, run_files.PRETRAIN_FILES)
    for tracker in run.trackers:
        tracker.image(run.batches.total_steps, "pretrain/reconstructions", sheet)
    rate = f"{described['images_per_second']:,.0f} images/s"
    err.print(f"pretrained for {duration(progress.seconds)}, {rate}, loss {loss:.4f}; the encoder is in {place}")


def reconstructions(run: Run, first: Pretraining, params: Any) -> dict[str, np.ndarray]:
    """A few images as the autoencoder sees and completes them: validation images, training ones where there are none.

    image, seen (masked patches grey), reconstruction: uint8 [n, h, w, c] each; masked bool [n, patches]; index int [n].
    """
    config, pixels, vit = run.blueprint.config, run.blueprint.pixels, first.vit
    model: Any = run.blueprint.model
    split = run.dataset.val if len(run.dataset.val) else run.dataset.train
    chosen = np.unique(np.linspace(0, len(split) - 1, PICTURES).astype(int))
    feed = parts.make_feed(config, split.take(chosen))
    batch = next(iter(feed.batches(np.arange(len(chosen)), len(chosen))))
    mean, std = (np.asarray(config.data[word], np.float32).reshape(1, 1, 1, -1) for word in ("mean", "std"))
    patch_size = to_pair(vit.patch_size)

    @jax.jit
    def paint(params: Any, stored: jax.Array) -> dict[str, jax.Array]:
        images = pixels.normalise(pixels.to_float(stored))
        key = jax.random.key(config.seed)
        predicted, masked = model.apply({"params": params}, images, rngs={"dropout": key})
        whole = painted(predicted, images, masked, patch_size, norm_pix=first.norm_pix)
        hidden = jnp.broadcast_to(masked[:, :, None], (*masked.shape, patch_size[0] * patch_size[1]))
        hidden = unpatchify(hidden, patch_size, vit.grid_size)
        shown = {"image": images * std + mean, "reconstruction": whole * std + mean}
        (h, w), seen = hidden.shape[1:3], shown["image"]
        shown["seen"] = seen.at[:, :h, :w].set(jnp.where(hidden, GREY, seen[:, :h, :w]))
        shown = {name: jnp.clip(jnp.rint(255 * x), 0, 255).astype(jnp.uint8) for name, x in shown.items()}
        return {**shown, "masked": masked}

    painted_images = jax.device_get(paint(params, batch["image"]))
    return {**painted_images, "index": split.index[chosen], "held_out": np.asarray(bool(len(run.dataset.val)))}


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def with_pretraining(config: Config, workdir: Path, material: Material, *, force: bool) -> Material:
    """What a run begins with: after its pretraining, where it has one."""
    if config.pretrain.name is None:
        return material
    return dataclasses.replace(material, loaded=conduct(config, workdir, material, force=force))
