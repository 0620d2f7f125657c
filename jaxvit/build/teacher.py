"""A teacher as the step sees it: its model, what it reads, and how its answers reach the objective.

The teacher sees the student's augmented images, at its own size and with its own normalisation; where nothing is
augmented and the training split lies on the device, it answers once, and its logits go with the batches.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxvit import config as config_lib
from jaxvit import models, plugins
from jaxvit.build import parts
from jaxvit.build.resolve import check_resolved
from jaxvit.data import augment
from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair
from jaxvit.runtime.paths import expand
from jaxvit.workdir import run_files

Array = jax.Array
LEFT_OUT = "the teacher is left out because its model is not known: its forward pass and its weights are not counted"


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A classifier whose logits are in the order of the student's classes."""

    name: str
    model: Any
    variables: Any  # arrays, or shapes
    data_config: Mapping[str, Any]  # what `jaxvit.preprocess` takes
    columns: np.ndarray  # int32 [num_classes], the teacher's class for each of the student's

    def logits(self, variables: Any, images: Array) -> Array:
        """Images float [b, h, w, c] in [0, 1], of any size, -> float32 [b, num_classes]."""
        words = self.data_config
        normalise = parts.make_normalise(
            tuple(words["image_size"]), words.get("interpolation") or "bicubic", words["mean"], words["std"]
        )
        images = augment.to_channels(images, words["in_channels"])
        return self.model.apply(variables, normalise(images))[:, self.columns]


def answers_in_step(teacher: Teacher) -> Callable[[Any, Array, Mapping[str, Array]], dict[str, Array]]:
    """The step's `teacher_inputs` where the teacher answers in each step."""
    return lambda variables, images, batch: {"teacher_logits": teacher.logits(variables, images)}


def answers_of_batch(variables: Any, images: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
    """The step's `teacher_inputs` where the answers come with the batch."""
    del variables, images
    return {"teacher_logits": batch["teacher_logits"]}


def describe(teacher: Teacher, cached: bool) -> str:
    """One line for the header."""
    size = to_pair(teacher.model.image_size)
    when = "answers once" if cached else "answers in every step"
    return f"{teacher.name} at {size[0]}x{size[1]} {when}"


def outline(teacher: str, model: str | None, num_classes: int) -> Teacher | None:
    """The shapes of a teacher: its model by name, or from a run's config.json; None where that is not known.

    Raises UserError where it has no classifier.
    """
    path = expand(teacher)
    if (path / "config.json").is_file():
        theirs = config_lib.from_mapping(run_files.read_json(path / "config.json"))
        plugins.use_recorded(theirs.imports, path)
        check_resolved(theirs)
        made, name = parts.make_model(theirs), theirs.model.name
        keys = ("image_size", "mean", "std", "crop_pct", "interpolation")
        words = {**{key: theirs.data[key] for key in keys}, "in_channels": theirs.model.in_channels}
    else:
        name = parts.pretrained_name(teacher) or model
        if name is None:
            return None
        made, words = models.create_model(name), models.data_config(name)
    if made.num_classes < 1:
        raise UserError(f"distill.teacher {teacher!r}: {name} has no classifier, only features")
    shapes = parts.variable_shapes(made, tuple(words["image_size"]), words["in_channels"])
    columns = np.arange(num_classes, dtype=np.int32) % made.num_classes  # which ones makes no difference to the cost
    return Teacher(name, made, shapes, words, columns)
