"""Distillation: a teacher's answers as a part of the student's loss (Hinton et al. 2015; Touvron et al. 2021, DeiT).

The teacher sees the student's augmented images, at its own size and with its own normalisation; where nothing is
augmented and the training split lies on the device, it answers once, and its logits go with the batches.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import inference
from jaxvit.build import parts
from jaxvit.data import augment
from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair
from jaxvit.runtime.paths import expand
from jaxvit.step.losses import softmax_cross_entropy

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A classifier whose logits are in the order of the student's classes."""

    classifier: inference.Classifier
    columns: np.ndarray  # int32 [num_classes], the teacher's class for each of the student's

    def logits(self, variables: Any, images: Array) -> Array:
        """Images float [b, h, w, c] in [0, 1], of any size, -> float32 [b, num_classes]."""
        words = self.classifier.data_config
        prepare = parts.make_normalise(
            tuple(words["image_size"]), words.get("interpolation") or "bicubic", words["mean"], words["std"]
        )
        images = augment.to_channels(images, words["in_channels"])
        return self.classifier.model.apply(variables, prepare(images))[:, self.columns]


def load_teacher(teacher: str, model: str | None, class_names: list[str]) -> Teacher:
    """Loads a teacher for data with these classes.

    Args:
      teacher: a run's workdir, a timm name with or without tag, or a weight file.
      model: the timm name where `teacher` is a weight file.
      class_names: of the student's data.

    Raises:
      UserError: there is no such teacher, or it has other classes.
    """
    path = expand(teacher)
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        classifier = inference.from_run(path)
    elif path.exists():
        if model is None:
            wanted = "where it holds weights, distill.model must say their timm name"
            raise UserError(f"distill.teacher {teacher!r} is no run's workdir; {wanted}")
        classifier = inference.from_name(model, teacher)
    elif parts.pretrained_name(teacher) is not None:
        classifier = inference.from_name(teacher)
    else:
        raise UserError(f"distill.teacher {teacher!r} is no run's workdir, no weight file and no model of `models`")
    try:
        columns = inference.match_classes(classifier, class_names)
    except UserError as error:
        raise UserError(f"distill.teacher {teacher!r} has other classes: {error}") from None
    return Teacher(classifier, columns)


def make_objective(mode: str, *, alpha: float, temperature: float) -> Callable[[Any, Mapping[str, Array]], Any]:
    """Returns (student's outputs, {"targets", "teacher_logits"}) -> (loss [b], logits [b, k]).

    soft: (1 - alpha) CE + alpha T^2 KL(teacher at T || student at T); hard: alpha weighs the cross-entropy against the
    teacher's first choice; token: the same on the logits of the distillation token, and CE on those of the class token.
    """

    def soft(logits: Array, teacher: Array) -> Array:
        log_p = jax.nn.log_softmax(teacher / temperature)
        log_q = jax.nn.log_softmax(logits / temperature)
        return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)

    def hard(logits: Array, teacher: Array) -> Array:
        choice = jax.nn.one_hot(jnp.argmax(teacher, axis=-1), teacher.shape[-1])
        return softmax_cross_entropy(logits, choice)

    taught = {"soft": soft, "hard": hard, "token": hard}[mode]

    def objective(outputs: Any, batch: Mapping[str, Array]) -> tuple[Array, Array]:
        own, pupil = outputs if mode == "token" else (outputs, outputs)
        loss = softmax_cross_entropy(own, batch["targets"])
        return (1 - alpha) * loss + alpha * taught(pupil, batch["teacher_logits"]), (own + pupil) / 2

    return objective


def check_student(mode: str, fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the model fields that the mode needs; raises UserError where the model has no distillation token."""
    if mode != "token":
        return {}
    if not fields.get("distilled"):
        raise UserError(
            f"distill.mode=token needs a model with a distillation token, as deit_tiny_distilled_patch16_224; {name} "
            "has none"
        )
    return {"distilled_training": True}


class TaughtFeed:
    """A feed on the device whose batches carry the teacher's logits, computed once: `teacher_logits` [b, k]."""

    def __init__(self, feed: Any, logits: np.ndarray):
        """`logits` float32 [n, num_classes], in the order of the split."""
        self._feed, self._logits = feed, logits
        self.kind, self.unreadable = feed.kind, feed.unreadable

    def __len__(self) -> int:
        return len(self._feed)

    def batches(self, order: np.ndarray, batch_size: int, *, start: int = 0, pad: bool = False) -> Iterator[dict]:
        """As those of the feed; no padding."""
        if pad:
            raise ValueError("a taught feed is for training, which does not pad")
        for i, batch in enumerate(self._feed.batches(order, batch_size, start=start), start):
            chosen = self._logits[order[i * batch_size : (i + 1) * batch_size]]
            yield {**batch, "teacher_logits": jax.device_put(chosen, batch["label"].sharding)}


def teach(feed: Any, teacher: Teacher, to_float: Callable, batch_size: int = 128) -> TaughtFeed:
    """Lets the teacher answer every image of a feed, without augmentation."""
    answer = jax.jit(lambda variables, images: teacher.logits(variables, to_float(images)))
    order, size = np.arange(len(feed)), min(batch_size, len(feed))
    found = [
        np.asarray(answer(teacher.classifier.variables, batch["image"]))
        for batch in feed.batches(order, size, pad=True)
    ]
    return TaughtFeed(feed, np.concatenate(found)[: len(feed)])


def answers_in_step(teacher: Teacher) -> Callable[[Any, Array, Mapping[str, Array]], dict[str, Array]]:
    """The step's `teacher_inputs` where the teacher answers in each step."""
    return lambda variables, images, batch: {"teacher_logits": teacher.logits(variables, images)}


def answers_of_batch(variables: Any, images: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
    """The step's `teacher_inputs` where the answers come with the batch."""
    del variables, images
    return {"teacher_logits": batch["teacher_logits"]}


def describe(teacher: Teacher, cached: bool) -> str:
    """One line for the header."""
    model: Any = teacher.classifier.model
    size = to_pair(model.image_size)
    when = "answers once" if cached else "answers in every step"
    return f"{teacher.classifier.name} at {size[0]}x{size[1]} {when}"
