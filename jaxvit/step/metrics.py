"""Metrics as sums: added over batches, divided once, so that every example counts exactly once.

What is a mean over classes comes from three sums per class.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvit import plugins
from jaxvit.errors import UserError
from jaxvit.precision import full_float
from jaxvit.step.losses import one_hot, softmax_cross_entropy

Array = jax.Array


class Own(NamedTuple):
    """A user's metric of a whole split."""

    compute: Callable[[np.ndarray, np.ndarray], Any]  # logits [n, k], labels -> number
    several: bool  # whether it is of several labels per image


OWN: dict[str, Own] = {}  # by name
_USED = ("count", "ece", "hits", "predicted", "actual", "learning_rate", "grad_norm", "batch_loss")


def batch_sums(logits: Array, labels: Array, mask: Array) -> dict[str, Array]:
    """Sums over the examples where `mask` is True: logits [b, num_classes], labels int [b], mask bool [b].

    Returns float32 scalars `loss` (cross-entropy without smoothing, weights or adjustment), `nll` (of the labels: the
    same), `accuracy`, `top5_accuracy` and `count`; and per class [num_classes] `hits`, `predicted` and `actual`.
    Of equal logits the first class wins, as in `argmax`.
    """
    num_classes = logits.shape[-1]
    weight = mask.astype(full_float())
    loss = softmax_cross_entropy(logits, one_hot(labels, num_classes))
    _, top = jax.lax.top_k(logits, min(5, num_classes))
    hits = top == labels[:, None]
    # where, not a product: a padded example may have any value, and 0 * inf is NaN
    total = jnp.sum(jnp.where(mask, loss, 0.0))
    actual = one_hot(labels, num_classes) * weight[:, None]
    return {
        "loss": total,
        "accuracy": jnp.sum(hits[:, 0] * weight),
        "top5_accuracy": jnp.sum(hits.any(axis=-1) * weight),
        "nll": total,
        "count": jnp.sum(weight),
        "hits": jnp.sum(actual * hits[:, :1], axis=0),
        "predicted": jnp.sum(one_hot(top[:, 0], num_classes) * weight[:, None], axis=0),
        "actual": jnp.sum(actual, axis=0),
    }


def divide(sums: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics: every scalar sum over `count`, and the means over classes of `of_classes`."""
    count = float(sums["count"])
    means = {name: float(v) / count for name, v in sums.items() if name != "count" and np.ndim(v) == 0}
    if "hits" not in sums:
        return means
    return means | of_classes(*(np.asarray(sums[name], np.float64) for name in ("hits", "predicted", "actual")))


def of_classes(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Returns `macro_f1` and `balanced_accuracy` from counts per class, [num_classes] each.

    As scikit-learn's `f1_score(average="macro")` and `balanced_accuracy_score`: the mean of F1 is over the classes that
    have images or are predicted, where one without images has F1 0; that of recall over the classes that have images.
    """
    seen = actual + predicted > 0
    f1 = 2 * hits[seen] / (actual + predicted)[seen]
    there = actual > 0
    recall = hits[there] / actual[there]
    return {"macro_f1": float(f1.mean()), "balanced_accuracy": float(recall.mean())}


def register_metric(name: str, *, better: str = "max", several_labels: bool = False) -> Callable[[Any], Any]:
    """Adds a metric: above a function (logits, labels) -> number; it is computed in each evaluation.

    It has NumPy's arrays of a whole split: logits float [n, num_classes] and labels int [n], or with `several_labels` 0
    and 1 [n, num_classes], where it is then computed for such data alone. early_stopping.metric may name it.

    Args:
      name: what it is called in metrics.jsonl, after "val/" and "test/".
      better: "max" or "min".
      several_labels: whether it is a metric of several labels per image.

    Raises:
      UserError: a name that exists, or another kind of thing than such a function.
    """
    if better not in ("max", "min"):
        raise UserError(f"register_metric: better is {better!r}; expected 'max' or 'min'")

    def register(name: str, compute: Callable[..., Any]) -> None:
        from jaxvit.config.checks import METRICS  # ml_collections, which a machine for benchmarks alone may lack

        plugins.options("metric", name, compute, 2, "(logits, labels) -> number")
        plugins.claim("metric", name, {*METRICS, *_USED}, compute)
        METRICS[name], OWN[name] = better, Own(compute, several_labels)

    return plugins.decorator(register, name, '@register_metric("name")')


def wanted(several: bool) -> bool:
    """Whether a user's metric needs the logits of the whole split."""
    return any(own.several == several for own in OWN.values())


def own_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The users' metrics of a split: logits [n, k], labels int [n] or 0 and 1 [n, k]. Raises UserError at no number."""
    found = {}
    for name, own in OWN.items():
        if own.several == (labels.ndim == 2):
            value = own.compute(np.asarray(logits, np.float32), labels)
            if np.shape(value) != () or not isinstance(value, int | float | np.generic | jax.Array):
                raise UserError(f"the metric {name!r} returned {type(value).__name__}; expected a number")
            found[name] = float(value)
    return found
