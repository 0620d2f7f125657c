"""The training state: data only. What is checkpointed is what there is."""

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxvit import optim

Array = jax.Array
KERNEL_OPTION = "jax_threefry_gpu_kernel_lowering"


class TrainState(flax.struct.PyTreeNode):
    """Everything a step reads and writes; the model and the optimiser are closed over by the step.

    `step`: int32, steps taken. `params`, `batch_stats`: the model's variables (batch_stats may be empty).
    `opt_state`: optax state of the trainable parameters. `ema`: the moving average of those and of batch_stats, empty
    where it is off. `lr_scale`: float32, a multiplier on the schedule. `key`: uint32 [2], the run's random key (raw, so
    that it can be stored); each step folds its number in.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    lr_scale: Array
    key: Array


def create_state(
    variables: Any, tx: optax.GradientTransformation, trainable: Any, key: Array, *, ema: bool = False
) -> TrainState:
    """Returns the state at step 0; `trainable` is a tree of bools like the parameters."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    part = optim.split_trainable(params, trainable)[0]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(part),
        ema={"params": part, "batch_stats": batch_stats} if ema else {},
        lr_scale=jnp.ones((), jnp.float32),
        key=jax.random.key_data(key),
    )


def model_variables(state: TrainState) -> dict[str, Any]:
    """Returns what `model.apply` takes."""
    variables = {"params": state.params}
    return {**variables, "batch_stats": state.batch_stats} if state.batch_stats else variables


def ema_variables(state: TrainState, trainable: Any) -> dict[str, Any]:
    """Returns the averaged variables, as `model.apply` takes them."""
    frozen = optim.split_trainable(state.params, trainable)[1]
    return model_variables(
        state.replace(params=optim.merge(state.ema["params"], frozen), batch_stats=state.ema["batch_stats"])
    )


def init_variables(model: nn.Module, key: Array, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Draws fresh variables for images [h, w, c], compiled as one program (much faster than op by op)."""
    images = jnp.zeros((1, *image_shape), jnp.float32)
    with random_bits_by_kernel():
        return jax.jit(model.init)(key, images)


@contextlib.contextmanager
def random_bits_by_kernel() -> Iterator[None]:
    """Programs lowered within draw their random bits on a GPU with JAX's own kernel; the bits are the same.

    Without it XLA unrolls threefry for each array that is drawn, which takes as long to compile as a training step.
    """
    before = getattr(jax.config, KERNEL_OPTION, None)
    if before is None:  # not in this version of JAX
        yield
        return
    jax.config.update(KERNEL_OPTION, True)
    try:
        yield
    finally:
        jax.config.update(KERNEL_OPTION, before)
