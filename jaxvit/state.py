"""The training state: data only. What is checkpointed is what there is."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxvit import optim

Array = jax.Array


@flax.struct.dataclass
class TrainState:
    """Everything a step reads and writes; the model and the optimiser are closed over by the step.

    `step`: int32, optimiser steps taken. `params`, `batch_stats`: the model's variables (batch_stats may be empty).
    `opt_state`: optax state of the trainable parameters. `key`: uint32 [2], the run's random key (raw, so that
    it can be stored); each step folds its number in.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    key: Array


def create_state(variables: Any, tx: optax.GradientTransformation, trainable: Any, key: Array) -> TrainState:
    """Returns the state at step 0; `trainable` is a tree of bools like the parameters."""
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(optim.split_trainable(params, trainable)[0]),
        key=jax.random.key_data(key),
    )


def model_variables(state: TrainState) -> dict[str, Any]:
    """Returns what `model.apply` takes."""
    variables = {"params": state.params}
    return {**variables, "batch_stats": state.batch_stats} if state.batch_stats else variables


def init_variables(model: nn.Module, key: Array, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Draws fresh variables for images [h, w, c], compiled as one program (much faster than op by op)."""
    images = jnp.zeros((1, *image_shape), jnp.float32)
    return jax.jit(model.init)(key, images)
