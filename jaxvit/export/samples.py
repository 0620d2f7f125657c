"""Real images, as pixels of the model's size, to compare an exported file on."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxvit import data, inference
from jaxvit.data.images import DECODE_ERRORS
from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair
from jaxvit.runtime.paths import expand
from jaxvit.workdir import run_files

VIEWS = 16  # of scikit-learn's two photos, where there are no other images


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images as the graph reads them."""

    images: np.ndarray  # uint8 [n, h, w, c]
    what: str  # in a few words
    split: str | None = None  # "train", "val", "test" or "all"
    names: np.ndarray | None = None  # str [n]: what they are found by
    labels: np.ndarray | None = None  # the model's


def of_split(
    classifier: inference.Classifier, split: str | None, data_name: str | None, limit: int, *, labelled: bool
) -> Samples:
    """At most `limit` images of a split of the run's data, or of `data_name`, of every class alike."""
    opened = inference.open_split(classifier, split, data_name=data_name, limit=limit, labelled=labelled)
    images, read = _stacked(opened.split.read, len(opened.split), to_pixels(classifier.model, classifier.data_config))
    labels = opened.split.labels[read] if labelled else None
    what = f"{len(images)} images" if opened.name == "all" else f"{len(images)} images of the {opened.name} split"
    return Samples(images, what, opened.name, opened.split.image_names(read), labels)


def of_run_files(classifier: inference.Classifier, workdir: str | Path) -> Samples:
    """The test images that a run keeps beside its checkpoints: for where its data are not."""
    kept = run_files.read_npz(expand(workdir) / "samples.npz", ("image",), ("name",))
    convert = to_pixels(classifier.model, classifier.data_config)
    images, _ = _stacked(lambda i: kept["image"][i], len(kept["image"]), convert)
    return Samples(images, f"{len(images)} test images of samples.npz", "test", kept.get("name"))


def of_photos(model: Any, data_config: dict[str, Any]) -> Samples:
    """Views of the two photos that scikit-learn has: for a model without a data set."""
    from sklearn.datasets import load_sample_images

    photos, rng = load_sample_images().images, np.random.default_rng(0)

    def view(i: int) -> np.ndarray:
        photo = photos[i % len(photos)]
        h, w = (int(side * rng.uniform(0.5, 1.0)) for side in photo.shape[:2])
        top, left = (int(rng.integers(0, have - want + 1)) for have, want in zip(photo.shape, (h, w), strict=False))
        return photo[top : top + h, left : left + w]

    images, _ = _stacked(view, VIEWS, to_pixels(model, data_config))
    return Samples(images, f"{VIEWS} views of two photos")


def to_pixels(model: Any, data_config: dict[str, Any]) -> Callable[[Any], np.ndarray]:
    """Returns f(PIL image, or uint8 [h, w, c]) -> uint8 of the model's size: what has that size stays as it is."""
    shape = (*to_pair(model.image_size), model.in_channels)
    words = {name: data_config[name] for name in ("crop_pct", "interpolation", "crop_mode") if name in data_config}
    fill = tuple(round(255 * float(v)) for v in np.atleast_1d(data_config["mean"]))
    transform = data.make_transform(shape[:2], shape[2], **words, fill=fill)

    def convert(example: Any) -> np.ndarray:
        fits = isinstance(example, np.ndarray) and example.shape == shape
        return example if fits else transform(example)

    return convert


def recorded_classes(workdir: str | Path, names: np.ndarray) -> np.ndarray:
    """The classes that a run itself said of the test images called `names` str [n]; -1 where it recorded none."""
    try:
        said = run_files.read_npz(expand(workdir) / "predictions.npz", ("logits", "names"))
    except (UserError, OSError):
        return np.full(len(names), -1)
    places = {str(name): k for k, name in enumerate(said["names"])}
    return np.array([said["logits"][places[str(name)]].argmax() if str(name) in places else -1 for name in names])


def _stacked(
    read: Callable[[int], Any], count: int, convert: Callable[[Any], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, h, w, c] and the positions [n] of those that could be read."""
    images, positions = [], []
    for i in range(count):
        try:
            images.append(convert(read(i)))
        except DECODE_ERRORS:
            continue
        positions.append(i)
    if not images:
        raise UserError("none of the images to compare on can be read")
    return np.stack(images), np.asarray(positions)


def parts(images: np.ndarray, sizes: Iterable[int]) -> list[np.ndarray]:
    """Cuts images [n, ...] into batches of the given sizes and one of all that is left, where anything is."""
    cut, start = [], 0
    for size in (*sizes, len(images)):
        if len(batch := images[start : start + size]):
            cut.append(batch)
        start += size
    return cut
