"""The pure steps: (state, batch) -> (state, metrics) and (variables, batch) -> (sums, logits).

Both are written for one device; where the batch is split over a mesh, XLA adds the communication, and the result is
that of one device.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxvit import metrics, optim
from jaxvit.losses import one_hot, softmax_cross_entropy
from jaxvit.state import TrainState

Array = jax.Array
Batch = dict[str, Array]  # image uint8 [b, h, w, c], label int32 [b], mask bool [b]


def make_train_step(
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    schedule: Callable[[Array], Array],
    to_float: Callable[[Array], Array],
    augment: Callable[[Array, Array, Array], tuple[Array, Array]],
    normalise: Callable[[Array], Array],
    num_classes: int,
    trainable: Any,
    label_smoothing: float = 0.0,
    accum_steps: int = 1,
    value_and_grad: Callable = jax.value_and_grad,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Returns one optimiser step.

    Args:
      model: a classifier.
      tx: its optimiser, over the trainable parameters.
      schedule: step -> learning rate, for the record.
      to_float: uint8 images to float in [0, 1].
      augment: (key, images, targets) -> (images, targets).
      normalise: images in [0, 1] to what the model reads.
      num_classes: width of the targets.
      trainable: tree of bools like the parameters; the rest is neither differentiated nor updated.
      label_smoothing: share of the target spread over all classes.
      accum_steps: micro-batches a step; their gradients are averaged, BatchNorm sees one at a time.
      value_and_grad: `jax.value_and_grad`, or one with its signature, such as SAM's.
    """

    def loss_fn(params, frozen, batch_stats, images, targets, mask, key):
        variables = {"params": optim.merge(params, frozen), "batch_stats": batch_stats}
        logits, updated = model.apply(
            variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"] if batch_stats else []
        )
        hits = jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1)
        loss, accuracy = (_mean(x, mask) for x in (softmax_cross_entropy(logits, targets), hits))
        return loss, (updated.get("batch_stats", batch_stats), {"loss": loss, "accuracy": accuracy})

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step))
        targets = one_hot(batch["label"], num_classes, label_smoothing)
        images, targets = augment(augment_key, to_float(batch["image"]), targets)
        images = normalise(images)

        params, frozen = optim.split_trainable(state.params, trainable)
        batch_stats, grads, sums = state.batch_stats, None, None
        # A Python loop, not lax.scan: XLA on the CPU runs convolutions in a rolled loop many times slower.
        for i in range(accum_steps):
            micro = [x.reshape(accum_steps, -1, *x.shape[1:])[i] for x in (images, targets, batch["mask"])]
            (_, (batch_stats, micro_sums)), micro_grads = value_and_grad(loss_fn, has_aux=True)(
                params, frozen, batch_stats, *micro, jax.random.fold_in(dropout_key, i)
            )
            grads = micro_grads if grads is None else jax.tree.map(jnp.add, grads, micro_grads)
            sums = micro_sums if sums is None else jax.tree.map(jnp.add, sums, micro_sums)
        grads, step_metrics = jax.tree.map(lambda x: x / accum_steps, (grads, sums))

        updates, opt_state = tx.update(grads, state.opt_state, params)
        params = optax.apply_updates(params, updates)
        step_metrics |= {"grad_norm": optax.global_norm(grads), "learning_rate": schedule(state.step)}
        state = state.replace(
            step=state.step + 1,
            params=optim.merge(params, frozen),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, step_metrics

    return train_step


def _mean(values: Array, mask: Array) -> Array:
    """Mean over the examples that could be read: values [b], mask bool [b]."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def make_eval_step(
    *, model: nn.Module, to_float: Callable[[Array], Array], normalise: Callable[[Array], Array]
) -> Callable[[Any, Batch], tuple[dict[str, Array], Array]]:
    """Returns a step from (variables, batch) to the sums of `metrics.batch_sums` and the logits [b, num_classes]."""

    def eval_step(variables: Any, batch: Batch) -> tuple[dict[str, Array], Array]:
        logits = model.apply(variables, normalise(to_float(batch["image"])))
        return metrics.batch_sums(logits, batch["label"], batch["mask"]), logits

    return eval_step
