"""Binary cross-entropy: each class is a separate decision. For several labels per image, and for one (DeiT III)."""

import jax
import jax.numpy as jnp

from jaxvit.precision import at_least_float32, full_float

Array = jax.Array


def sigmoid_cross_entropy(
    logits: Array,
    targets: Array,
    pos_weight: Array | None = None,
    weight: Array | None = None,
    *,
    target_threshold: float | None = None,
    sum_classes: bool = False,
) -> Array:
    """-w t log p - (1 - t) log(1 - p), p the sigmoid of the logit, in float32: [b, k] twice -> [b].

    The mean over the classes, as timm's `BinaryCrossEntropy` and torch's `binary_cross_entropy_with_logits` have it.

    Args:
      logits: [b, k].
      targets: [b, k] in [0, 1]; those of mixup and CutMix lie between.
      pos_weight: w, [k].
      weight: of a class, [k].
      target_threshold: targets become 1 above it, else 0, as in Wightman et al. (2021).
      sum_classes: the sum over the classes in place of the mean.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {logits.shape} and targets {targets.shape} differ in shape")
    logits = at_least_float32(logits)
    if target_threshold is not None:
        targets = (targets > target_threshold).astype(logits.dtype)
    positive = targets * jax.nn.log_sigmoid(logits)
    positive = positive if pos_weight is None else positive * jnp.asarray(pos_weight, logits.dtype)[None]
    losses = -positive - (1.0 - targets) * jax.nn.log_sigmoid(-logits)
    losses = losses if weight is None else losses * weight[None]
    return jnp.sum(losses, axis=-1) if sum_classes else jnp.mean(losses, axis=-1)


def smoothed(labels: Array, label_smoothing: float = 0.0) -> Array:
    """Targets (1 - s) * label + s / 2, as timm smooths dense targets: 0 or 1 [b, k] -> float32 [b, k]."""
    return labels.astype(full_float()) * (1.0 - label_smoothing) + 0.5 * label_smoothing
