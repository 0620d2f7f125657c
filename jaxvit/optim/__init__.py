"""Optimisation: parameters to an optax transformation, a loss to its gradient, a step to a learning rate."""

from jaxvit.optim import ema, plateau, sam
from jaxvit.optim.factory import at_step, check_name, layer_scales, make_optimizer, optimizers, register_optimizer
from jaxvit.optim.layer_groups import family_of, layer_ids
from jaxvit.optim.masks import (
    decay_mask,
    describe_trainable,
    freeze_mask,
    freezes_the_head_alone,
    frozen_modules,
    merge,
    split_trainable,
)
from jaxvit.optim.plateau import EarlyStopping, Plateau
from jaxvit.optim.sam import gsam_rho, micro_batched, part_of_batch, sam_active, sam_value_and_grad, sharpness_aware
from jaxvit.optim.schedules import SCHEDULES, make_schedule, register_schedule, schedule_options

__all__ = [
    "SCHEDULES",
    "EarlyStopping",
    "Plateau",
    "at_step",
    "check_name",
    "decay_mask",
    "describe_trainable",
    "ema",
    "family_of",
    "freeze_mask",
    "freezes_the_head_alone",
    "frozen_modules",
    "gsam_rho",
    "layer_ids",
    "layer_scales",
    "make_optimizer",
    "make_schedule",
    "merge",
    "micro_batched",
    "part_of_batch",
    "optimizers",
    "plateau",
    "register_optimizer",
    "register_schedule",
    "sam",
    "sam_active",
    "sam_value_and_grad",
    "schedule_options",
    "sharpness_aware",
    "split_trainable",
]
