"""How the gradient of a batch is computed: at once or in micro-batches, sharpness-aware or plain."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxvit import optim
from jaxvit.errors import UserError
from jaxvit.ops import loops

Array = jax.Array
# (params, frozen, batch_stats, batch, key) -> (loss, (batch_stats, metrics)); its gradient function returns
# ((loss, (batch_stats, metrics)), gradients)
LossFn = Callable[..., tuple[Array, tuple[Any, dict[str, Array]]]]
GradFn = Callable[..., tuple[tuple[Array, tuple[Any, dict[str, Array]]], Any]]


def plain(loss_fn: LossFn, learning_rate: Array) -> GradFn:
    """The gradient of the whole batch at once."""
    del learning_rate
    return jax.value_and_grad(loss_fn, has_aux=True)


def make_gradient(
    *,
    accum_steps: int = 1,
    rho: float = 0.0,
    adaptive: bool = False,
    eta: float = 0.01,
    method: str = "sam",
    alpha: float = 0.4,
    perturbations: int = 1,
    rho_min: float | None = None,
    max_learning_rate: float = 1.0,
    min_learning_rate: float = 0.0,
) -> Callable[[LossFn, Array], GradFn]:
    """Returns (loss_fn, learning_rate) -> gradient function.

    Args:
      accum_steps: micro-batches; their mean gradient is that of the whole batch, and BatchNorm, which sees one
        micro-batch at a time, is the only difference.
      rho: radius of the perturbation; 0 = plain gradients.
      adaptive: ASAM.
      eta: ASAM's.
      method: "sam" or "gsam".
      alpha: GSAM's.
      perturbations: parts of the batch with a perturbation each (m-sharpness, Foret et al. 2021); 1 makes SAM with
        accumulation the SAM of the whole batch.
      rho_min: rho falls to it in step with the learning rate (GSAM); None = rho stays.
      max_learning_rate: the schedule's peak, for rho_min.
      min_learning_rate: its floor.

    Raises:
      UserError: micro-batches and perturbations do not divide each other.
    """
    groups = perturbations if rho else 1
    if accum_steps % groups and groups % accum_steps:
        raise UserError(
            f"optim.accum_steps {accum_steps} and the {groups} parts of optim.sam.m do not divide each other"
        )
    inner = max(accum_steps // groups, 1)
    outer = groups if groups > 1 else 1

    def gradient(loss_fn: LossFn, learning_rate: Array) -> GradFn:
        radius: Any = rho
        if rho_min is not None:
            ends = {"max_learning_rate": max_learning_rate, "min_learning_rate": min_learning_rate}
            radius = optim.gsam_rho(learning_rate, rho=rho, rho_min=rho_min, **ends)
        grad_fn = accumulated(jax.value_and_grad(loss_fn, has_aux=True), inner)
        grad_fn = optim.sharpness_aware(grad_fn, radius, adaptive, eta, method=method, alpha=alpha)
        return accumulated(grad_fn, outer)

    return gradient


def accumulated(grad_fn: GradFn, parts: int) -> GradFn:
    """Means of loss, metrics and gradients over equal parts of the batch; batch_stats pass from one to the next."""
    if parts == 1:
        return grad_fn

    def value_and_grad(params: Any, frozen: Any, batch_stats: Any, batch: Any, key: Array):
        def add(carry: tuple[Any, Any], i: int) -> tuple[Any, Any]:
            (batch_stats, total), part = carry, optim.part_of_batch(batch, i, parts)
            (loss, (batch_stats, metrics)), grads = grad_fn(
                params, frozen, batch_stats, part, jax.random.fold_in(key, i)
            )
            found = (loss, metrics, grads)
            return batch_stats, found if total is None else jax.tree.map(jnp.add, total, found)

        batch_stats, total = loops.fold(add, (batch_stats, None), parts)
        loss, metrics, grads = jax.tree.map(lambda x: x / parts, total)
        return (loss, (batch_stats, metrics)), grads

    return value_and_grad
