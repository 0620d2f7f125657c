"""What a caller hands to `train_and_evaluate` beside its config: a data set, a model, callbacks."""

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp

from jaxvit import models
from jaxvit.config.default import Config, Options, plain
from jaxvit.data.sources.table import ARRAYS
from jaxvit.errors import UserError
from jaxvit.models import registry
from jaxvit.runtime import multihost
from jaxvit.runtime.console import err

ALWAYS = ("num_classes", "image_size", "in_channels")  # written even where they are the name's own


class Callback(Protocol):
    """What `train_and_evaluate` calls while it trains."""

    def on_epoch_end(self, epoch: int, metrics: dict[str, float]) -> bool | None:
        """Is called when an epoch is over; True ends the training, as early stopping does.

        Args:
          epoch: epochs done, from 1.
          metrics: as in metrics.jsonl: "train/loss", "val/accuracy", ... Without an evaluation there is no "val/".
        """
        ...


def check(callbacks: Sequence[Callback]) -> None:
    """Raises UserError where one of the callbacks is none."""
    given: Any = callbacks
    if not isinstance(given, list | tuple):
        raise UserError(f"callbacks is {type(given).__name__}; expected a list of objects with on_epoch_end")
    for callback in callbacks:
        if not callable(getattr(callback, "on_epoch_end", None)):
            raise UserError(f"callback {callback!r} has no method on_epoch_end(epoch, metrics)")


def asked_to_stop(callbacks: Sequence[Callback], epoch: int, metrics: dict[str, float]) -> bool:
    """Calls them all, in the main process alone; returns whether one of them ends the training."""

    def ask() -> list[str]:
        answers = [(type(c).__name__, c.on_epoch_end(epoch, dict(metrics))) for c in callbacks]
        return [name for name, answer in answers if plain(answer) is True]  # NumPy's and JAX's True too

    stopping = multihost.by_main(ask) if callbacks else []
    if stopping:
        err.print(f"stopped after epoch {epoch}, as {stopping[0]} asked")
    return bool(stopping)


def with_data(config: Config) -> Config:
    """Returns a copy of the config of a run on data that no name stands for."""
    config = copy.deepcopy(config)
    config.data.name = ARRAYS
    return config


def with_model(config: Config, model: Any) -> Config:
    """Returns a copy of the config whose section `model` describes a model that is there.

    Raises:
      UserError: the model is of no registered class, or computes in another type than the config says.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model is {type(model).__name__}; expected a linen Module, from jaxvit.create_model")
    family = registry.find_family(model)
    if family is None or family.model is not type(model):
        name = type(model).__name__
        raise UserError(
            f"model is a {name}, and no name stands for that class\n"
            f'@jaxvit.register_model("my_model") above class {name} gives it one, by which the run can be opened again'
        )
    dtype = getattr(model, "dtype", None)
    if dtype is not None and jnp.dtype(dtype).name != config.dtype:
        raise UserError(f"the model computes in {jnp.dtype(dtype).name}; set config.dtype, which is {config.dtype}")
    usual = models.split_tag(str(config.model.name))[0]
    names = sorted(family.variants, key=lambda name: (len(_differing(model, name)), name != usual))
    config = copy.deepcopy(config)
    with config.unlocked():
        config.model = Options({"name": names[0], **_differing(model, names[0])}, convert_dict=False)
        config.model.update({field: getattr(model, field) for field in ALWAYS})
    return config


def _differing(model: Any, name: str) -> dict[str, Any]:
    """The fields in which a model differs from what a name of its class stands for."""
    return {
        field: getattr(model, field)
        for field, usual in models.model_fields(name).items()
        if field != "dtype" and getattr(model, field) != usual
    }
