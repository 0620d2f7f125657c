"""What becomes of an image on the host: a row of a batch. Threads and processes do the same; nothing here needs JAX."""

import io
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from jaxvit.data.crops import Crop, generator
from jaxvit.data.images import DECODE_ERRORS, decode
from jaxvit.data.splits import Split
from jaxvit.errors import RunError, UserError

MAX_UNREADABLE = 0.01  # share of a split, and
FEW = 10  # this many are never too many
WAITING, READ, UNREADABLE = 0, 1, 2  # states of a row

Draw = tuple[int, int, int]  # (seed, epoch, position), which fix a crop
Row = tuple[int, Any, Draw | None]  # place in the batch, which image, and how it is cut; no draw: as for evaluation


class Preparation(NamedTuple):
    """Images to uint8 [h, w, c]: cut at random by `crop` where there is a draw, else by `transform`."""

    transform: Callable[[Any], np.ndarray] | None
    crop: Crop | None

    def of_file(self, file: Path | str | IO[bytes], draw: Draw | None) -> np.ndarray:
        """Raises one of DECODE_ERRORS where the file cannot be read."""
        if self.crop is not None and draw is not None:
            return self.crop.of_file(generator(*draw), file)
        return self.of_example(decode(file), None)

    def of_example(self, example: Any, draw: Draw | None) -> np.ndarray:
        """`example` is a PIL image or an array."""
        if self.crop is not None and draw is not None:
            return self.crop(generator(*draw), example)
        return np.asarray(example if self.transform is None else self.transform(example), np.uint8)

    def of_content(self, file: str | bytes, draw: Draw | None) -> np.ndarray | None:
        """As `of_file`, of a path or of what the file holds; None where that fails twice."""
        return attempt(lambda: self.of_file(io.BytesIO(file) if isinstance(file, bytes) else file, draw))


def attempt(read: Callable[..., Any], *args: Any) -> Any:
    """What `read(*args)` returns, or None where it fails twice: a network drive may stumble once."""
    for _ in range(2):
        try:
            return read(*args)
        except DECODE_ERRORS:
            continue
    return None


def fill(images: np.ndarray, states: np.ndarray, rows: Iterable[Row], read: Callable[..., np.ndarray | None]) -> None:
    """Writes the images of some rows into `images` uint8 [b, h, w, c], and into `states` uint8 [b] what became of them.

    `read(image, draw)` returns uint8 [h, w, c], or None for what cannot be read: such a row becomes zero.
    """
    for k, which, draw in rows:
        image = read(which, draw)
        if image is not None and image.shape != images.shape[1:]:
            raise UserError(f"images differ in size ({images.shape[1:]}, {image.shape}); set data.image_size.")
        images[k] = 0 if image is None else image
        states[k] = UNREADABLE if image is None else READ


def of_split(split: Split, transform: Callable | None, i: int) -> np.ndarray | None:
    """Reads one example, uint8 [h, w, c], or None where that fails twice."""
    example = attempt(split.read, i)
    return None if example is None else Preparation(transform, None).of_example(example, None)


def first_readable(split: Split, transform: Callable | None) -> np.ndarray:
    """Returns an example, uint8 [h, w, c]. Raises UserError where there is none."""
    for i in range(len(split)):
        example = of_split(split, transform, i)
        if example is not None:
            return example
    raise UserError(f"the {split.name} split has no readable image.")


def refuse_many(split: Split, unreadable: Collection[int], max_unreadable: float) -> None:
    n = len(unreadable)
    if n > max(FEW, max_unreadable * len(split)):
        names = ", ".join(str(split.names[i] if split.names else i) for i in sorted(unreadable)[:3])
        raise RunError(
            f"{n} of {len(split)} {split.name} images can no longer be read, for example {names}\n"
            "check that the data are still there; the checkpoints are intact, and the same command resumes"
        )
