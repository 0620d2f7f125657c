"""The mean of probabilities, kept as logits: what reads logits reads it too."""

import math

import jax
import jax.numpy as jnp

from jaxvit.precision import full_float


def log_mean(logits: jax.Array, several: bool) -> jax.Array:
    """Logits [m, ..., num_classes] of m predictions -> logits [..., num_classes] of the mean of their probabilities.

    With one label per image the result is the logarithm of the mean softmax, so that its softmax is that mean; with
    `several` labels it is the log odds of the mean sigmoid.
    """
    logits = logits.astype(full_float())
    if several:
        return _sum(jax.nn.log_sigmoid(logits)) - _sum(jax.nn.log_sigmoid(-logits))
    return _sum(jax.nn.log_softmax(logits, axis=-1)) - math.log(len(logits))


def _sum(logs: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(jnp.asarray(logs), axis=0)
