"""A student's objective: a teacher's answers as a part of the loss (Hinton et al. 2015; Touvron et al. 2021, DeiT)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.step.losses import Loss, softmax_cross_entropy

Array = jax.Array


def make_objective(
    mode: str, *, alpha: float, temperature: float, loss: Loss = softmax_cross_entropy
) -> Callable[[Any, Mapping[str, Array]], Any]:
    """Returns (student's outputs, {"targets", "teacher_logits"}) -> (loss [b], logits [b, k]).

    soft: (1 - alpha) CE + alpha T^2 KL(teacher at T || student at T); hard: alpha weighs the cross-entropy against the
    teacher's first choice; token: the same on the logits of the distillation token, and CE on those of the class token.
    `loss` goes before the cross-entropy against the labels; what the teacher says is neither weighted nor adjusted.
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
        labelled = loss(own, batch["targets"])
        return (1 - alpha) * labelled + alpha * taught(pupil, batch["teacher_logits"]), (own + pupil) / 2

    return objective
