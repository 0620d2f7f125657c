"""Classifiers with their weights, class names and preprocessing: from a run's workdir, or by a timm name."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import config as config_lib
from jaxvit import plugins, pretrained
from jaxvit.build import checks, parts, resolve, sizes
from jaxvit.config.default import Config
from jaxvit.data import imagenet
from jaxvit.errors import UserError
from jaxvit.inference.batches import probabilities
from jaxvit.precision import full_float
from jaxvit.pretrained import timm_config
from jaxvit.pretrained.saving import THRESHOLDS
from jaxvit.runtime.paths import check_utf8, expand, near
from jaxvit.workdir import run_files
from jaxvit.workdir.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model with weights, the names of its classes and the preprocessing that belongs to it."""

    name: str
    model: Any  # a linen module
    variables: Any
    class_names: list[str]
    data_config: dict[str, Any]  # what `jaxvit.preprocess` takes
    config: Config | None = None  # of the run, where it comes from one
    thresholds: np.ndarray | None = None  # of several labels: the probability that says a class, [num_classes]
    temperature: float = 1.0  # that the weights of the classifier were divided by
    data: dict[str, Any] | None = None  # of a finished run: `Dataset.fingerprint` of what it was trained on

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none: probabilities are then sigmoids, one for each class."""
        return self.thresholds is not None

    @property
    def shown_names(self) -> list[str]:
        """The names of the classes for a person: those of ImageNet's synsets in words."""
        return imagenet.readable(self.class_names)

    def to_probabilities(self, logits: Any) -> Any:
        """Logits [b, num_classes] -> probabilities."""
        return jax.nn.sigmoid(logits) if self.several else jax.nn.softmax(logits, axis=-1)

    def predict(self, images: Any, batch_size: int = 32) -> np.ndarray:
        """Probabilities of an array of images, of files or of PIL images; see `inference.probabilities`."""
        return probabilities(self, images, batch_size)

    def said(self, probabilities: np.ndarray) -> np.ndarray:
        """The classes that are said of an image, of its probabilities [num_classes], the most probable first."""
        order = probabilities.argsort(kind="stable")[::-1]
        return order[:1] if self.thresholds is None else order[probabilities[order] >= self.thresholds[order]]


def from_run(workdir: str | Path) -> Classifier:
    """Returns the best model of a run. Raises UserError where `workdir` is not a run or has no checkpoint.

    Weights are float32; those of a run with dtype=float64 are float64 under `jax_enable_x64`, else rounded.
    """
    path = expand(workdir, "workdir")
    if not path.is_dir():
        raise UserError(f"no run in {os.fspath(workdir)!r}: no such directory.{near(path)}")
    check_utf8(path, "the run in")
    run_files.refuse_weights(path)
    run_files.refuse_damaged(path, ("config.json", "classes.json", run_files.THRESHOLDS))
    config = config_lib.from_mapping(run_files.read_json(path / "config.json"))
    plugins.use_recorded(config.imports, path)
    class_names = run_files.read_json(path / "classes.json", list)
    try:
        checks.check(config)
        resolve.check_resolved(config)
        if len(class_names) != config.model.num_classes or not all(isinstance(name, str) for name in class_names):
            raise UserError(f"classes.json does not hold the names of {config.model.num_classes} classes")
        thresholds = run_files.read_thresholds(path, len(class_names))
    except UserError as error:
        if "__main__" in config.imports:
            raise UserError(
                f"the run in {str(path)!r} was trained with parts that a script or notebook registered: {error}\n"
                "put them into a module and name it with --import"
            ) from None
        raise UserError(f"the run in {str(path)!r} is damaged: {error}") from None
    model = parts.make_model(config)
    checkpoints = Checkpoints(path / "checkpoints", read_only=True)
    try:
        variables, _ = checkpoints.restore("best", _template(config, model))
    finally:
        checkpoints.close()
    words = {name: config.data[name] for name in ("image_size", "mean", "std", "crop_pct", "interpolation")}
    data_config = {**words, "in_channels": config.model.in_channels}
    known = {"config": config, "thresholds": thresholds, "data": _fingerprint(path)}
    return Classifier(config.model.name, model, variables, class_names, data_config, **known)


def _template(config: Config, model: Any) -> Any:
    """Arrays of the shapes and types that the weights of a run are given back in."""
    shape = (*config.data.image_size, config.model.in_channels)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape), jnp.float32))
    wide = full_float() if config.dtype == "float64" else None
    return jax.tree.map(lambda x: jnp.zeros(x.shape, wide or x.dtype), shapes)


def _fingerprint(workdir: Path) -> dict[str, Any] | None:
    try:
        found = run_files.read_json(workdir / "summary.json").get("data_fingerprint")
    except UserError:  # it has not ended yet
        return None
    return found if isinstance(found, dict) else None


def at_size(classifier: Classifier, size: tuple[int, int]) -> Classifier:
    """The classifier as it reads images of another size (h, w); its parameters stay, a position table is resampled.

    Raises UserError where its model cannot.
    """
    words, model = classifier.data_config, classifier.model
    sizes.check_model(model, classifier.variables, [size], words["in_channels"], "images of")
    return dataclasses.replace(
        classifier, model=sizes.at_any_size(model), data_config={**words, "image_size": tuple(size)}
    )


def from_name(
    name: str, checkpoint: str | None = None, weights: str | None = None, *, features: bool = False
) -> Classifier:
    """Returns a pretrained model by its timm name, with the weights of `checkpoint` (None: of the hub).

    The name may be a repository, "hf_hub:user/name@revision". `weights` is "ema" or "raw" where the file holds both.
    With `features` a model without a classifier will do; it has no class names then.
    """
    loaded = pretrained.load(name, checkpoint, weights=weights)
    model: Any = loaded.model
    if model.num_classes < 1 and not features:
        raise UserError(f"{name} from {loaded.checkpoint.path} has no classifier, only features")
    names = class_names(loaded) or [f"class {i}" for i in range(model.num_classes)]
    return Classifier(loaded.name, model, loaded.variables, names, loaded.data_config, None, thresholds(loaded))


def class_names(loaded: pretrained.Loaded) -> list[str] | None:
    """Returns the names that a weight file records, else ImageNet's where there are 1,000 classes, else None."""
    count: int = getattr(loaded.model, "num_classes", 0)
    names = timm_config.label_names(loaded.checkpoint.config)
    if names is not None and len(names) == count > 0:
        return names
    return [label for _, label in imagenet.classes()] if count == len(imagenet.classes()) else None


def thresholds(loaded: pretrained.Loaded) -> np.ndarray | None:
    """Returns the thresholds that a weight file records, float64 [num_classes]; None of one label per image.

    Raises:
      UserError: they do not fit the classifier, or are not probabilities.
    """
    found = loaded.checkpoint.config.get(THRESHOLDS)
    if found is None or loaded.model.num_classes != loaded.checkpoint.config.get("num_classes"):  # a new classifier
        return None
    return run_files.as_thresholds(found, loaded.model.num_classes, "config.json")


def imagenet_classes() -> list[tuple[str, str]]:
    """Returns (synset, name) of the 1,000 ImageNet classes, in the order of the logits."""
    return list(imagenet.classes())
