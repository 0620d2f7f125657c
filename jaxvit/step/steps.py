"""The pure steps: (state, batch) -> (state, metrics) and (variables, batch) -> (sums, logits).

Both are written for one device; where the batch is split over a mesh, XLA adds the communication, and the result is
that of one device. With `axis_name` a training step is the share of one device in a mapped step instead, and says
itself what is averaged over them.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxvit import optim
from jaxvit.step import gradients, metrics
from jaxvit.step.losses import cross_entropy, one_hot
from jaxvit.step.state import TrainState

Array = jax.Array
Batch = dict[str, Array]  # image uint8 [b, h, w, c], label int32 [b], mask bool [b]


def make_train_step(
    *,
    model: Any,
    tx: optax.GradientTransformationExtraArgs,
    schedule: Callable[[Array], Array],
    to_float: Callable[[Array], Array],
    augment: Callable[[Array, Array, Array], tuple[Array, Array]],
    normalise: Callable[[Array], Array],
    num_classes: int,
    trainable: Any,
    label_smoothing: float = 0.0,
    gradient: Callable[[Callable, Array], Callable] = gradients.plain,
    objective: Callable[[Any, Batch], tuple[Array, Array]] = cross_entropy,
    teacher_inputs: Callable[[Any, Array, Batch], dict[str, Array]] = lambda teacher, images, batch: {},
    average: Callable[[Any, Any, Array], Any] = lambda ema, variables, step: ema,
    axis_name: str | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Returns one optimiser step, (state, batch, teacher's variables or None) -> (state, metrics).

    Args:
      model: a classifier.
      tx: its optimiser, over the trainable parameters.
      schedule: step -> learning rate; what `tx` has too.
      to_float: uint8 images to float in [0, 1].
      augment: (key, images, targets) -> (images, targets).
      normalise: images in [0, 1] to what the model reads.
      num_classes: width of the targets.
      trainable: tree of bools like the parameters; the rest is neither differentiated nor updated.
      label_smoothing: share of the target spread over all classes.
      gradient: (loss_fn, learning rate) -> gradient function, from `gradients`.
      objective: (what the model returns, {"targets": [b, k], ...}) -> (loss [b], logits [b, k]).
      teacher_inputs: (teacher's variables, images [b, h, w, c] in [0, 1], batch) -> what the objective reads of it.
      average: (old average, {"params": trainable ones, "batch_stats"}, steps done) -> new average.
      axis_name: of the devices that a mapped step runs on. Gradients, batch statistics and metrics are averaged over
        them; what is drawn, what BatchNorm normalises by and the ascent of SAM are each device's own.
    """
    norms = frozen_norms(trainable)

    def loss_fn(params, frozen, batch_stats, batch, key):
        variables = {"params": optim.merge(params, frozen), "batch_stats": batch_stats}
        with nn.intercept_methods(norms):
            outputs, updated = model.apply(
                variables,
                batch["images"],
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"] if batch_stats else [],
            )
        losses, logits = objective(outputs, batch)
        hits = jnp.argmax(logits, axis=-1) == jnp.argmax(batch["targets"], axis=-1)
        # where, not a product: a masked example may have any value, and 0 * inf is NaN
        loss, accuracy = (jnp.mean(jnp.where(batch["weight"] > 0, x * batch["weight"], 0.0)) for x in (losses, hits))
        return loss, (updated.get("batch_stats", batch_stats), {"loss": loss, "accuracy": accuracy})

    def over_devices(values: Any) -> Any:
        return values if axis_name is None else jax.lax.pmean(values, axis_name)

    def train_step(state: TrainState, batch: Batch, teacher: Any = None) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        augment_key, dropout_key = jax.random.split(key)
        # a row of zeros marks an image that could not be read: it is mixed into no other
        targets = one_hot(batch["label"], num_classes, label_smoothing) * batch["mask"][:, None]
        images, targets = augment(augment_key, to_float(batch["image"]), targets)
        # of mean 1 over the batch: the mean over its parts is then the mean over what could be read
        readable = over_devices(jnp.sum(batch["mask"], dtype=images.dtype))
        weight = batch["mask"] * (len(batch["mask"]) / jnp.where(readable > 0, readable, 1))
        taught = jax.lax.stop_gradient(teacher_inputs(teacher, images, batch))
        inputs = {"images": normalise(images), "targets": targets, "weight": weight, **taught}

        params, frozen = optim.split_trainable(state.params, trainable)
        learning_rate = schedule(state.step) * state.lr_scale
        (_, (batch_stats, step_metrics)), grads = over_devices(
            gradient(loss_fn, learning_rate)(params, frozen, state.batch_stats, inputs, dropout_key)
        )
        updates, opt_state = tx.update(grads, state.opt_state, params, lr_scale=state.lr_scale)
        params = optax.apply_updates(params, updates)
        step_metrics |= {"grad_norm": optax.global_norm(grads), "learning_rate": learning_rate}
        state = state.replace(
            step=state.step + 1,
            params=optim.merge(params, frozen),
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=average(state.ema, {"params": params, "batch_stats": batch_stats}, state.step + 1),
        )
        return state, step_metrics

    return train_step


def frozen_norms(trainable: Any) -> Callable:
    """Returns a linen interceptor: a BatchNorm whose parameters are all frozen works as in evaluation."""
    frozen = optim.frozen_modules(trainable)

    def intercept(next_fn: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, nn.BatchNorm) and context.method_name == "__call__" and "/".join(module.path) in frozen:
            kwargs = {**kwargs, "use_running_average": True}
        return next_fn(*args, **kwargs)

    return intercept


def skip_bad(train_step: Callable) -> Callable:
    """Makes a step whose loss or gradient is not finite change nothing but the step number.

    The optimiser's place in the schedule moves with it; its moments and their count stay.
    """

    def step(state: TrainState, batch: Batch, teacher: Any = None) -> tuple[TrainState, dict[str, Array]]:
        new, step_metrics = train_step(state, batch, teacher)
        good = jnp.isfinite(step_metrics["loss"]) & jnp.isfinite(step_metrics["grad_norm"])
        # what is frozen is handed on as it is
        kept = jax.tree.map(lambda a, b: a if a is b else jnp.where(good, a, b), new, state)
        return kept.replace(step=new.step, opt_state=optim.at_step(kept.opt_state, new.step)), step_metrics

    return step


def make_eval_step(
    *, model: Any, to_float: Callable[[Array], Array], normalise: Callable[[Array], Array]
) -> Callable[[Any, Batch], tuple[dict[str, Array], Array]]:
    """Returns a step from (variables, batch) to the sums of `metrics.batch_sums` and the logits [b, num_classes]."""

    def eval_step(variables: Any, batch: Batch) -> tuple[dict[str, Array], Array]:
        logits = model.apply(variables, normalise(to_float(batch["image"])))
        return metrics.batch_sums(logits, batch["label"], batch["mask"]), logits

    return eval_step
