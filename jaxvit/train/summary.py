"""The output of a run: the lines before and after training, summary.json, the sample images."""

import datetime
import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL

from jaxvit import optim, tree
from jaxvit.build import class_balance, parts, sizes
from jaxvit.config import checks
from jaxvit.config.default import default
from jaxvit.config.words import flatten, to_dict
from jaxvit.data import opencv, streamed
from jaxvit.models.macs import count_macs
from jaxvit.models.registry import registered_family
from jaxvit.runtime import console, machine, sharding, streams, verbosity
from jaxvit.runtime.console import count, detail, duration, err, warn
from jaxvit.step.metrics import OWN
from jaxvit.step.multi_label import NAMES, worst
from jaxvit.step.state import TrainState
from jaxvit.train import leaks
from jaxvit.train.decisions import present
from jaxvit.train.progress import Progress
from jaxvit.train.run import Run
from jaxvit.workdir import resume, run_files

WEIGHTS = {"val": "raw", "val_ema": "average"}  # by the prefix of their validation metrics
OF_CLASSES = ("balanced_accuracy", "macro_f1")  # shown in the line of an epoch where they decide
NUM_SAMPLES = 32  # evenly over the test split
NUM_MISTAKES = 16  # the most confident ones
NUM_CONFUSIONS = 8  # the most frequent (true, predicted), two images of each


WAITS = 0.05  # of the time of an epoch; a wait for data of more is told


def print_wait(run: Run, share: float) -> None:
    """Says so where the steps of the first epoch waited for data for more than a twentieth of the time."""
    if share <= WAITS:
        return
    config, name = run.blueprint.config, run.blueprint.config.data.name
    cropped = parts.make_crop(config) is not None
    faster = {"data.decoder": "opencv", "augment.crop_from": "resized"} if cropped else {}
    left = [f"{word}={value}" for word, value in faster.items() if flatten(to_dict(config)).get(word) != value]
    cure = f"{' or '.join(left)} may be faster; " if left else ""
    err.print(
        f"the steps waited for data for {share:.0%} of the time; {cure}"
        f"bench --loader --data {name} --model {config.model.name} measures the loader"
    )


def print_header(run: Run, state: TrainState) -> None:
    """Prints the model, the data and the training that begins."""
    config, dataset = run.blueprint.config, run.dataset
    _print_details(config)
    h, w = config.data.image_size
    channels = config.model.in_channels
    for note in dataset.notes:
        err.print(f"data   {note}")
    counts = ", ".join(
        f"{len(split):,} {split.name}" for split in (dataset.train, dataset.val, dataset.test) if len(split)
    )
    facts, resident = run.blueprint.facts, run.blueprint.resident
    kinds = {"resident" if name in resident else "streamed" for name in facts.sizes()}
    err.print(
        f"data   {config.data.name}: {counts}; {len(dataset.class_names)} classes ({' and '.join(sorted(kinds))})"
    )
    if facts.shape is None and parts.make_crop(config) is not None:
        by = f"OpenCV {opencv.version()}" if config.data.decoder == "opencv" else f"Pillow {PIL.__version__}"
        mode = config.augment.train_crop_mode or "rrc"
        err.print(f"       training crops are cut from the original photos ({mode}) by {by}")
    if facts.shape is None and "train" not in resident:
        rows = run.batches.size // jax.process_count()
        err.print(f"       {streamed.describe(*parts.readers(config, dataset.train), (rows, h, w, channels))}")
    for line in [] if facts.several else class_balance.describe(config, facts, dataset.class_names):
        err.print(f"       {line}")
    macs = count_macs(run.blueprint.model, (h, w, channels))
    start = f"from {config.pretrained}" if config.pretrained else "from scratch"
    start = f"from its {config.pretrain.name} pretraining" if config.pretrain.name else start
    err.print(
        f"model  {config.model.name} {start}: {tree.count(state.params):,} parameters, "
        f"{count(macs, 'MACs')} at {h}x{w}x{channels}, {config.dtype}"
    )
    if run.origin:
        for note in run.origin["notes"]:
            err.print(f"       {note}")
        licence = f", licence {run.origin['licence']}" if run.origin["licence"] else ""
        err.print(f"       weights SHA-256 {run.origin['sha256'][:16]}...{licence}")
    err.print(f"       {optim.describe_trainable(state.params, run.phase.trainable)}")
    if optim.freezes_the_head_alone(
        run.blueprint.variables["params"], run.phase.trainable, family=registered_family(config.model.name)
    ):
        warn(f"       optim.freeze={config.optim.freeze} freezes the classifier alone; head_only trains it alone")
    devices = jax.devices()
    err.print(
        f"train  {config.num_epochs} epochs of {run.batches.steps_per_epoch} steps, batch {run.batches.size}, "
        f"{_method(config)}, on {config.parallel.num_devices} x {devices[0].device_kind}{_placement(config)}"
    )
    if config.data.train_sizes:
        b = run.blueprint
        err.print(f"sizes  {sizes.describe(b.model, b.sizes, config.num_epochs, (h, w))}")
    if run.batches.size != config.batch_size:
        warn(f"       batch_size {config.batch_size} is larger than the number of training images")
    warmup, most = config.optim.schedule.warmup_epochs, config.num_epochs / 2
    if warmup > most:  # see optimiser.make_schedule
        warn(f"       optim.schedule.warmup_epochs {warmup:g} is reduced to {most:g}, half of the training")
    for word, switch in checks.idle(config).items():
        warn(f"       {word} is ignored, because {switch} is off")
    for sentence in [] if config.fast_dev_run else _without_effect(run):
        warn(f"       {sentence}")


def _print_details(config: Any) -> None:
    """What --verbose adds to the header: the options that are not the defaults, and what computes the run."""
    if verbosity.level < verbosity.VERBOSE:
        return
    usual = flatten(to_dict(default()))
    for option, value in flatten(to_dict(config)).items():
        if value != usual.get(option):
            detail(f"option {option} = {value!r}")
    for name, value in machine.environment().items():
        detail(f"with   {name} {value}")


def print_epoch(
    run: Run, progress: Progress, train: Mapping[str, float], found: Mapping[str, Mapping[str, float]], better: bool
) -> None:
    """Prints the line of an epoch and the notes on it."""
    hit = run.blueprint.task.hit
    loss, right = (train.get(f"{run.prefix}/{name}", math.nan) for name in ("loss", hit))
    line = f"{run.what}epoch {progress.epoch}/{run.batches.num_epochs}  loss {loss:.3f}"
    line += f"  {_words(hit)} {right:.2%}" if hit else ""
    for prefix, metrics in found.items():
        shown = present("accuracy", metrics)
        line += f"  | {prefix} loss {metrics['loss']:.3f}  {shown} {metrics[shown]:.2%}"
        chosen = run.rules.metric
        line += f"  {_words(chosen)} {metrics[chosen]:.2%}" if chosen in OF_CLASSES and chosen in metrics else ""
        line += f"  {chosen} {metrics[chosen]:.4g}" if chosen in OWN and chosen in metrics else ""
    rate = run.batches.steps_per_epoch * run.batches.size * progress.epoch / max(progress.seconds, 1e-9)
    line += " *" if better and found else ""
    complete = f"{line}  {rate:,.0f} images/s"
    err.print(complete if err.fits(complete) else line)
    values = {**train, **{f"{prefix}/{name}": x for prefix, metrics in found.items() for name, x in metrics.items()}}
    detail("       " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
    lost = len(run.feeds["train"].unreadable)
    if lost > run.lost:
        warn(f"{lost} training images could not be read so far; training skips them")
        run.lost = lost
    if progress.stopped_early:
        err.print(f"stopped early: no improvement in {run.options.patience} evaluations")


def describe(run: Run, final: dict[str, Any], progress: Any) -> dict[str, Any]:
    """Returns the content of summary.json; times in seconds, accuracies as fractions, 1 GMAC = 2 GFLOP."""
    config = run.blueprint.config
    h, w = config.data.image_size
    whole = run.blueprint.variables["params"]
    trained = optim.split_trainable(whole, run.phase.trainable)[0]
    images = run.batches.steps_per_epoch * run.batches.size * progress.epoch
    pretrained = run.workdir / run_files.PRETRAIN / "summary.json"
    return {
        "model": config.model.name,
        "fast_dev_run": config.fast_dev_run,
        "pretrained": config.pretrained,
        "weights": run.origin or None,
        **({"pretrain": run_files.read_json(pretrained)} if pretrained.exists() else {}),
        "parameters": tree.count(whole),
        "trainable_parameters": tree.count(trained),
        "gmacs": count_macs(run.blueprint.model, (h, w, config.model.in_channels)) / 1e9,
        "image_size": [h, w],
        **({"train_sizes": run.blueprint.sizes} if config.data.train_sizes else {}),  # (first epoch, (h, w))
        "data": config.data.name,
        "num_train": len(run.dataset.train),
        "num_val": len(run.dataset.val),
        "num_test": len(run.dataset.test),
        "num_classes": len(run.dataset.class_names),
        "data_fingerprint": run.dataset.fingerprint(),
        **({"leaks": leaks.counts(run.workdir)} if config.data.check else {}),
        "train_of_each_class": list(run.blueprint.facts.class_counts or ()),
        "epochs": progress.epoch,
        "stopped_early": progress.stopped_early,
        "skipped_steps": progress.skipped,
        "rollbacks": progress.rollbacks,
        "batch_size": run.batches.size,
        "compile_seconds": run.compile_seconds,
        "train_seconds": progress.seconds,
        "seconds_per_epoch": progress.seconds / max(progress.epoch, 1),
        "images_per_second": images / max(progress.seconds, 1e-9),
        **machine.peak_memory(),
        "best": progress.best,
        "final": final,
        "environment": machine.environment(),
        **({"console_lost": streams.lost} if streams.lost else {}),  # its lines are in console.log
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write(run: Run, final: dict[str, Any], progress: Any) -> dict[str, Any]:
    """Writes and seals summary.json; returns its content."""
    described = describe(run, final, progress)
    run_files.write_json(run.workdir / "summary.json", described)
    run_files.seal(run.workdir, [name for name in resume.SEALED if (run.workdir / name).exists()])
    return described


def print_footer(workdir: Path, described: dict[str, Any], calibrated: str | None = None) -> None:
    """Prints the closing summary; `calibrated` is a line on the temperature."""
    final, best = described["final"], described["best"] or {}
    if verbosity.level == verbosity.QUIET:
        warn(result(workdir, described))
        return
    console.gap()
    err.print(
        f"{described['model']}: {described['parameters']:,} parameters, {count(1e9 * described['gmacs'], 'MACs')} "
        f"at {described['image_size'][0]}x{described['image_size'][1]}"
    )
    err.print(
        f"training   {duration(described['train_seconds'])} for {described['epochs']} epochs, "
        f"{duration(described['seconds_per_epoch'])} each, {described['images_per_second']:,.0f} images/s "
        f"(compilation: {duration(described['compile_seconds'])})"
    )
    if "val/loss" in best:
        chosen = decisive(best)
        shown = present("accuracy", chosen)
        named = "" if shown == "accuracy" else f"{shown} "
        err.print(f"validation {named}{chosen[shown]:.2%} at epoch {best['epoch']}, the best checkpoint")
    if calibrated:
        err.print(f"           {calibrated}")
    if "test/loss" not in final:
        err.print("test       not evaluated")
        return
    if "test/mAP" in final:
        _print_several(final, described)
        return
    top5 = f", top-5 {final['test/top5_accuracy']:.2%}" if described["num_classes"] > 5 else ""
    err.print(
        f"test       {final['test/accuracy']:.2%} over {described['num_test']:,} images, "
        f"loss {final['test/loss']:.4f}{top5}"
    )
    if "test/balanced_accuracy" in final:
        err.print(
            f"           balanced accuracy {final['test/balanced_accuracy']:.2%}, macro F1 {final['test/macro_f1']:.2%}"
        )
    if "test_raw/accuracy" in final:
        raw, average = (final[f"test_{kind}/accuracy"] for kind in ("raw", "average"))
        above = (
            f"; the figures above are those of the {final['weights']} weights of the best checkpoint"
            if "weights" in final
            else ""
        )
        err.print(f"           last weights: raw {raw:.2%}, average {average:.2%}{above}")
    if described["fast_dev_run"]:
        err.print("           a dry run of two steps and two batches: its figures mean nothing")
    err.print(f"files      {workdir}: config.json, summary.json, metrics.jsonl, predictions.npz, checkpoints, events")


def result(workdir: Path, described: Mapping[str, Any]) -> str:
    """The line that says how a run ended."""
    final = described["final"]
    name = next((name for name in ("mAP", "accuracy") if f"test/{name}" in final), None)
    if name is None:
        return f"{workdir}: trained for {described['epochs']} epochs, not tested"
    dry = " (a dry run: it means nothing)" if described["fast_dev_run"] else ""
    return f"{workdir}: test {name} {final[f'test/{name}']:.2%} over {described['num_test']:,} images{dry}"


def _print_several(final: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """The test figures of several labels per image."""
    figures = ", ".join(f"{_words(name)} {final[f'test/{name}']:.2%}" for name in NAMES[1:])
    err.print(f"test       {figures} over {described['num_test']:,} images, loss {final['test/loss']:.4f}")
    err.print("           F1 and exact match at the best thresholds on the validation split: thresholds.json")
    if described["fast_dev_run"]:
        err.print("           a dry run of two steps and two batches: its figures mean nothing")


def _words(name: str) -> str:
    return {"micro_f1": "micro F1", "macro_f1": "macro F1"}.get(name, name.replace("_", " "))


def _without_effect(run: Run) -> list[str]:
    """Sentences on the patience and marks that the training is too short for."""
    config, rules, schedule = run.blueprint.config, run.rules, run.blueprint.config.optim.schedule
    evaluations, total = (
        math.ceil(config.num_epochs / config.eval_every_epochs),
        run.batches.total_steps,
    )
    found = []
    # the first evaluation is the best so far, and nothing follows from the last
    if rules.early_stopping and rules.early_stopping.patience + 2 > evaluations:
        found.append(f"early_stopping.patience {rules.early_stopping.patience} is too long for")
    if rules.plateau and rules.plateau.patience + 3 > evaluations:
        found.append(f"optim.schedule.patience {rules.plateau.patience} is too long for")
    found = [f"{words} {evaluations} evaluations: it has no effect" for words in found]
    if config.ema.decay and config.ema.warmup is False and 1 / (1 - config.ema.decay) > total:
        horizon = f"ema.decay {config.ema.decay:g} averages over {1 / (1 - config.ema.decay):,.0f} steps"
        found.append(
            f"{horizon}, but training has {total:,}: the average stays near the initial weights; do not set ema.warmup"
        )
    if max(config.augment.mixup_alpha, config.augment.cutmix_alpha) and _images_mixed(run) == 1:
        found.append("augment.mixup_alpha and .cutmix_alpha have no effect: only one image is processed at a time")
    end = total if schedule.unit == "steps" else config.num_epochs
    late = [mark for mark in schedule.milestones or () if mark >= end]
    if late:
        found.append(f"optim.schedule.milestones {late} are not reached: training ends at {end}")
    if schedule.name in ("step", "exponential"):
        last = run.blueprint.schedule(total - 1)
        if last == np.float32(config.optim.learning_rate):
            found.append(f"the schedule {schedule.name!r} has no effect: training ends before its first reduction")
    return found


def _images_mixed(run: Run) -> int:
    """How many images are mixed with each other: the batch, or in a mapped step each device's part of it."""
    mapped = run.blueprint.config.parallel.mode == "pmap"
    return run.batches.size // run.blueprint.config.parallel.num_devices if mapped else run.batches.size


def _placement(config: Any) -> str:
    """What is unusual about where the run is computed."""
    p, processes = config.parallel, jax.process_count()
    words = [f"{axis} {p[axis]}" for axis in ("fsdp", "tensor") if p[axis] > 1]
    words += ["pmap"] if p.mode == "pmap" else []
    words += [f"{processes} processes"] if processes > 1 else []
    return f" ({', '.join(words)})" if words else ""


def _method(config: Any) -> str:
    """The optimiser and what is around it, in a few words."""
    sam, words = config.optim.sam, [config.optim.name]
    if sam.rho:
        words.append(f"{'a' if sam.adaptive else ''}{sam.method} (rho {sam.rho:g})")
    if config.ema.decay:
        words.append(f"average of the weights ({config.ema.decay:g})")
    if config.distill.teacher:
        words.append(f"{config.distill.mode} distillation")
    return " + ".join(words)


def decisive(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The validation metrics that choose, without their prefix: of the better of raw and averaged weights.

    Metrics without a word on it are of a run that chose by the average.
    """
    average = metrics.get("weights", "average") == "average" and "val_ema/loss" in metrics
    prefix = "val_ema/" if average else "val/"
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def sample_images(
    feed: Any, split: Any, positions: np.ndarray, logits: np.ndarray, size: int = 1
) -> dict[str, np.ndarray]:
    """Returns a few images of a split as the model's feed holds them: image uint8 [n, h, w, c], label, index, name.

    The first `fixed` of them lie evenly over the split and are the same for every run of these data; the others are
    mistakes that tell most.

    Args:
      feed: of the split.
      split: its labels and the places of its images in the data set.
      positions: of the readable images, int [m].
      logits: float [m, num_classes], theirs.
      size: a batch size that divides over the devices.
    """
    even = np.linspace(0, len(positions) - 1, min(NUM_SAMPLES, len(positions))).astype(int)
    telling = np.setdiff1d(telling_mistakes(logits, split.labels[positions]), even)
    chosen = positions[np.concatenate([even, telling])]
    batch = next(iter(feed.batches(chosen, -(-len(chosen) // size) * size, pad=True)))
    return {
        "image": sharding.fetch(batch["image"])[: len(chosen)],
        "label": split.labels[chosen],
        "index": split.index[chosen],
        "name": split.image_names(chosen),
        "fixed": np.asarray(len(even)),
    }


def telling_mistakes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions of the most confident mistakes and of examples of the most frequent confusions, int [k]."""
    if labels.ndim == 2:
        loss = worst(logits, labels).mean(axis=1)
        order = np.argsort(-loss, kind="stable")[:NUM_MISTAKES]
        return np.unique(order[loss[order] > np.log(2)])  # worse than a coin
    said = logits.argmax(axis=-1)
    wrong = np.flatnonzero(said != labels)
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    doubt = np.exp(shifted).sum(axis=-1)  # 1 / the probability of what was said
    chosen = list(wrong[np.argsort(doubt[wrong], kind="stable")][:NUM_MISTAKES])
    kinds, counts = np.unique(labels[wrong].astype(np.int64) * logits.shape[-1] + said[wrong], return_counts=True)
    for kind in kinds[np.argsort(-counts, kind="stable")][:NUM_CONFUSIONS]:
        true, predicted = divmod(int(kind), logits.shape[-1])
        chosen += list(wrong[(labels[wrong] == true) & (said[wrong] == predicted)][:2])
    return np.unique(np.asarray(chosen, np.int64))
