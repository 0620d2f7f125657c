"""Metrics as sums and a count: added over batches, divided once, so that every example counts exactly once."""

import jax
import jax.numpy as jnp

from jaxvit.precision import full_float
from jaxvit.step.losses import one_hot, softmax_cross_entropy

Array = jax.Array


def batch_sums(logits: Array, labels: Array, mask: Array) -> dict[str, Array]:
    """Sums over the examples where `mask` is True: logits [b, num_classes], labels int [b], mask bool [b].

    Returns float32 scalars `loss` (cross-entropy without smoothing), `accuracy`, `top5_accuracy`, and `count`.
    Of equal logits the first class wins, as in `argmax`.
    """
    num_classes = logits.shape[-1]
    weight = mask.astype(full_float())
    loss = softmax_cross_entropy(logits, one_hot(labels, num_classes))
    _, top = jax.lax.top_k(logits, min(5, num_classes))
    hits = top == labels[:, None]
    return {
        # where, not a product: a padded example may have any value, and 0 * inf is NaN
        "loss": jnp.sum(jnp.where(mask, loss, 0.0)),
        "accuracy": jnp.sum(hits[:, 0] * weight),
        "top5_accuracy": jnp.sum(hits.any(axis=-1) * weight),
        "count": jnp.sum(weight),
    }


def divide(sums: dict[str, float]) -> dict[str, float]:
    """Returns means: every sum over `count`."""
    count = float(sums["count"])
    return {name: float(value) / count for name, value in sums.items() if name != "count"}
