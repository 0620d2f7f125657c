"""Optimisation: parameters to an optax transformation, a loss to its gradient, a step to a learning rate."""

from jaxvit.optim.factory import layer_scales, make_optimizer, optimizers
from jaxvit.optim.families import family_of, layer_ids
from jaxvit.optim.masks import (
    decay_mask,
    describe_trainable,
    freeze_mask,
    keep_frozen_stats,
    merge,
    split_trainable,
)
from jaxvit.optim.schedules import SCHEDULES, make_schedule, schedule_options

__all__ = [
    "SCHEDULES",
    "decay_mask",
    "describe_trainable",
    "family_of",
    "freeze_mask",
    "keep_frozen_stats",
    "layer_ids",
    "layer_scales",
    "make_optimizer",
    "make_schedule",
    "merge",
    "optimizers",
    "schedule_options",
    "split_trainable",
]
