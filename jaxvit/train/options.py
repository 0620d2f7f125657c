"""What the loop itself reads of a config, and when a state is saved."""

import dataclasses

from jaxvit.config.default import Config


@dataclasses.dataclass(frozen=True)
class Saving:
    """When a state is saved: the config's section `checkpoint`."""

    every_steps: int | None
    every_epochs: int
    min_seconds: float  # sooner than this an epoch's end saves none; 0: each does
    keep_every_steps: int | None

    def is_due_within(self, step: int) -> bool:
        """Whether step number `step` is to save a state, wherever it stands in its epoch."""
        return bool(self.every_steps) and step % (self.every_steps or 1) == 0

    def is_due(self, step: int, epoch: int) -> bool:
        """Whether the end of an epoch is to save a state, unless one was saved just before."""
        return self.is_due_within(step) or epoch % self.every_epochs == 0

    def may_wait(self, step: int, before: int | None) -> bool:
        """Whether a state that is due may be left out as too early after the last one, of step `before`.

        A state that stays is the first after a multiple of `keep_every_steps`, whatever the clock says.
        """
        if before is None or not self.min_seconds or self.is_due_within(step):
            return False
        keep = self.keep_every_steps
        return not (keep and before // keep != step // keep)


@dataclasses.dataclass(frozen=True)
class Options:
    """What the loop reads."""

    seed: int
    repeats: int  # copies of an image in a batch
    sampling: str | None  # how the images of an epoch are drawn
    eval_every_epochs: int
    log_every_steps: int
    on_nan: str  # "stop", "skip" or "rollback"
    dry_run: bool
    calibrate: bool  # fit a temperature at the end
    patience: int | None  # evaluations, of early stopping
    saving: Saving


def make_options(config: Config) -> Options:
    """Reads the options of a complete config."""
    c = config.checkpoint
    # a rollback must find the same state whatever the clock says
    min_seconds = 0.0 if config.loss.on_nan == "rollback" else c.min_seconds
    return Options(
        seed=config.seed,
        repeats=config.augment.repeated,
        sampling=config.data.sampling,
        eval_every_epochs=config.eval_every_epochs,
        log_every_steps=config.log_every_steps,
        on_nan=config.loss.on_nan,
        dry_run=config.fast_dev_run,
        calibrate=config.calibrate,
        patience=config.early_stopping.patience,
        saving=Saving(c.every_steps, c.every_epochs, min_seconds, c.keep_every_steps),
    )
