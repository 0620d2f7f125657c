"""The pure steps: (state, batch) -> (state, metrics) and (variables, batch) -> (sums, logits).

Both are written for one device; where the batch is split over a mesh, XLA adds the communication, and the result is
that of one device. With `axis_name` a training step is the share of one device in a mapped step instead, and says
itself what is averaged over them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxvit import optim
from jaxvit.data.pipeline import gather
from jaxvit.ops import loops
from jaxvit.step import bce, gradients, metrics, multi_label
from jaxvit.step.losses import make_objective, one_hot
from jaxvit.step.state import TrainState

Array = jax.Array
Batch = dict[str, Array]  # image uint8 [b, h, w, c], label int32 [b] or 0 and 1 [b, k], mask bool [b]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """What lies between stored images and the model."""

    to_float: Callable[[Array], Array]  # uint8 [b, h, w, c] to float in [0, 1]
    normalise: Callable[[Array], Array]  # images in [0, 1] to what the model reads
    augment: Callable[[Array, Array, Array], tuple[Array, Array]] = lambda key, images, targets: (images, targets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What the model's outputs are asked for."""

    num_classes: int  # width of the targets
    label_smoothing: float = 0.0  # share of the target spread over all classes
    several: bool = False  # whether an image may have several labels, or none
    labelled: bool = True  # whether there are logits to count hits of; without, the loss is the only metric
    # (what the model returns, {"targets": [b, k], ...}) -> (loss [b], logits [b, k], or None where not labelled)
    objective: Callable[[Any, Batch], tuple[Array, Array]] = make_objective()
    # (teacher's variables, images [b, h, w, c] in [0, 1], batch) -> what the objective reads of the teacher
    teacher_inputs: Callable[[Any, Array, Batch], dict[str, Array]] = lambda teacher, images, batch: {}

    @property
    def hit(self) -> str | None:
        """The metric that counts right answers."""
        return None if not self.labelled else "exact_match" if self.several else "accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """How the weights move."""

    tx: optax.GradientTransformationExtraArgs  # over the trainable parameters
    schedule: Callable[[Array], Array]  # step -> learning rate; what `tx` has too
    trainable: Any  # tree of bools like the parameters; the rest is neither differentiated nor updated
    # (loss_fn, learning rate) -> gradient function, from `gradients`
    gradient: Callable[[Callable, Array], Callable] = gradients.plain
    # (old average, {"params": trainable ones, "batch_stats"}, steps done) -> new average
    average: Callable[[Any, Any, Array], Any] = lambda ema, variables, step: ema


def make_train_step(
    *, model: Any, pixels: Pixels, task: Task, update: Update, axis_name: str | None = None
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Returns one optimiser step, (state, batch, teacher's variables or None) -> (state, metrics).

    With `axis_name`, the name of the devices that a mapped step runs on, gradients, batch statistics and metrics are
    averaged over them; what is drawn, what BatchNorm normalises by and the ascent of SAM are each device's own.
    """
    norms = frozen_norms(update.trainable)

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
        losses, logits = task.objective(outputs, batch)
        found = {"loss": losses}
        if task.hit == "exact_match":
            found[task.hit] = multi_label.exact_match(logits, batch["targets"])
        elif task.hit is not None:
            found[task.hit] = jnp.argmax(logits, axis=-1) == jnp.argmax(batch["targets"], axis=-1)
        # where, not a product: a masked example may have any value, and 0 * inf is NaN
        means = {k: jnp.mean(jnp.where(batch["weight"] > 0, x * batch["weight"], 0.0)) for k, x in found.items()}
        return means["loss"], (updated.get("batch_stats", batch_stats), means)

    def over_devices(values: Any) -> Any:
        return values if axis_name is None else jax.lax.pmean(values, axis_name)

    def train_step(state: TrainState, batch: Batch, teacher: Any = None) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        augment_key, dropout_key = jax.random.split(key)
        # a row of zeros marks an image that could not be read: it is mixed into no other
        if task.several:  # zeros may be an image without a label: a column of ones tells the two apart
            labels = bce.smoothed(batch["label"], task.label_smoothing)
            targets = jnp.concatenate([labels, jnp.ones_like(labels[:, :1])], axis=-1) * batch["mask"][:, None]
        else:
            targets = one_hot(batch["label"], task.num_classes, task.label_smoothing) * batch["mask"][:, None]
        images, targets = pixels.augment(augment_key, pixels.to_float(batch["image"]), targets)
        targets = targets[:, : task.num_classes] if task.several else targets
        # of mean 1 over the batch: the mean over its parts is then the mean over what could be read
        readable = over_devices(jnp.sum(batch["mask"], dtype=images.dtype))
        weight = batch["mask"] * (len(batch["mask"]) / jnp.where(readable > 0, readable, 1))
        taught = jax.lax.stop_gradient(task.teacher_inputs(teacher, images, batch))
        inputs = {"images": pixels.normalise(images), "targets": targets, "weight": weight, **taught}

        params, frozen = optim.split_trainable(state.params, update.trainable)
        learning_rate = update.schedule(state.step) * state.lr_scale
        (_, (batch_stats, step_metrics)), grads = over_devices(
            update.gradient(loss_fn, learning_rate)(params, frozen, state.batch_stats, inputs, dropout_key)
        )
        updates, opt_state = update.tx.update(grads, state.opt_state, params, lr_scale=state.lr_scale)
        params = optax.apply_updates(params, updates)
        step_metrics |= {"grad_norm": optax.global_norm(grads), "learning_rate": learning_rate}
        state = state.replace(
            step=state.step + 1,
            params=optim.merge(params, frozen),
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=update.average(state.ema, {"params": params, "batch_stats": batch_stats}, state.step + 1),
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


def make_many(step: Callable, sharding: Any) -> Callable:
    """Returns (state, data, slots int32 [n, b], teacher) -> (state, metrics [n] each): `step` n times in one program.

    `data` are a resident feed's arrays.
    """

    def many(state: Any, data: Any, slots: jax.Array, teacher: Any = None) -> tuple[Any, dict[str, jax.Array]]:
        def one(state: Any, slots: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
            return step(state, gather(*data, slots, out=sharding), teacher)

        return loops.scan(one, state, slots)

    return many


def make_eval_step(*, model: Any, pixels: Pixels) -> Callable[[Any, Batch], tuple[dict[str, Array], Array]]:
    """Returns a step from (variables, batch) to the sums of `batch_sums` and the logits [b, num_classes].

    The sums are those of `metrics`, or where labels are 0 and 1 [b, num_classes] those of `multi_label`.
    """

    def eval_step(variables: Any, batch: Batch) -> tuple[dict[str, Array], Array]:
        logits = model.apply(variables, pixels.normalise(pixels.to_float(batch["image"])))
        if batch["label"].ndim == 2:
            return multi_label.batch_sums(logits, batch["label"], batch["mask"]), logits
        return metrics.batch_sums(logits, batch["label"], batch["mask"]), logits

    return eval_step
