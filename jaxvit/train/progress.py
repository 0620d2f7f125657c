"""The progress of a run in addition to its state, and how it can fail."""

import dataclasses
from typing import Any

from jaxvit.errors import RunError


class Diverged(RunError):
    """The loss or the gradient became NaN or infinite."""


@dataclasses.dataclass
class Progress:
    """The progress of a run in addition to its TrainState; stored with each checkpoint as JSON."""

    epoch: int = 0  # epochs finished
    epoch_step: int = 0  # steps finished of the epoch under way
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of the epoch's step metrics
    best: dict[str, Any] | None = None  # metrics of the best evaluation so far
    rules: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # what early stopping and plateau remember
    stopped_early: bool = False
    counted: int = 0  # steps of the epoch whose metrics are in `sums`: all but the skipped
    skipped: int = 0  # steps whose loss or gradient was not finite, in the whole run
    skipped_in_row: int = 0
    rollbacks: int = 0
    log: str = ""  # metrics.jsonl so far, packed
    seconds: float = 0.0  # spent in training steps
    data: dict[str, Any] = dataclasses.field(default_factory=dict)  # what was trained on: `Dataset.fingerprint`

    def means(self, prefix: str = "train") -> dict[str, float]:
        """The metrics of the epoch's steps so far."""
        return {f"{prefix}/{name}": total / max(self.counted, 1) for name, total in self.sums.items()}

    def count(self, step_metrics: dict[str, float]) -> None:
        """Adds the metrics of a step whose loss and gradient are finite."""
        self.counted, self.skipped_in_row = self.counted + 1, 0
        for name, value in step_metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def end_epoch(self) -> None:
        """Moves to the next epoch."""
        self.epoch, self.epoch_step, self.sums, self.counted = self.epoch + 1, 0, {}, 0
