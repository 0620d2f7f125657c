"""How fast photos become training batches here, stage by stage, and whether that is enough for a model."""

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvit import data
from jaxvit.data import crops
from jaxvit.errors import UserError

SAMPLE = 256  # photos that the stages are timed on
LEAST = 10_000  # photos of an epoch
ROUNDS = 3  # of all rates
ENOUGH = 0.95  # of the model's rate
OPTIONS = {
    "train_crop_mode": "rrc", "random_resized_crop": (0.08, 1.0), "crop_ratio": (3 / 4, 4 / 3),
    "train_interpolation": "random",
}  # fmt: skip


def photos_of(name: str) -> data.Split:
    """The training photos of a data set. Raises UserError where its images are arrays, which need no loader."""
    split = data.load_dataset(name).train
    if split.images is not None:
        raise UserError(f"{name} is read into memory once, so it needs no loader; expected photos, such as folder:PATH")
    return split


def make_crop(image_size: tuple[int, int], decoder: str) -> data.Crop:
    """The crop of timm's training transform: random area and aspect, bilinear or bicubic."""
    draw = crops.make_draw(OPTIONS, image_size, "bicubic")
    assert draw is not None
    return data.Crop(draw, image_size, 3, decoder)


def stages(split: data.Split, crop: data.Crop, batch_size: int) -> dict[str, float]:
    """Processor seconds per photo, in one thread: read, decode, crop, and copy to the device.

    Photos that come from within other files have no stage `read`: it is part of `decode`.
    """
    spent: dict[str, float] = {"read": 0.0, "decode": 0.0, "crop": 0.0, "copy": 0.0}
    chosen = np.linspace(0, len(split) - 1, min(SAMPLE, len(split))).astype(int)
    cut: list[np.ndarray] = []

    def clock(stage: str, work: Callable[[], Any]) -> Any:
        begun = time.thread_time()
        result = work()
        spent[stage] += time.thread_time() - begun
        return result

    for i in chosen:
        rng, file = crops.generator(0, 0, int(i)), None if split.file is None else split.file(int(i))
        if file is None:
            photo = clock("decode", lambda i=i: split.read(int(i)))
            cut.append(clock("crop", lambda rng=rng, photo=photo: crop(rng, photo)))
            continue
        if isinstance(file, Path):
            clock("read", file.read_bytes)  # and again when it is decoded, then from the system's cache
        decoded = clock("decode", lambda rng=rng, file=file: crop.decode(rng, file))
        cut.append(clock("crop", lambda decoded=decoded: crop.cut(*decoded)))
    batch = np.stack([cut[i % len(cut)] for i in range(batch_size)])
    begun = time.perf_counter()
    jax.block_until_ready(jax.device_put(batch))
    found = {stage: seconds / len(chosen) for stage, seconds in spent.items()}
    return {**found, "copy": (time.perf_counter() - begun) / batch_size}


def rate(
    split: data.Split, crop: data.Crop, batch_size: int, num_workers: int, seconds: float, *, processes: bool = False
) -> float:
    """Photos/s of the complete feed with these workers, for about `seconds`.

    An epoch has all photos again and again until it has LEAST: that of a few would be mostly its beginning and its end.
    """
    transform = data.make_transform(crop.shape[:2], crop.shape[2])
    feed = data.Streamed(split, transform, num_workers=num_workers, crop=crop, processes=processes)
    size = min(batch_size, len(split))

    def batches() -> Generator[Any, None, None]:
        for epoch in range(10**6):
            order = np.concatenate([data.epoch_order(i, epoch, len(split)) for i in range(-(-LEAST // len(split)))])
            yield from feed.batches(order, size, draws=data.Draws(0, epoch, np.arange(len(order))))

    stream = batches()
    jax.block_until_ready(next(stream))  # workers and buffers are there
    done, begun = 0, time.perf_counter()
    for batch in stream:
        jax.block_until_ready(batch)
        done += size
        if time.perf_counter() - begun > seconds:
            break
    stream.close()
    return done / (time.perf_counter() - begun)


def measure(
    name: str,
    image_size: tuple[int, int],
    batch_size: int,
    *,
    cores: int,
    seconds: float,
    decoder: str,
    say: Callable[[str], None],
    between: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """A row for a data set: stages, rates by the kind and number of workers, and the best of them per core.

    Each kind and number is measured ROUNDS times, in turn, and the best of them counts: other programs only slow down.
    `between` is called after each round with (batch size, seconds), for what is to be measured at the same times.
    """
    split, crop = photos_of(name), make_crop(image_size, decoder)
    say(f"{name}: stages of {min(SAMPLE, len(split))} photos")
    row: dict[str, Any] = {
        "mode": "loader", "data": name, "photos": len(split), "image_size": list(image_size), "decoder": decoder,
        "batch_size": min(batch_size, len(split)), "cores": cores, "seconds_per_photo": stages(split, crop, batch_size),
    }  # fmt: skip
    counts = {"threads": sorted({1, 2, cores, 2 * cores}), "processes": sorted({1, 2, cores})}
    if split.file is None:  # what a reader of its own decodes
        del counts["processes"]
    rates: dict[str, dict[int, float]] = {kind: dict.fromkeys(counts[kind], 0.0) for kind in counts}
    for i in range(ROUNDS):
        for kind, number in [(kind, number) for kind, numbers in counts.items() for number in numbers]:
            say(f"{name}: {number} {kind}, {i + 1} of {ROUNDS}")
            found = rate(split, crop, batch_size, number, seconds / ROUNDS, processes=kind == "processes")
            rates[kind][number] = max(rates[kind][number], found)
        if between is not None:
            between(row["batch_size"], seconds / ROUNDS)
    best = max(found for by_number in rates.values() for found in by_number.values())
    by = {f"by_{kind}": by_number for kind, by_number in rates.items()}
    return {**row, **by, "images_per_second": best, "per_core": best / cores}


def verdict(loader: float, model: float, cores: int) -> str:
    """Whether a loader feeds a model, both in photos/s, and how many cores would."""
    share = loader / model
    if share >= ENOUGH:
        faster = f": it reads {share:.1f} times as fast" if share > 1 else ""
        return f"the loader keeps up with the model{faster}"
    wanted = -(-model * cores // loader)
    return f"the loader reads at {share:.2g} of the model's rate; about {wanted:.0f} cores would keep up"
