"""Predictions on image files."""

import glob
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxvit import data
from jaxvit.data import files, formats
from jaxvit.errors import UserError
from jaxvit.inference.batches import filled
from jaxvit.inference.classifier import Classifier
from jaxvit.runtime import escape
from jaxvit.runtime.console import bar, warn
from jaxvit.runtime.late import fetched
from jaxvit.runtime.paths import expand, near

SHOWN = 20  # unreadable files that are listed by name


def find_images(paths: Sequence[str]) -> list[Path]:
    """Returns the files named, and the images in the folders named, without hidden ones; UserError where none is."""
    found: list[Path] = []
    for text in paths:
        path = expand(text)
        if path.is_dir():
            inside = files.image_files(path)
            if not inside:
                raise UserError(f"no images in folder {text!r}; expected {formats.read_formats()} files")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no file {text!r}.{_hint(text, path)}")
    return found


def _hint(text: str, path: Path) -> str:
    """Advice for a name that is not a file."""
    if text == "-" or str(path).startswith("/dev/"):
        return " Images are read from files, not from standard input."
    if "://" in text:
        return " An address is not read: download the image first, and name its file."
    if glob.has_magic(text):
        return " A pattern is expanded by the shell, where it is not quoted and a file fits it."
    return near(path)


def read_images(paths: Sequence[Path], bad: list[tuple[str, str]]) -> Iterator[tuple[Path, Image.Image]]:
    """Yields (path, image) of the files that can be read; the others are added to `bad` as (path, why).

    Raises UserError at the end where none of them can be read.
    """
    before, said = len(bad), ""
    for path in paths:
        try:
            yield path, data.open_image(path)
        except UserError as error:
            said = said or str(error)
            bad.append((str(path), str(error).removeprefix(f"{path}: ").removeprefix("not a readable image: ")))
    if paths and len(bad) - before == len(paths):
        more = f"\nthe other {len(paths) - 1} cannot be read either" if len(paths) > 1 else ""
        raise UserError(said + more)


def say_skipped(bad: Sequence[tuple[str, str]], total: int, listed: Path | None = None) -> int:
    """Says which files could not be read; returns the exit code: 0, or 1 where they are more than 1 % of `total`.

    `listed` is a file for all of them, which is removed if there are none.
    """
    if listed is not None:
        files.write_skipped(listed, bad)
    if not bad:
        return 0
    for name, why in bad[:SHOWN]:
        warn(escape.terminal(f"skipped {name}: {why}"))
    more = f", {len(bad) - SHOWN} more than these" if len(bad) > SHOWN else ""
    warn(f"{len(bad)} of {total} image files cannot be read{more}" + (f"; listed in {listed}" if listed else ""))
    return 1 if len(bad) > files.MAX_BAD * total else 0


def predict(
    classifier: Classifier, paths: Sequence[Path], batch_size: int = 32, bad: list[tuple[str, str]] | None = None
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields (path, probabilities [num_classes]) of the images that can be read, in order.

    The others are added to `bad` as (path, why); without that list, and where none can be read, a UserError is raised.
    """
    apply = jax.jit(lambda v, images: classifier.to_probabilities(classifier.model.apply(v, images)))
    size = min(batch_size, len(paths))
    with bar("predicting", len(paths)) as meter:
        images = ((p, data.open_image(p)) for p in paths) if bad is None else read_images(paths, bad)
        ready = ((path, data.preprocess(image, classifier.data_config)) for path, image in images)
        chunks = iter(lambda: list(itertools.islice(ready, size)), [])
        results = (
            ([path for path, _ in chunk], apply(classifier.variables, filled(np.stack([x for _, x in chunk]), size)))
            for chunk in chunks
        )
        for done, probabilities in fetched(results):  # files are decoded while the device computes
            yield from zip(done, probabilities[: len(done)], strict=True)
            meter.advance(len(done))
