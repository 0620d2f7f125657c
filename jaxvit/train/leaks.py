"""Duplicates between the splits of a run, found before training: counted, listed, drawn, and left out on request."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit import data
from jaxvit.build import parts
from jaxvit.config.default import Config
from jaxvit.data import doubles
from jaxvit.data.doubles import Double
from jaxvit.errors import UserError
from jaxvit.explain import without_classifier
from jaxvit.runtime import escape, files, multihost
from jaxvit.runtime.console import bar
from jaxvit.workdir import run_files

RECORD, TABLE, PICTURE = "leaks.json", "leaks.csv", "leaks.png"
COLUMNS = ("kind", "similarity", "split", "image", "label", "other_split", "other_image", "other_label", "same_label")
SHOWN = 24  # pairs in the picture
MANY = 0.2  # share of a split with near duplicates above which the cause is not a leak
ACROSS = 4
SIDE = 112  # pixels of an image in it
KINDS = {"exact": "the same pixels", "near": "nearly the same", "embedding": "alike to the weights"}


def check(
    config: Config, dataset: data.Dataset, workdir: Path, features: Callable[[], dict[str, np.ndarray]] | None = None
) -> data.Dataset:
    """Returns the data set with what was found in its notes, without the training images that leak where asked for.

    Writes leaks.csv, leaks.png and leaks.json into `workdir`. A run that is resumed reads leaks.json in place of
    looking again. `features` gives those of a model by split, float [n, d], for `data.check=leaks_deep`.
    """
    seen = {"data": dataset.fingerprint(), "check": config.data.check}
    if features is not None:
        seen["weights"] = [config.model.name, config.pretrained]

    def look() -> dict[str, Any]:
        kept = _kept(workdir / RECORD)
        if {word: kept.get(word) for word in seen} == seen:
            return kept
        splits = {split.name: split for split in (dataset.train, dataset.val, dataset.test)}
        found = doubles.find(splits, features() if features is not None else None)
        write(workdir, dataset, found)
        record = {**seen, "counts": count(found), "lines": lines(dataset, found), "leaking": leaking(found)}
        run_files.write_json(workdir / RECORD, record)
        return record

    record = multihost.by_main(look)
    notes = [f"check: {line}" for line in record["lines"]]
    train, leaks = dataset.train, record["leaking"]
    if record["counts"]:
        notes.append(f"check: the pairs are listed in {workdir / TABLE} and shown in {workdir / PICTURE}")
    if leaks and config.data.drop_leaks:
        train = train.take(np.setdiff1d(np.arange(len(train)), np.asarray(leaks, np.int64)))
        lost = np.setdiff1d(_present(dataset.train), _present(train))
        if len(lost):
            raise UserError(
                f"data.drop_leaks would leave no training image of class {dataset.class_names[lost[0]]!r}\n"
                f"its images have duplicates in val or test, listed in {workdir / TABLE}"
            )
        notes.append(f"check: {len(leaks):,} training images with a duplicate in val or test are left out")
    elif leaks:
        notes.append(
            "check: training uses all of them; data.drop_leaks=True leaves out those with a duplicate in another split"
        )
    return dataclasses.replace(dataset, train=train, notes=[*dataset.notes, *notes])


def _present(split: data.Split) -> np.ndarray:
    return np.flatnonzero(split.labels.any(axis=0)) if split.labels.ndim == 2 else np.unique(split.labels)


def counts(workdir: Path) -> dict[str, Any]:
    """What `check` counted in a run's directory, {} where nothing was found."""
    return _kept(workdir / RECORD).get("counts", {})


def _kept(path: Path) -> dict[str, Any]:
    try:
        return run_files.read_json(path) if path.exists() else {}
    except UserError:  # damaged: looked for again
        return {}


def count(found: Sequence[Double]) -> dict[str, dict[str, int]]:
    """How many images of the first split have a duplicate in the second, by kind: {"test/train": {"near": 3}}."""
    counts: dict[str, dict[str, int]] = {}
    for d in found:
        kinds = counts.setdefault(f"{d.a}/{d.b}", {})
        kinds[d.kind] = kinds.get(d.kind, 0) + 1
    return counts


def lines(dataset: data.Dataset, found: Sequence[Double]) -> list[str]:
    """What was found, a line for each pair of splits."""
    splits = {split.name: split for split in (dataset.train, dataset.val, dataset.test)}
    out, shares = [], []
    for pair, kinds in count(found).items():
        a, b = pair.split("/")
        of_pair = [d for d in found if (d.a, d.b) == (a, b)]
        how = ", ".join(f"{n:,} {KINDS[kind]}" for kind, n in kinds.items())
        if a == b:
            out.append(f"{len(of_pair):,} pairs of training images look alike but have different labels ({how})")
            continue
        n, of = len(of_pair), len(splits[a])
        shares.append(kinds.get("near", 0) / of)
        other = sum(not _same_label(splits[a], d.i, splits[b], d.j) for d in of_pair)
        labels = f"; {other:,} of them with another label" if other else ""
        out.append(f"{n:,} of {of:,} {a} images ({n / of:.1%}) have a duplicate in {b}: {how}{labels}")
    if any(d.kind == "near" for d in found) and max(shares, default=0) > MANY:
        out.append("this many near duplicates are common for drawings and aligned scans; check the picture")
    return out or ["no image has a duplicate in another split, or in train with another label"]


def leaking(found: Sequence[Double]) -> list[int]:
    """Positions of the training images that have a duplicate in val or test, sorted."""
    return sorted({d.j for d in found if d.b == "train" and d.a != "train"})


def _same_label(a: data.Split, i: int, b: data.Split, j: int) -> bool:
    return bool(np.array_equal(a.labels[i], b.labels[j]))


def write(directory: Path, dataset: data.Dataset, found: Sequence[Double]) -> None:
    """Writes leaks.csv and leaks.png; where nothing was found, those of before are taken away."""
    if not found:
        for name in (TABLE, PICTURE):
            (directory / name).unlink(missing_ok=True)
        return
    splits = {split.name: split for split in (dataset.train, dataset.val, dataset.test)}
    rows = []
    for d in found:
        a, b = splits[d.a], splits[d.b]
        sides = [[s.name, str(s.image_names([k])[0]), _label(dataset, s, k)] for s, k in ((a, d.i), (b, d.j))]
        rows.append([d.kind, round(d.similarity, 4), *sides[0], *sides[1], _same_label(a, d.i, b, d.j)])
    files.write(directory / TABLE, escape.csv_bytes(COLUMNS, rows))
    files.write(directory / PICTURE, picture(dataset, splits, found))


def _label(dataset: data.Dataset, split: data.Split, i: int) -> str:
    label = split.labels[i]
    names = [dataset.class_names[int(label)]] if label.ndim == 0 else np.array(dataset.class_names)[label > 0]
    return ", ".join(map(str, names))


def picture(dataset: data.Dataset, splits: dict[str, data.Split], found: Sequence[Double]) -> bytes:
    """A PNG of some pairs, evenly over each kind and pair of splits, with names and labels under them."""
    from PIL import Image, ImageDraw

    shown = _some(found)
    across = min(ACROSS, len(shown))
    width, height = 2 * SIDE + 16, SIDE + 48
    sheet = Image.new("RGB", (across * width + 8, -(-len(shown) // across) * height + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for n, d in enumerate(shown):
        left, top = 8 + n % across * width, 8 + n // across * height
        for side, (name, k) in enumerate(((d.a, d.i), (d.b, d.j))):
            split, x = splits[name], left + side * (SIDE + 4)
            sheet.paste(_small(split.images[k] if split.images is not None else split.read(k)), (x, top))
            said = (f"{name}: {_label(dataset, split, k)}", str(split.image_names([k])[0])[-18:])
            for line, text in enumerate(said):
                text = escape.picture(text, 18).encode("latin-1", "replace").decode("latin-1")
                draw.text((x, top + SIDE + 2 + 12 * line), text, fill="black")
        draw.text((left, top + SIDE + 26), f"{KINDS[d.kind]} ({d.similarity:.3f})", fill="#b00000")
    buffer = io.BytesIO()
    sheet.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _some(found: Sequence[Double]) -> list[Double]:
    """At most SHOWN of them: as many of each kind and pair of splits."""
    kinds: dict[tuple[str, str, str], list[Double]] = {}
    for d in found:
        kinds.setdefault((d.a, d.b, d.kind), []).append(d)
    each = max(SHOWN // len(kinds), 1)
    few = [of[int(k)] for of in kinds.values() for k in np.unique(np.linspace(0, len(of) - 1, each).astype(int))]
    return few[:SHOWN]


def _small(image: Any) -> Any:
    from PIL import Image

    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST if max(image.size) < SIDE else None)


def make_features(config: Config, dataset: data.Dataset, model: Any, variables: Any) -> dict[str, np.ndarray]:
    """Pooled features of a model before its classifier, float32 [n, d] by split; `config` is a complete one."""
    import jax

    headless = without_classifier(model)
    d = config.data
    to_float = parts.make_to_float(config.model.in_channels)
    normalise = parts.make_normalise(tuple(d.image_size), d.interpolation, d.mean, d.std)
    apply = jax.jit(lambda variables, images: headless.apply(variables, normalise(to_float(images))))
    out = {}
    for split in (dataset.train, dataset.val, dataset.test):
        if not len(split):
            continue
        feed, found, size = parts.make_feed(config, split), [], min(config.batch_size, len(split))
        with bar(f"features of {split.name} images", len(split)) as meter:
            for batch in feed.batches(np.arange(len(split)), size, pad=True):
                found.append(np.asarray(apply(variables, batch["image"]), np.float32))
                meter.advance(size)
        out[split.name] = np.concatenate(found)[: len(split)]
    return out
