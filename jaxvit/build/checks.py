"""The one check of a config, however it was given, before data or weights are read."""

from jaxvit import models, optim
from jaxvit.config import checks
from jaxvit.config.default import Config
from jaxvit.data import augment
from jaxvit.step import losses


def check(config: Config) -> None:
    """Checks options, types, values and the names of models, their fields, optimisers, schedules and policies.

    Raises:
      UserError: the first one that is not valid, with the nearest valid choice.
    """
    checks.validate(config)
    losses.check(config.loss.to_dict())
    augment.check(config.augment.to_dict())
    optim.check_name(config.optim.name)
    optim.schedule_options(config.optim.schedule.name)
    models.check_fields(config.model.name, {k: v for k, v in config.model.items() if k != "name" and v is not None})
