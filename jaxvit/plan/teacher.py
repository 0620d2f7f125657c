"""The teacher of a plan: its model by name, or from a run's config.json, with shapes in place of weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import config as config_lib
from jaxvit import inference, models
from jaxvit.build import parts
from jaxvit.config.default import Config, default
from jaxvit.errors import UserError
from jaxvit.runtime.paths import expand
from jaxvit.train import distill
from jaxvit.workdir import run_files

LEFT_OUT = "the teacher is left out, its model is not known: its forward pass and its weights are not counted"


def prepare(config: Config, *, resident: bool) -> tuple[dict[str, Any], Any, str | None]:
    """Returns (words of the training step, shapes of what the teacher is applied with, what is to be said).

    The student's model gets the fields that the mode needs, as in a run; a teacher that answers once, before training,
    has no part in the step but its answers.
    """
    words = config.distill
    if words.teacher is None:
        return {}, None, None
    fields = {**models.model_fields(config.model.name), **parts.model_fields(config)}
    with config.unlocked():
        config.model.update(distill.check_student(words.mode, fields, config.model.name))
    teacher = _find(words.teacher, words.model, config.model.num_classes)
    if teacher is None:
        return {}, None, LEFT_OUT
    objective = distill.make_objective(words.mode, alpha=words.alpha, temperature=words.temperature)
    cached = resident and config.augment.to_dict() == default().augment.to_dict()
    said = f"teacher {distill.describe(teacher, cached)}"
    if cached:
        return {"objective": objective, "teacher_inputs": distill.answers_of_batch}, None, said
    inputs = distill.answers_in_step(teacher)
    return {"objective": objective, "teacher_inputs": inputs}, teacher.classifier.variables, said


def _find(teacher: str, model: str | None, num_classes: int) -> distill.Teacher | None:
    path = expand(teacher)
    if (path / "config.json").is_file():
        theirs = config_lib.from_mapping(run_files.read_json(path / "config.json"))
        parts.check_resolved(theirs)
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
    size = (1, *words["image_size"], words["in_channels"])
    shapes = jax.eval_shape(made.init, jax.random.key(0), jax.ShapeDtypeStruct(size, jnp.float32))
    columns = np.arange(num_classes, dtype=np.int32) % made.num_classes  # which ones makes no difference to the cost
    return distill.Teacher(inference.Classifier(name, made, shapes, [], words), columns)
