"""Exponential moving average of weights, with the warm-ups of TensorFlow and of timm."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.errors import UserError


def decay_at(
    step: Any,
    decay: float = 0.9998,
    *,
    warmup: bool | None = False,
    gamma: float = 1.0,
    power: float = 2 / 3,
    min_decay: float = 0.0,
    update_after_step: int = 0,
) -> Any:
    """The decay at `step`, the number of updates done, this one included (1, 2, ...): timm's ModelEmaV3.

    With `warmup` True min(decay, 1 - (1 + n / gamma)^-power) at the n-th step after the first; power 2/3 reaches 0.999
    in 31.6 k steps, 0.9999 in 1 M. With None min(decay, (1 + n) / (10 + n)), the rule of TensorFlow's
    ExponentialMovingAverage (`num_updates`): the average spans about a tenth of the steps so far, and 0.9998 is reached
    in 45 k. False: the decay as it is. The first step, and those up to `update_after_step`, copy the weights (decay 0).
    """
    if not 0 <= decay <= 1:
        raise UserError(f"ema.decay is {decay}; it must lie in [0, 1].")
    n = jnp.maximum(jnp.asarray(step, jnp.float32) - update_after_step - 1, 0.0)
    value = jnp.asarray(decay, jnp.float32)
    if warmup is None:
        value = jnp.minimum((1 + n) / (10 + n), value)
    elif warmup:
        value = jnp.maximum(jnp.minimum(1 - (1 + n / gamma) ** -power, value), min_decay)
    return jnp.where(n > 0, value, 0.0)


def update(average: Any, tree: Any, decay: Any) -> Any:
    """Moves the average: average + (1 - decay) (tree - average), leaf by leaf, in its own type."""

    def lerp(mean: jax.Array, new: jax.Array) -> jax.Array:
        wide = jnp.promote_types(mean.dtype, jnp.float32)
        old, new = mean.astype(wide), new.astype(wide)
        # at decay 0 exactly the new value
        return jnp.where(decay == 0, new, old + (1 - decay).astype(wide) * (new - old)).astype(mean.dtype)

    decay = jnp.asarray(decay)
    return jax.tree.map(lerp, average, tree)
