"""A teacher with its weights, and its answers where it answers only once."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxvit import inference, pretrained
from jaxvit.build import parts
from jaxvit.build.teacher import Teacher
from jaxvit.errors import UserError
from jaxvit.runtime.console import bar
from jaxvit.runtime.late import fetched
from jaxvit.runtime.paths import expand


def load_teacher(teacher: str, model: str | None, class_names: list[str]) -> Teacher:
    """Loads a teacher for data with these classes.

    Args:
      teacher: a run's workdir, a timm name with or without tag, a repository (hf_hub:user/name) or a weight file.
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
            wanted = "if it holds weights, set distill.model to their timm name"
            raise UserError(f"distill.teacher {teacher!r} is not a run's workdir; {wanted}")
        classifier = inference.from_name(model, teacher)
    elif parts.pretrained_name(teacher) is not None or pretrained.is_repository(teacher):
        classifier = inference.from_name(teacher)
    else:
        raise UserError(
            f"distill.teacher {teacher!r} is not a run's workdir, a weight file or a model that `models` lists"
        )
    try:
        columns = inference.match_classes(classifier, class_names)
    except UserError as error:
        raise UserError(f"distill.teacher {teacher!r} has different classes: {error}") from None
    words = (classifier.model, classifier.variables, classifier.data_config, columns)
    return Teacher(classifier.name, *words)


class TaughtFeed:
    """A feed on the device whose batches carry the teacher's logits, computed once: `teacher_logits` [b, k]."""

    def __init__(self, feed: Any, logits: np.ndarray):
        """`logits` float32 [n, num_classes], in the order of the split."""
        self._feed, self._logits = feed, logits
        self.kind, self.unreadable = feed.kind, feed.unreadable

    def __len__(self) -> int:
        return len(self._feed)

    def batches(
        self, order: np.ndarray, batch_size: int, *, start: int = 0, pad: bool = False, draws: Any = None
    ) -> Iterator[dict]:
        """As those of the feed; no padding."""
        del draws  # the teacher has answered for images as they are
        if pad:
            raise ValueError("a feed with teacher logits is for training, which does not pad")
        for i, batch in enumerate(self._feed.batches(order, batch_size, start=start), start):
            chosen = self._logits[order[i * batch_size : (i + 1) * batch_size]]
            yield {**batch, "teacher_logits": jax.device_put(chosen, batch["label"].sharding)}


def teach(feed: Any, teacher: Teacher, to_float: Callable, batch_size: int = 128) -> TaughtFeed:
    """Lets the teacher answer every image of a feed, without augmentation."""
    answer = jax.jit(lambda variables, images: teacher.logits(variables, to_float(images)))
    order, size = np.arange(len(feed)), min(batch_size, len(feed))
    batches, found = feed.batches(order, size, pad=True), []
    with bar("logits of the teacher", len(feed)) as meter:
        for logits in fetched(answer(teacher.variables, batch["image"]) for batch in batches):
            found.append(logits)
            meter.advance(len(logits))
    return TaughtFeed(feed, np.concatenate(found)[: len(feed)])
