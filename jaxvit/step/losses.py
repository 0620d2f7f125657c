"""Per-example losses on soft targets. Logits are unnormalised; targets are probabilities."""

import jax
import jax.numpy as jnp

from jaxvit.precision import at_least_float32, full_float

Array = jax.Array


def one_hot(labels: Array, num_classes: int, label_smoothing: float = 0.0) -> Array:
    """Targets (1 - s) * onehot + s / num_classes (Szegedy et al., 2016): int [b] -> float32 [b, num_classes]."""
    targets = jax.nn.one_hot(labels, num_classes, dtype=full_float())
    return targets * (1.0 - label_smoothing) + label_smoothing / num_classes


def softmax_cross_entropy(logits: Array, targets: Array) -> Array:
    """-sum_k targets_k log softmax(logits)_k, in float32: [b, num_classes] twice -> [b]."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {logits.shape} and targets {targets.shape} differ in shape")
    return -jnp.sum(targets * jax.nn.log_softmax(at_least_float32(logits)), axis=-1)


def cross_entropy(logits: Array, batch: dict[str, Array]) -> tuple[Array, Array]:
    """The plain objective: (cross-entropy against `batch["targets"]` [b], logits)."""
    return softmax_cross_entropy(logits, batch["targets"]), logits
